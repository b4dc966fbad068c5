"""The items of a project: dvc.yaml with its loops over plan.yaml written out, and which item reads from which.

DVC does the same, 8 ms an item; a large study has many thousand items. What is read here is the part of dvc.yaml's
language that ours is written in; of anything else `written_out` says nothing, and DVC is asked.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$\{(\w+(?:\.[\w-]+)?)\}")

WORD = r"(?!(?:null|true|false|yes|no|on|off|y|n)\b)[A-Za-z][\w/.-]*"  # a text in every version of YAML
LOOP = re.compile(r"  ([\w-]+):(?: {})?", re.ASCII)
TURN = re.compile(rf"    ({WORD}): {{((?:\w+: {WORD}(?:, |(?=}})))*)}}", re.ASCII | re.IGNORECASE)
PAIR = re.compile(r"(\w+): ([^,]+)")


class NotPlain(Exception):
    """Something that only DVC understands, or that it has to refuse."""


@dataclass(frozen=True)
class Resolved:
    """An item as dvc.yaml has it, a stage or one turn of its loop. definition: its entry with paths put in."""

    command: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    definition: Mapping[str, Any]


def written_out(stages: Mapping[str, Any], plan: Path) -> dict[str, Resolved]:
    """Name of an item, as in train@a_b_ft_s1 -> item, in the order of dvc.yaml and plan.yaml.

    stages: the section of dvc.yaml;  plan: plan.yaml. Raises NotPlain for what is not in the form that this knows.
    """
    loops = _loops(plan)
    items: dict[str, Resolved] = {}
    for stage, entry in stages.items():
        if entry.keys() == {"foreach", "do"}:
            turns = loops.get(_name_of_loop(entry["foreach"]))
            if not isinstance(turns, dict):
                raise NotPlain
            for key, paths in turns.items():
                items[f"{stage}@{key}"] = _item(entry["do"], _variables(key, paths))
        else:
            items[stage] = _item(entry, {})
    return items


def readers(items: Mapping[str, Resolved]) -> dict[str, set[str]]:
    """Item -> the items whose outputs it reads: those that write what it names, something in it, or a folder around
    it.

    Raises NotPlain where two items write the same or one into the other's folder, or where a circle closes.
    """
    writer = {path: name for name, item in items.items() for path in item.writes}
    if len(writer) < sum(len(item.writes) for item in items.values()):
        raise NotPlain
    within: dict[str, set[str]] = {}  # folder -> items that write something in it
    for path, name in writer.items():
        for folder in folders_around(path):
            if folder in writer:
                raise NotPlain
            within.setdefault(folder, set()).add(name)
    after = {}
    for name, item in items.items():
        around = (way for path in item.reads for way in (path, *folders_around(path)))
        after[name] = {writer[way] for way in around if way in writer}.union(
            *(within.get(path, ()) for path in item.reads))
    if _has_circle(after):
        raise NotPlain
    return after


def other_files(root: Path, items: Mapping[str, Resolved], ignored: Iterable[str]) -> Iterator[Path]:
    """Files of the project beside its dvc.yaml that DVC would take stages from; not looked for in what items write,
    in hidden folders, and in those at the top that are ignored."""
    closed = {path for item in items.values() for path in item.writes}.union(ignored)
    for folder, folders, files in os.walk(root):
        inside = os.path.relpath(folder, root)
        for name in files:
            if name.endswith(".dvc") or (name == "dvc.yaml" and inside != "."):
                yield Path(folder, name)
        folders[:] = [name for name in folders
                      if not name.startswith(".") and os.path.normpath(os.path.join(inside, name)) not in closed]


def ignored_by_git(root: Path) -> set[str]:
    """Folders at the top of the project that .gitignore names."""
    try:
        lines = (root / ".gitignore").read_text("utf-8").split()
    except (OSError, ValueError):
        return set()
    return {line.strip("/*") for line in lines if not line.startswith("!")}


def folders_around(path: str) -> Iterable[str]:
    """The folders around a path, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _loops(plan: Path) -> dict[str, Any]:
    """Stage -> key of an item -> paths, from plan.yaml. Lines as `finetrace plan` writes most of them are taken apart
    here, ten times faster than YAML is."""
    try:
        text = plan.read_text("utf-8")
        turns: dict[str, dict[str, str]] = {}
        loops: dict[str, Any] = {}
        for line in text.partition("plan:\n")[2].splitlines():
            if match := TURN.fullmatch(line):
                turns[match[1]] = dict(PAIR.findall(match[2]))
            elif match := LOOP.fullmatch(line):
                loops[match[1]] = turns = {}
            else:
                return dict(yaml.safe_load(text)["plan"])
        return loops
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise NotPlain from error


def _name_of_loop(text: object) -> str:
    match = re.fullmatch(r"\$\{plan\.([\w-]+)\}", text) if isinstance(text, str) else None
    if match is None:
        raise NotPlain
    return match[1]


def _variables(key: object, paths: object) -> dict[str, str]:
    """What stands for ${key} and ${item.NAME} in one turn of a loop."""
    if not isinstance(key, str) or not isinstance(paths, dict):
        raise NotPlain
    variables = {"key": key} | {f"item.{name}": path for name, path in paths.items()}
    if not all(isinstance(value, str) for value in variables.values()):
        raise NotPlain
    return variables


def _item(entry: Mapping[str, Any], variables: Mapping[str, str]) -> Resolved:
    if not {"cmd", "outs"} <= entry.keys() <= {"desc", "cmd", "deps", "outs"}:
        raise NotPlain
    command = _put_in(entry["cmd"], variables)
    deps = [_path(_put_in(path, variables)) for path in entry.get("deps", ())]
    outs = [_out(out, variables) for out in entry["outs"]]
    writes = [_path(out if isinstance(out, str) else next(iter(out))) for out in outs]
    if len({*deps, *writes}) < len(deps) + len(writes):
        raise NotPlain
    return Resolved(command, tuple(deps), tuple(writes), {"cmd": command, "deps": deps, "outs": outs})


def _out(out: object, variables: Mapping[str, str]) -> str | dict[str, Any]:
    """What is written: a path, or a path with what DVC shall do with it."""
    if isinstance(out, dict) and len(out) == 1:
        (path, flags), = out.items()
        if isinstance(flags, dict) and flags.keys() <= {"cache", "persist"}:
            return {_put_in(path, variables): flags}
    return _put_in(out, variables)


def _put_in(text: object, variables: Mapping[str, str]) -> str:
    """A text of dvc.yaml with its variables put in."""
    if not isinstance(text, str) or "\\" in text:
        raise NotPlain
    if "$" not in text:
        return text
    parts = VARIABLE.split(text)
    if any("$" in part for part in parts[::2]) or not {*parts[1::2]} <= variables.keys():
        raise NotPlain
    return "".join(variables[part] if number % 2 else part for number, part in enumerate(parts))


def _path(text: str) -> str:
    """A path in the project or beside it, in the form in which DVC keeps it."""
    if not text or text.startswith(("~", "/")) or "://" in text or os.path.normpath(text) != text:
        raise NotPlain
    return text


def _has_circle(after: Mapping[str, set[str]]) -> bool:
    """Whether items read from each other in a circle."""
    left = {name: len(others) for name, others in after.items()}
    before: dict[str, list[str]] = {}
    for name, others in after.items():
        for other in others:
            before.setdefault(other, []).append(name)
    free = [name for name, count in left.items() if not count]
    for name in free:
        for reader in before.get(name, ()):
            left[reader] -= 1
            if not left[reader]:
                free.append(reader)
    return len(free) < len(after)

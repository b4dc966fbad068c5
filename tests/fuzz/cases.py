"""Task files and studies drawn at random from a seed: what was meant, and how it was spoiled, if it was."""

import csv
import io
import json
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

LETTERS = ["a", "b", "film", "bad", "\u00e9t\u00e9", "\u5f71", "\U0001f3ac", "x,y", "it's", "{z}", "#1", "null", "NA",
           "-", "'"]
CLASSES = [["0", "1"], ["0", "1", "2"], ["neg", "pos"], ["no", "yes"], ["A", "B", "C"], ["1", "2", "10"],
           ["e", "\u00e9"]]
FORMATS = ("csv", "tsv", "jsonl", "parquet")
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
Row = tuple[str, Any]


@dataclass
class TaskCase:
    """A task in files.

    settings: as in params.yaml;  meant: our split -> (text, class name) of each row, in order;  names: the classes;
    spoiled: what was done that has to be refused, or empty.
    """

    settings: dict[str, Any]
    meant: dict[str, list[Row]]
    names: list[str]
    spoiled: str = ""
    notes: list[str] = field(default_factory=list)


def draw_task(seed: int, root: Path) -> TaskCase:
    """Write the files of a task below root/rows, harmless oddities and at most one real fault among them."""
    rng = random.Random(seed)
    names = rng.choice(CLASSES)
    form = rng.choice(FORMATS)
    meant = {SPLITS[split]: _rows(rng, names) for split in ("train", "dev", *(["test"] if rng.random() < 0.4 else []))}
    case = TaskCase({"path": "rows", "text": ["text"], "label": "label"}, meant, names)
    folder = root / "rows"
    folder.mkdir()
    written = {split: [(text, _as_written(rng, name, names, case)) for text, name in rows]
               for split, rows in meant.items()}
    fault = rng.choice(FAULTS) if rng.random() < 0.5 else None
    if fault is not None:
        fault(rng, case, written, form)
    for split, rows in written.items():
        theirs = next(name for name, ours in SPLITS.items() if ours == split)
        (folder / f"{theirs}.{form}").write_bytes(_content(rng, rows, form, case))
    if rng.random() < 0.25:
        _spoil_bytes(rng, folder, form, case)
    return case


def _rows(rng: random.Random, names: list[str]) -> list[Row]:
    rows = [(" ".join(rng.choices(LETTERS, k=rng.randint(1, 6))), name) for name in names * 2]
    rows += [(" ".join(rng.choices(LETTERS, k=rng.randint(1, 6))), rng.choice(names)) for _ in range(rng.randint(0, 6))]
    rng.shuffle(rows)
    return rows


def _as_written(rng: random.Random, name: str, names: list[str], case: TaskCase) -> Any:
    """A label in one of the ways that mean the same; numbers stay numbers throughout a task."""
    if not name.isdigit():
        return name
    return rng.choice([name, int(name), float(name)]) if all(map(str.isdigit, names)) else name


def _content(rng: random.Random, rows: list[Row], form: str, case: TaskCase) -> bytes:
    if form == "parquet":
        out = io.BytesIO()
        labels = [str(label) for _, label in rows] if all(isinstance(one, str | int | float) for _, one in rows) else []
        pq.write_table(pa.table({"text": [text for text, _ in rows], "label": labels or [one for _, one in rows]}), out)
        return out.getvalue()
    if form == "jsonl":
        plain = rng.random() < 0.5 or "\\ud83d" in json.dumps(rows)
        text = "".join(json.dumps({"text": text, "label": label}, ensure_ascii=plain) + "\n" for text, label in rows)
    elif form == "tsv":
        text = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    else:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([("text", "label"), *rows])
        text = stream.getvalue()
    if case.settings.get("columns"):
        text = text.split("\n", 1)[1]
    if rng.random() < 0.3:
        text = text.replace("\n", "\r\n")
    if rng.random() < 0.3:
        text = text.rstrip("\r\n")
    encoding = case.settings.get("encoding") or "utf-8"
    encoding = "utf-8" if encoding == "klingon" else encoding
    marked = encoding == "utf-8" and rng.random() < 0.3
    return (("\ufeff" if marked else "") + text).encode(encoding)


# --- faults: each is refused, with one sentence


def _no_header(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    """No fault: files without a header line, said so."""
    if form in ("csv", "tsv"):
        case.settings["columns"] = ["text", "label"]


def _encoding(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    """No fault: another encoding, said so."""
    if form != "parquet":
        case.settings["encoding"] = rng.choice(["utf-16", "utf-16-le", "utf_8", "utf-32", "UTF8"])


def _label_names(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    """No fault: the classes in an order of one's own, rows that say their number or their name."""
    if any(name.isdigit() for name in case.names):
        return
    names = rng.sample(case.names, len(case.names))
    case.settings["label_names"] = case.names = names
    for split, rows in written.items():
        written[split] = [(text, names.index(label) if rng.random() < 0.5 else label) for text, label in rows]


def _label_values(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    """No fault: labels renamed, one of them left out."""
    wanted = {name: f"c{i}" for i, name in enumerate(case.names)}
    if len(case.names) > 2:
        wanted[case.names[-1]] = None  # type: ignore[assignment]
    case.settings["label_values"] = wanted
    case.names = [name for name in wanted.values() if name is not None]
    case.meant = {split: [(text, wanted[name]) for text, name in rows if wanted[name]]
                  for split, rows in case.meant.items()}


def _odd_label(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    odd: list[Any] = ["-1", "", "  ", "0.5", "1e400"]
    if form == "jsonl":
        odd += [None, ["a", "b"], {"a": 1}, True, float("inf"), float("nan"), -1, 0.25, "\ud83d"]
    case.spoiled = f"label {_put(rng, written['train'], rng.choice(odd))!r}"


def _put(rng: random.Random, rows: list[Row], label: Any) -> Any:
    at = rng.randrange(len(rows))
    rows[at] = (rows[at][0], label)
    return label


def _numbers_in_validation(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    if not any(name.isdigit() for name in case.names):
        written["validation"] = [(text, case.names.index(label)) for text, label in written["validation"]]
        case.spoiled = "numbers in validation"


def _unknown_in_validation(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    _put(rng, written["validation"], "nobody-knows")
    case.spoiled = "unknown label in validation"


def _odd_text(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    if form != "jsonl":
        return
    rows = written[rng.choice(list(written))]
    at = rng.randrange(len(rows))
    rows[at] = (rng.choice([None, 5, ["a"], {}, True, float("nan"), "half \ud83d"]), rows[at][1])
    case.spoiled = "text that is none"


def _wrong_settings(rng: random.Random, case: TaskCase, written: dict[str, list[Row]], form: str) -> None:
    wrong = [{"text": ["txt"]}, {"label": "klass"}, {"encoding": "klingon"} if form != "parquet" else {"label": "x"},
             {"label_names": ["one", "one"]}, {"path": "nowhere"}, {"splits": {"train": "a.csv"}}, {"holdout": 1.5},
             {"id_column": "i"}, {"kind": "pair"}, {"format": "xml"}, {"label_ranges": {"a": [1, 0]}},
             {"metric": "bleu"}, {"max_rows": {"train": 0}}]
    change = rng.choice(wrong)
    case.settings |= change
    case.spoiled = f"settings {change}"


FAULTS: tuple[Callable[..., None], ...] = (_no_header, _encoding, _label_names, _label_values, _odd_label, _odd_label,
                                           _numbers_in_validation, _unknown_in_validation, _odd_text, _wrong_settings)


def _spoil_bytes(rng: random.Random, folder: Path, form: str, case: TaskCase) -> None:
    """Damage a file so that nobody can tell what was meant; whether it has to be refused depends on where."""
    path = rng.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    kind = rng.choice(["cut", "flip", "insert", "empty", "folder", "nul", "twice"])
    at = rng.randrange(max(1, len(content)))
    case.notes.append(f"{kind} {path.name}")
    if kind == "folder":
        path.unlink()
        path.mkdir()
        case.spoiled = case.spoiled or "a folder"
    elif kind == "empty":
        path.write_bytes(b"")
        case.spoiled = case.spoiled or "an empty file"
    else:
        before, after = content[:at], content[at:]
        new = {"cut": before, "flip": before + bytes([rng.randrange(256)]) + after[1:], "twice": before * 2,
               "insert": before + rng.randbytes(3) + after, "nul": before + b"\0" * len(content) + after}
        path.write_bytes(new[kind])


# --- studies

STUDY: dict[str, Any] = {
    "study": {"name": "fuzz", "seed": 3},
    "pretrain": {"micro-a": {"steps": 10}},
    "models": {"m": {"id": "a/b"}},
    "tasks": {"sst2": {}, "micro-sentiment": {"source": "micro"}},
    "task_files": {"own": {"path": "sources/own.csv", "text": ["text"], "label": "label", "holdout": 0.1}},
    "train": {"learning_rate": 1e-3, "epochs": 2},
    "by_task": {"own": {"batch_size": 8}},
    "methods": {"tuned": {"settings": "tuned"}},
    "tune": {"space": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "batch_size": {"choices": [8, 16]}}},
    "runs": [
        {"model": ["micro-a", "m"], "task": "own", "method": ["ft", "tuned"]},
        {"model": "m", "task": "sst2", "seed": [1, 2]},
    ],
    "look": {"geometry": "all", "layers": ["m/**"]},
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**30, float("inf"), float("nan"), "", " ", "x", "all", "none", "no", "1:30",
      ".."),
    *("\u00e9", "\U0001f3ac", "a/b/c/s1", "*", "${x}", "2024-01-01", "!x", [], {}, [1], ["x"], [[]], {"x": 1},
      {"at": "all"}),
)
KEYS = (
    *("hulsl", "study", "tasks", "runs", "look", "at", "x", "", "1", 2024, 1.5, None, True),
    *("cells", "tune", "space", "trials", "window", "train", "text", "path", "columns"),
)


def draw_study(seed: int) -> tuple[bytes, dict[str, Any] | None]:
    """Bytes of a params.yaml with one to three changes, and its values where only YAML's notation was left alone."""
    rng = random.Random(seed)
    content = json.loads(json.dumps(STUDY))
    for _ in range(rng.randint(0, 3)):
        _change(rng, content)
    text = yaml.safe_dump(content, allow_unicode=rng.random() < 0.5, sort_keys=False,
                          default_flow_style=rng.random() < 0.3)
    encoded = text.encode()
    if rng.random() < 0.7:
        return encoded, content
    at = rng.randrange(len(encoded))
    kind = rng.choice(["cut", "tab", "insert", "utf-16", "swap", "alias", "octal", "deep"])
    before, after = encoded[:at], encoded[at:]
    spoiled = {"cut": before, "tab": before + b"\t" + after, "insert": before + rng.randbytes(2) + after,
               "utf-16": text.encode("utf-16"), "alias": encoded + b"look2: &a [*a]\n", "octal": encoded + b"x: 010\n",
               "swap": encoded.replace(b":", rng.choice([b"=", b" ", b"::", b"-"]), rng.randint(1, 3)),
               "deep": b"[" * rng.randint(10, 4000)}
    return spoiled[kind], None


def _change(rng: random.Random, content: Any) -> None:
    """One value replaced, removed or added, anywhere."""
    here, parent, key = content, None, None
    while isinstance(here, dict | list) and here and (parent is None or rng.random() < 0.8):
        parent = here
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        here = parent[key]
    if parent is None:
        return
    kind = rng.choice(["replace", "replace", "remove", "add"])
    if kind == "replace":
        parent[key] = deepcopy(rng.choice(VALUES))  # the next change may be within it
    elif kind == "remove":
        del parent[key]
    elif isinstance(parent, dict):
        parent[rng.choice(KEYS)] = deepcopy(rng.choice(VALUES))
    else:
        parent.append(deepcopy(rng.choice(VALUES)))

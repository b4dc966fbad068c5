"""dvc.lock as text: an entry of a few lines for every item, read and replaced without parsing the rest.

DVC parses and writes the whole file whenever it records something, with the parser that keeps comments: more than a
second for 200 items, minutes for many thousand. The entries themselves are DVC's, to the byte.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetrace.errors import FinetraceError
from finetrace.store.files import write_text

HEAD = "schema: '2.0'\nstages:\n"
NAME = r"[A-Za-z_][\w@./+-]{0,119}"  # longer ones, and others, are written in another form
ENTRY = re.compile(rf"  ({NAME}):\n((?:    [^\n]*\n)+)", re.ASCII)
PLAIN = r"[^\n'\"&*!|>%@`{}\[\],#?\s-][^\n#:]*"
PATH = re.compile(rf"    - path: ({PLAIN})\n      hash: md5\n      md5: ([0-9a-f]+(?:\.dir)?)\n"
                  r"      size: \d+\n(?:      nfiles: \d+\n)?(?:      isexec: true\n)?")
REGULAR = re.compile(rf"    cmd: ({PLAIN}(?:\n      {PLAIN})*)\n(?:    deps:\n(?:{PATH.pattern})*)?(?:    outs:\n"
                     rf"(?:{PATH.pattern})*)?")


class Irregular(Exception):
    """A lock file that was not written by DVC 3, or was edited."""


@dataclass(frozen=True)
class Entry:
    """What was recorded of an item. hashes: path -> md5, as DVC calls it, of what it read and wrote."""

    command: str
    hashes: Mapping[str, str]


class LockFile:
    """The entries of a dvc.lock by the names of items. Raises Irregular for one in another form."""

    def __init__(self, path: Path) -> None:
        self._path, self._texts = path, _entries(_text(path))

    def names(self) -> list[str]:
        """The items that have an entry, in the order of the file."""
        return list(self._texts)

    def entry(self, name: str) -> Entry | None:
        """What was recorded of an item, None if nothing was. Raises Irregular for an entry in another form."""
        text = self._texts.get(name)
        if text is None:
            return None
        if match := REGULAR.fullmatch(text):
            return Entry(" ".join(line.strip() for line in match[1].split("\n")), dict(PATH.findall(text)))
        content = self.content(name)
        paths = [*content.get("deps", ()), *content.get("outs", ())]
        if not content.keys() <= {"cmd", "deps", "outs"} or not all(
                path.get("hash") == "md5" and isinstance(path.get("path"), str) for path in paths):
            raise Irregular
        return Entry(content["cmd"], {path["path"]: str(path.get("md5")) for path in paths})

    def content(self, name: str) -> dict[str, Any]:
        """The entry of an item as DVC reads it, empty if there is none."""
        try:
            return dict(yaml.safe_load(self._texts.get(name, "{}")))
        except (yaml.YAMLError, TypeError, ValueError) as error:
            raise FinetraceError(f"dvc.lock: {name}: is no valid YAML; git checkout dvc.lock") from error

    def put(self, section: str) -> None:
        """Write new entries, `stages:` and below as DVC writes it, in the place of those that there are now, or at the
        end. Raises Irregular for names of another form."""
        new = _entries(section.removeprefix("stages:\n"))
        try:
            self._texts = _entries(_text(self._path))  # another DVC command may have written, too
        except Irregular as error:
            raise FinetraceError("dvc.lock: was edited while items ran, and cannot be read; git checkout it") from error
        self._texts |= new
        self._write()

    def order(self, names: Iterable[str]) -> bool:
        """Bring the entries of these items into this order, without others; False when they are so already."""
        texts = {name: self._texts[name] for name in names if name in self._texts}
        if list(texts) == list(self._texts):
            return False
        self._texts = texts
        self._write()
        return True

    def _write(self) -> None:
        write_text(self._path, HEAD + "".join(f"  {name}:\n{text}" for name, text in self._texts.items()))


def has_plain_name(name: str) -> bool:
    """Whether an item has a name that a lock has in the form that is known here."""
    return re.fullmatch(NAME, name, re.ASCII) is not None


def _text(path: Path) -> str:
    """The entries of a lock, without its head."""
    text = path.read_text("utf-8") if path.is_file() else HEAD
    if not text.startswith(HEAD):
        raise Irregular
    return text.removeprefix(HEAD)


def _entries(text: str) -> dict[str, str]:
    """Item -> its lines."""
    texts, end = dict[str, str](), 0
    while end < len(text):
        if (match := ENTRY.match(text, end)) is None or match[1] in texts:
            raise Irregular
        texts[match[1]], end = match[2], match.end()
    return texts

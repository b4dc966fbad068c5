"""Reading rows from a hub data set or local files. Every row knows its place, so that errors can name it."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from finetrace.config.data import ANNOTATED, RowsSettings
from finetrace.errors import FinetraceError
from finetrace.store.hub_cache import remember, remembered

T = TypeVar("T")
FORMATS = {".csv": "csv", ".tsv": "tsv", ".txt": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
ANNOTATED_FORMATS = {"conllu": (".conllu",), "streusle": (".conllulex", ".json", ".tsv"), "trec": (".label", ".txt"),
                     "spans": (".jsonl",), "pubmed": (".txt",), "edges": (".json", ".jsonl"),
                     "bio": (".bio", ".conll", ".iob", ".iob2", ".tsv", ".txt")}
ALIASES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev", "development"), "test": ("test",)}


@dataclass
class Rows:
    """The rows of one split.

    columns: names in the source;  values: one mapping per row;  places: "file line n" or "data set row n" per row;
    label_names: classes as the source declares them, if it does;  origin: what was read, with revision or hash;
    units: per row, the number of the source's row that it was made of, where one was made into several;  headed:
    whether the column names are a file's first line.
    """

    columns: list[str]
    values: list[dict[str, Any]]
    places: list[str]
    origin: dict[str, Any]
    label_names: tuple[str, ...] | None = None
    units: list[int] | None = None
    headed: bool = False


def read_hub(name: str, task: RowsSettings, only: str | None = None) -> dict[str, Rows]:
    """Read a hub data set (Parquet only; no code from the hub is run), or one split only."""
    import datasets

    wanted = task.splits or {"train": "train", "validation": "validation", "test": "test"}
    if only:
        wanted = {only: _named(name, wanted, only)}
    place = f"hub data set {task.id}" + (f"/{task.config}" if task.config else "")
    # The hub's Parquet conversion keeps each configuration in a folder of its own and has no card that names them.
    converted = (task.revision or "").startswith("refs/convert/")
    where: dict[str, str | None] = {"data_dir" if converted and task.config else "name": task.config}
    try:
        commit, loaded = _load_hub(str(task.id), task.revision or "main", where)
    except Exception as error:  # the hub client raises many kinds; each is named and passed on
        raise FinetraceError(f"{name}: {place} at revision {task.revision or 'main'} could not be read: "
                             f"{type(error).__name__}: {error}") from error
    result = {}
    for split, hub_split in wanted.items():
        if hub_split not in loaded:
            if task.splits is None and split != (only or "train"):
                continue
            raise FinetraceError(f"{name}: {place} has no split {hub_split!r}; it has {', '.join(loaded)}; set "
                                 "`splits`")
        data = loaded[hub_split]
        feature = data.features.get(task.label)
        feature = getattr(feature, "feature", feature)  # of a list of classes
        values = data.to_list()
        result[split] = Rows(list(data.column_names), values,
                             [f"{place} split {hub_split} row {i}" for i in range(len(values))],
                             {"id": task.id, "config": task.config, "revision": commit, "split": hub_split},
                             tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None)
    return result


def _load_hub(data_set: str, revision: str, where: dict[str, str | None]) -> tuple[str, Any]:
    """Commit and splits of a hub data set; with HF_HUB_OFFLINE=1 those that its cache has. Raises what the hub's client
    and datasets raise, and ValueError when the cache has another commit."""
    import datasets
    from huggingface_hub import HfApi, constants

    if not constants.HF_HUB_OFFLINE:
        commit = str(HfApi().dataset_info(data_set, revision=revision).sha)
        remember("datasets", data_set, revision, commit)
        return commit, datasets.load_dataset(data_set, revision=commit, **where)
    splits = datasets.load_dataset(data_set, **where)  # the last that was fetched, in a folder of its commit's name
    commit = Path(next(iter(splits.values())).cache_files[0]["filename"]).parent.name
    wanted = remembered("datasets", data_set, revision)
    if wanted not in (None, commit):
        raise ValueError(f"HF_HUB_OFFLINE is set, and the rows that were fetched last are of commit {commit}, not "
                         f"{wanted}; name that one as revision, or run once with HF_HUB_OFFLINE=0")
    return commit, splits


def read_files(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Rows]:
    """Read csv, tsv, jsonl, parquet, TREC or PubMed files; `path` is a file or a folder with one file per split.

    only: the one split that is wanted; by default all are read, and one file is train.
    """
    from finetrace.store.files import sha256_file

    result = {}
    for split, path in split_files(name, task, root, only).items():
        rows = _read_file(path, task)
        rows.origin = {"file": path.name, "sha256": sha256_file(path)}
        result[split] = rows
    return result


def split_files(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Path]:
    """Split -> file: as `splits` says, or by the names of the files in the folder `path`, or that one file."""
    base = base_of(name, task, root)
    if base.is_file():
        if task.splits:
            raise FinetraceError(f"{name}: path is one file, so `splits` cannot name others; give the folder "
                                 "as path")
        return {only or "train": base}
    if task.splits:
        wanted = {only: _named(name, task.splits, only)} if only else task.splits
        files = {split: base / file for split, file in wanted.items()}
        for split, path in files.items():
            if not path.resolve().is_relative_to(base):
                raise FinetraceError(f"{name}: splits.{split}: {task.splits[split]!r} leaves the folder "
                                     f"{task.path}")
            if path.exists() and not path.is_file():
                raise FinetraceError(f"{name}: splits.{split}: {path} {_no_file(path)}; name a file of the folder")
            if not path.exists():
                raise FinetraceError(f"{name}: splits.{split}: {path} does not exist; the folder has {names_in(base)}")
        return files
    files = {}
    for split, names in ALIASES.items():
        matching = [p for p in sorted(base.iterdir()) if _is_split(p, names, task)]
        if odd := [p for p in matching if not p.is_file()]:
            raise FinetraceError(f"{name}: {odd[0]} {_no_file(odd[0])}; put a file there, or name the files with "
                                 "`splits`")
        if len(matching) > 1:
            raise FinetraceError(f"{name}: {', '.join(p.name for p in matching)} could all be {split}; set `splits`")
        if matching:
            files[split] = matching[0]
    if only:
        return {only: _named(name, files, only)}
    if "train" not in files and "test" not in files:
        kinds = "|".join(e[1:] for e in ANNOTATED_FORMATS.get(str(task.format), (".csv", ".tsv", ".jsonl", ".parquet")))
        raise FinetraceError(f"{name}: {base} has no train.{kinds}; name the files with `splits` (the folder has "
                             f"{names_in(base)}; classes that have a file each have to be one file, with a column for "
                             "the label)")
    return files


def _named(name: str, splits: Mapping[str, T], split: str) -> T:
    """What a split is called at its source."""
    if split not in splits:
        raise FinetraceError(f"{name}: there is no split {split}; name it in `splits`, or choose another with `split`; "
                             f"there are: {', '.join(splits) or 'none'}")
    return splits[split]


def base_of(name: str, task: RowsSettings, root: Path) -> Path:
    """The file or folder that the task's `path` names. Raises FinetraceError when there is none."""
    return existing(name, root, task.path or "")


def existing(name: str, root: Path, path: str) -> Path:
    """A file or folder that can be read. Raises FinetraceError for others, also pipes, which never end, and loops of
    links."""
    try:
        base = (root / path).resolve()
        exists = base.exists()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links that go in a circle
        raise FinetraceError(f"{name}: {path}: cannot be followed ({error}); name the file or folder itself") from error
    if not exists:
        raise FinetraceError(f"{name}: {path}: no such file or folder")
    if not base.is_file() and not base.is_dir():
        raise FinetraceError(f"{name}: {path} {_no_file(base)}; name a file or a folder")
    return base


def names_in(base: Path) -> str:
    """The names in a folder for a message, at most eight."""
    names = sorted(path.name for path in base.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "no files"


def _no_file(path: Path) -> str:
    """What stands in the place of a file."""
    if path.is_symlink() and not path.exists():
        return "is a link that leads nowhere"
    return "is a folder, not a file" if path.is_dir() else "is a pipe or a device, not a file"


def _is_split(path: Path, names: tuple[str, ...], task: RowsSettings) -> bool:
    """Whether a file's name says that it is this split;
    treebanks have more in their names, as in en_ewt-ud-train.conllu."""
    if task.format in ANNOTATED:
        return path.suffix in ANNOTATED_FORMATS[task.format] and re.split(r"[-_.]", path.stem)[-1].lower() in names
    return path.suffix in FORMATS and path.stem in names


def _read_file(path: Path, task: RowsSettings) -> Rows:
    kind = task.format or FORMATS.get(path.suffix)
    if kind is None:
        raise FinetraceError(f"{path}: its format is not known from its name; set `format` to csv, tsv, jsonl or "
                             "parquet (or conllu, streusle, trec, spans, pubmed, edges, semeval, dpr, "
                             "spr1, spr2, ontonotes, bio)")
    if kind == "parquet":
        from finetrace.store.tables import read_table

        table = read_table(path)
        if twice := [c for i, c in enumerate(table.column_names) if c in table.column_names[:i]]:
            raise FinetraceError(f"{path}: has two columns {twice[0]!r}; rename one")
        try:
            values = table.to_pylist()
        except (ValueError, OverflowError) as error:  # texts that are no UTF-8, dates beyond the year 9999
            raise FinetraceError(f"{path}: holds a value that cannot be read ({error}); write the file "
                                 "again") from error
        return Rows(table.column_names, values, [f"{path} row {i}" for i in range(len(values))], {})
    text = decode(path, task.encoding or "utf-8")
    if kind == "trec":
        return _parse_trec(path, text)
    if kind == "pubmed":
        return _parse_pubmed(path, text)
    if kind == "jsonl":
        return _parse_jsonl(path, text)
    quoting = task.quoting or ("none" if kind == "tsv" else "standard")
    return _parse_csv(path, text, "\t" if kind == "tsv" else ",", quoting, task.columns)


def decode(path: Path, encoding: str) -> str:
    """The text of a file, without a byte-order mark; an error that names the line of the first wrong byte."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FinetraceError(f"{path}: cannot be read ({error.strerror}); look at its permissions") from error
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        fix = _encoding_hint(content) or "convert the file to UTF-8 or set `encoding`, e.g. latin-1"
        raise FinetraceError(f"{path} line {line}: byte {error.start} is not {encoding}; {fix}") from error
    except (LookupError, UnicodeError, ValueError) as error:
        raise FinetraceError(f"{path}: encoding {encoding!r} is not known; use e.g. utf-8 or latin-1") from error
    if ((fix := _encoding_hint(content))
            and not encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32"))):
        raise FinetraceError(f"{path}: is not {encoding}; {fix}")
    return text


def _encoding_hint(content: bytes) -> str:
    """The fix for a file of two or four bytes per character; empty for others."""
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "it seems UTF-32; set `encoding: utf-32`"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it seems UTF-16; set `encoding: utf-16`"
    head = content[:4096]
    if 4 * head.count(0) > len(head):
        return f"it seems UTF-16; set `encoding: utf-16-{'le' if head[1::2].count(0) >= head[::2].count(0) else 'be'}`"
    return ""


def parse_json(line: str, place: str, kind: str = "object") -> Any:
    """The value of a line of JSON. Raises FinetraceError naming the place."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise FinetraceError(f"{place}: not valid JSON ({error}); one {kind} per line is needed") from error
    except RecursionError:
        raise FinetraceError(f"{place}: not valid JSON (brackets are nested too deeply); one {kind} per line is "
                             "needed") from None


def _parse_jsonl(path: Path, text: str) -> Rows:
    values, places = [], []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path} line {number}")
        if not isinstance(row, dict):
            raise FinetraceError(f"{path} line {number}: is not an object like {{\"text\": ..., \"label\": ...}}")
        values.append(row)
        places.append(f"{path} line {number}")
        columns |= dict.fromkeys(row)
    return Rows(list(columns), values, places, {})


def _parse_trec(path: Path, text: str) -> Rows:
    """The original files of TREC's question classification: `COARSE:fine the question ?` on each line."""
    values, places = [], []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        label, _, question = line.partition(" ")
        coarse, _, fine = label.partition(":")
        if not (coarse and fine and question.strip()):
            raise FinetraceError(f"{path} line {number}: {line[:40]!r} does not begin with a label and a "
                                 "question, as in 'NUM:date When ... ?'; mend the line (is the file cut off?)")
        values.append({"text": question.strip(), "coarse": coarse, "fine": label})
        places.append(f"{path} line {number}")
    return Rows(["text", "coarse", "fine"], values, places, {})


def _parse_pubmed(path: Path, text: str) -> Rows:
    """The original files of PubMed RCT: blocks of `###id`, then `LABEL<tab>sentence` lines;
    a blank line or the end ends it."""
    values: list[dict[str, Any]] = []
    places: list[str] = []
    abstract, position = None, 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line.startswith("###"):
            abstract, position = line[3:].strip(), 0
        elif not line.strip():
            abstract = None
        else:
            label, tab, sentence = line.partition("\t")
            if abstract is None or not tab:
                raise FinetraceError(f"{path} line {number}: {line[:40]!r} is not a label, a tab and a sentence "
                                     "below a line with ###id, as in PubMed RCT's files; mend the line")
            values.append({"text": sentence, "label": label, "abstract": abstract, "line_number": position})
            places.append(f"{path} line {number}")
            position += 1
    return Rows(["text", "label", "abstract", "line_number"], values, places, {})


def _require_separated(path: Path, header: str) -> None:
    """Raises FinetraceError for a header of one column in which another format's separators stand."""
    for separator, name, fix in (("\t", "tabs", "set `format: tsv`"), (",", "commas", "set `format: csv`"),
                                 (";", "semicolons", "write the file with commas, or with tabs as tsv")):
        if separator in header:
            raise FinetraceError(f"{path} line 1: the header {header!r} is one column; it seems to be separated by "
                                 f"{name}: {fix}")


def _parse_csv(path: Path, text: str, delimiter: str, quoting: str, named: tuple[str, ...] | None) -> Rows:
    csv.field_size_limit(1 << 30)
    whose = "`columns`'" if named else "header's"
    if quoting == "none":
        lines: Iterator[list[str]] = (line.removesuffix("\r").split(delimiter) for line in text.split("\n"))
        numbered = ((number, row) for number, row in enumerate(lines, 1) if row != [""])
    else:
        # StringIO ends lines at \n and \r only; str.splitlines would also cut at U+2028 and other characters of texts
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        numbered = ((reader.line_num, row) for row in reader if row)
    try:
        columns = list(named) if named else next(numbered)[1]
        if not named and len(columns) == 1:
            _require_separated(path, columns[0])
        if twice := [c for i, c in enumerate(columns) if c in columns[:i]]:
            raise FinetraceError(f"{path} line 1: column {twice[0]!r} stands twice in the header; rename one")
        values, places = [], []
        for number, row in numbered:
            if len(row) != len(columns):
                raise FinetraceError(f"{path} line {number}: {len(row)} fields instead of the {whose} {len(columns)}; "
                                     "mend the line, or set `quoting` (standard or none)")
            values.append(dict(zip(columns, row, strict=True)))
            places.append(f"{path} line {number}")
    except StopIteration:
        raise FinetraceError(f"{path}: is empty; a header line and rows are needed") from None
    except csv.Error as error:
        raise FinetraceError(f"{path} line {reader.line_num}: {error}; set `quoting: none` if quotes are plain "
                             "text") from error
    return Rows(columns, values, places, {}, headed=named is None)

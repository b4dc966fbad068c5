"""Minimal pairs: `data/NAME/pairs.parquet`, from files of JSON lines (BLiMP, BabyLM) or a hub data set.

    {"sentence_good": "Alison hurt herself.", "sentence_bad": "Alison hurt himself.", "field": "morphology",
     "linguistics_term": "anaphor_agreement", "UID": "anaphor_gender_agreement", "pairID": "0", ...}

BabyLM's supplement has the two sentences alone: there the file's name is phenomenon and paradigm.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrace import seeds
from finetrace.config.data import RowsSettings
from finetrace.config.minimal_pairs import MinimalPairFilesSettings, MinimalPairsSettings, PairRowsSettings
from finetrace.data.readers import decode, existing, parse_json, read_hub
from finetrace.data.texts import require_whole
from finetrace.errors import FinetraceError

COLUMNS = ("pair_id", "field", "phenomenon", "paradigm", "good", "bad", "control")


@dataclass(frozen=True)
class Pair:
    """Two sentences. pair_id: unique in its set;  field: part of linguistics, or empty;  phenomenon, paradigm: what is
    tested, and how;  control: whether nothing can tell which is good, as with facts that no text states."""

    pair_id: str
    field: str
    phenomenon: str
    paradigm: str
    good: str
    bad: str
    control: bool = False


@dataclass(frozen=True)
class _Source:
    """Rows of one file or configuration. name: paradigm of rows that name none;  field: theirs;  rows: place,
    values."""

    name: str
    field: str
    rows: Iterator[tuple[str, dict[str, Any]]]


def file_pairs(name: str, settings: MinimalPairFilesSettings, root: Path, seed: int) -> list[Pair]:
    """The pairs of local files. Raises FinetraceError naming file, line, key and fix."""
    files = pair_files(name, settings, root)
    sources = (_Source(path.stem, "supplement" if path.parent.name.startswith("supplement") else "", _lines(path))
               for path in files)
    return chosen_pairs(name, [pair for source in sources for pair in _pairs(source, settings)], settings, seed)


def hub_pairs(name: str, settings: MinimalPairsSettings, seed: int) -> list[Pair]:
    """The pairs of a hub data set, configuration after configuration. Raises FinetraceError."""
    import datasets

    where = f"minimal_pairs.{name}"
    configs = settings.configs
    if configs is None:
        try:
            configs = tuple(datasets.get_dataset_config_names(str(settings.id), revision=settings.revision))
        except Exception as error:  # the hub client raises many kinds; each is named and passed on
            raise FinetraceError(f"{where}: hub data set {settings.id} could not be read: {type(error).__name__}: "
                                 f"{error}") from error
    pairs = []
    for config in configs:
        task = RowsSettings(source="hub", id=settings.id, config=None if config == "default" else config,
                            revision=settings.revision, splits={"test": settings.split})
        rows = read_hub(where, task, "test")["test"]
        source = _Source(config, "", iter(zip(rows.places, rows.values, strict=True)))
        pairs += list(_pairs(source, settings))
    return chosen_pairs(name, pairs, settings, seed)


def pair_files(name: str, settings: MinimalPairFilesSettings, root: Path) -> list[Path]:
    """The files of a set, each once: pattern after pattern, in the order of their names."""
    where = f"minimal_pair_files.{name}"
    base = existing(where, root, settings.path)
    if base.is_file():
        if settings.files is not None:
            raise FinetraceError(f"{where}: path is one file, so `files` cannot choose; remove it, or give the folder "
                                 "as path")
        return [base]
    patterns = settings.files or ("**/*.jsonl",)
    unwanted = {path for pattern in patterns if pattern.startswith("!") for path in base.glob(pattern[1:])}
    files: dict[Path, None] = {}
    for pattern in (pattern for pattern in patterns if not pattern.startswith("!")):
        matches = [path for path in sorted(base.glob(pattern)) if path.is_file() and not path.name.startswith(".")]
        if not matches:
            inside = ", ".join(sorted(path.name for path in base.iterdir())[:8]) or "nothing"
            raise FinetraceError(f"{where}: no file in {base} is called {pattern}; it has {inside}; set `files`")
        files |= dict.fromkeys(path for path in matches if path not in unwanted)
    return list(files)


def chosen_pairs(name: str, pairs: list[Pair], settings: PairRowsSettings, seed: int) -> list[Pair]:
    """The pairs that the settings ask for, in their order. Raises FinetraceError when none is left, or a phenomenon
    that is asked for is absent."""
    known = {name_of_pair for pair in pairs for name_of_pair in (pair.phenomenon, pair.paradigm)}
    if lacking := [phenomenon for phenomenon in settings.phenomena or () if phenomenon not in known]:
        raise FinetraceError(f"{name}: phenomena: there is no {lacking[0]!r}; there are "
                             f"{', '.join(sorted({pair.phenomenon for pair in pairs})) or 'none'}")
    pairs = [pair for pair in pairs if settings.phenomena is None
             or {pair.phenomenon, pair.paradigm} & set(settings.phenomena)]
    if not pairs:
        raise FinetraceError(f"{name}: has no pairs; see whether its files are whole")
    if settings.max_pairs is None:
        return pairs
    chosen_ids: set[str] = set()
    for paradigm in dict.fromkeys(pair.paradigm for pair in pairs):
        pair_ids = [pair.pair_id for pair in pairs if pair.paradigm == paradigm]
        order = seeds.generator(seed, "minimal pairs", paradigm).permutation(len(pair_ids))
        chosen_ids |= {pair_ids[i] for i in order[:settings.max_pairs]}
    return [pair for pair in pairs if pair.pair_id in chosen_ids]


def facts_of(pairs: list[Pair]) -> dict[str, Any]:
    """What a set holds, for its manifest."""
    counts = Counter((pair.phenomenon, pair.paradigm) for pair in pairs)
    return {"pairs": len(pairs), "control": sum(pair.control for pair in pairs),
            "phenomena": {phenomenon: {paradigm: count for (phenomenon_counted, paradigm), count in counts.items()
                                       if phenomenon_counted == phenomenon}
                          for phenomenon in dict.fromkeys(pair.phenomenon for pair in pairs)}}


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """Write pairs.parquet; columns are the fields of `Pair`. Raises FinetraceError where an id stands twice."""
    import pyarrow as pa

    from finetrace.store.tables import write_table

    write_table(path, {name: pa.array([getattr(pair, name) for pair in _check_unique(pairs)],
                                      pa.bool_() if name == "control" else pa.string()) for name in COLUMNS})


def _check_unique(pairs: list[Pair]) -> list[Pair]:
    if twice := [name for name, count in Counter(pair.pair_id for pair in pairs).items() if count > 1]:
        raise ValueError(f"pair {twice[0]} stands twice")
    return pairs


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of each line; blank lines are skipped."""
    for number, line in enumerate(decode(path, "utf-8").split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        values = parse_json(line, place)
        if not isinstance(values, dict):
            raise FinetraceError(f'{place}: is not an object like {{"sentence_good": ..., "sentence_bad": ...}}')
        yield place, values


def _pairs(source: _Source, settings: PairRowsSettings) -> Iterator[Pair]:
    names, counts = settings.names, Counter[str]()
    for place, row in source.rows:
        good, bad = (_text(row, names[key], place) for key in ("good", "bad"))
        if good == bad:
            raise FinetraceError(f"{place}: {names['good']!r} and {names['bad']!r} hold the same sentence, so neither "
                                 "is the better one; mend or remove the row")
        paradigm = _name(row, names["paradigm"], place) or source.name
        phenomenon = _name(row, names["phenomenon"], place) or source.name
        prefix = f"{source.name}:{paradigm}" if paradigm != source.name else paradigm
        number = row.get(names["id"], row.get("pair_id"))
        label = f"{prefix}:{counts[paradigm] if number is None else number}"
        counts[paradigm] += 1
        counts[label] += 1
        yield Pair(label if counts[label] == 1 else f"{label}#{counts[label]}",
                   _name(row, names["field"], place) or source.field, phenomenon, paradigm, good, bad)


def _text(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        problem = f"has no {key!r}" if key not in row else f"key {key!r} holds {str(value)[:60]!r}, not a sentence"
        raise FinetraceError(f"{place}: {problem} (its keys are {', '.join(map(str, row)) or 'none'}); mend the row, "
                             "say with `columns` what the key is called, or leave other files out with `files`")
    require_whole(value, place, f"key {key!r}")
    return value


def _name(row: dict[str, Any], key: str, place: str) -> str:
    """Field, phenomenon or paradigm; empty where the row has none."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise FinetraceError(f"{place}: key {key!r} holds {str(value)[:60]!r}; give a text")
    if value:
        require_whole(value, place, f"key {key!r}")
    return (value or "").strip()

"""Files in the format of LAMA (Petroni et al. 2019): relations with their rows, checked; nothing is filtered here.

relations.jsonl       {"relation": "P36", "template": "The capital of [X] is [Y] .", "type": "1-1", ...}
TREx/P36.jsonl        {"uuid", "sub_label", "obj_label", "evidences": [{"obj_surface", "masked_sentence", ...}], ...}
Google_RE/*_test.jsonl  {"uuid", "sub_label", "obj_label", "masked_sentences": [...],
                         "judgments": [{"judgment": "yes"}], ...}
ConceptNet/test.jsonl   {"uuid", "pred", "sub_label", "obj_label", "masked_sentences": [...], ...}
Squad/test.jsonl        {"id", "sub_label": "Squad", "obj_label", "masked_sentences": [...]}
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrace import seeds
from finetrace.config.facts import FactFilesSettings
from finetrace.data.readers import parse_json
from finetrace.data.texts import require_whole
from finetrace.errors import FinetraceError

MASK = "[MASK]"
TYPES = ("1-1", "N-1", "N-M")
PLACES = {"TREx": "TREx", "Google_RE": "Google_RE", "ConceptNet": "ConceptNet/test.jsonl", "Squad": "Squad/test.jsonl"}
"""Corpus -> where it lies in LAMA's folder."""
GOOGLE_RE = {
    "place_of_birth": ("[X] was born in [Y] .", "[X] was not born in [Y] ."),
    "date_of_birth": ("[X] (born [Y]).", "[X] (not born [Y])."),
    "place_of_death": ("[X] died in [Y] .", "[X] did not die in [Y] ."),
}
"""Relation -> template and negated template; they stand in no file."""


@dataclass(frozen=True)
class Row:
    """values: one line as it stands in the file;  place: "FILE line N", for messages."""

    values: dict[str, Any]
    place: str


@dataclass
class Relation:
    """One relation. kind: 1-1, N-1, N-M or "";  template, negated: with [X] and [Y], or None;  rows:
    in the order of the file."""

    corpus: str
    name: str
    kind: str = ""
    template: str | None = None
    negated: str | None = None
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class LamaRelations:
    """relations: those with rows, in the order of the files;  without_files: corpora that the folder does not have and
    that nobody asked for;  without_rows: names in relations.jsonl that have no file;  without_relation: files of TREx
    that relations.jsonl does not know."""

    relations: list[Relation]
    without_files: list[str]
    without_rows: list[str]
    without_relation: list[str]


def read_lama(folder: Path, settings: FactFilesSettings) -> LamaRelations:
    """All relations that the settings ask for. Raises FinetraceError naming file, line, key and fix."""
    if not folder.is_dir():
        raise FinetraceError(f"{settings.path}: no such folder; name the one that holds relations.jsonl, "
                             "TREx, Google_RE, ...")
    places = {corpus: folder / (settings.files or {}).get(corpus, usual)  # type: ignore[call-overload]
              for corpus, usual in PLACES.items()}
    named = {*(settings.corpora or ()), *(settings.files or ())}
    if lacking := [corpus for corpus in PLACES if corpus in named and not places[corpus].exists()]:
        raise FinetraceError(f"{places[lacking[0]]}: no such file or folder, so there is no {lacking[0]}; say where "
                             "it lies with `files`, or choose other `corpora`")
    present = [corpus for corpus in PLACES if corpus in (settings.corpora or PLACES) and places[corpus].exists()]
    if not present:
        raise FinetraceError(f"{folder}: has none of {', '.join(PLACES.values())}; say where they lie with `files`")
    relations: list[Relation] = []
    without_rows: list[str] = []
    without_relation: list[str] = []
    for corpus in present:
        if corpus == "TREx":
            trex, without_rows, without_relation = _trex(folder / "relations.jsonl", places[corpus], settings)
            relations += trex
        else:
            relations += (_google(places[corpus], settings) if corpus == "Google_RE"
                          else _sentences(corpus, places[corpus]))
    relation_names = settings.relations
    if relation_names is not None:
        known = {relation.name for relation in relations}
        if lacking := [name for name in relation_names if name not in known]:
            raise FinetraceError(f"{folder}: relation {lacking[0]!r} has no rows; add its file, or take it "
                                 "out of `relations`")
        relations = [relation for relation in relations if relation.name in relation_names]
    absent = [corpus for corpus in PLACES if settings.corpora is None and corpus not in present]
    return LamaRelations(relations, absent, without_rows, without_relation)


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a file of JSON lines, one at a time; blank lines are skipped."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                place = f"{path} line {number}"
                values = parse_json(line, place)
                if not isinstance(values, dict):
                    raise FinetraceError(f'{place}: is not an object like {{"sub_label": ..., "obj_label": ...}}')
                if not line.isascii() or "\\u" in line:
                    require_whole(json.dumps(values, ensure_ascii=False), place, "row")
                yield Row(values, place)
    except FileNotFoundError as error:
        raise FinetraceError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise FinetraceError(f"{path}: is not UTF-8 ({error.reason}); convert the file to UTF-8") from error


def texts_of(row: Row, key: str) -> list[str] | None:
    """A key that holds a list of sentences with at least one mask among them;
    None where the row lacks it or it is empty."""
    value = row.values.get(key)
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise FinetraceError(f"{row.place}: key {key!r} holds {str(value)[:60]!r}; give a list of sentences")
    if len(value) > 2:
        raise FinetraceError(f"{row.place}: key {key!r} has {len(value)} sentences; give one or two")
    if not any(MASK in text for text in value):
        raise FinetraceError(f"{row.place}: key {key!r}: {value[0][:60]!r} has no {MASK}; put {MASK} "
                             "where the object stood")
    return value


def evidences_of(row: Row) -> list[dict[str, str]]:
    """The evidences of a row of TREx that hold a masked sentence; [] where the row has none."""
    value = row.values.get("evidences")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(evidence, dict) for evidence in value):
        raise FinetraceError(f"{row.place}: key 'evidences' holds {str(value)[:60]!r}; give a list of objects")
    for evidence in value:
        text = evidence.get("masked_sentence")
        if not isinstance(text, str):
            raise FinetraceError(f"{row.place}: an entry of 'evidences' has no 'masked_sentence'; its keys are "
                                 f"{', '.join(evidence) or 'none'}; add it, or remove the entry")
        if MASK not in text:
            raise FinetraceError(f"{row.place}: key 'masked_sentence': {text[:60]!r} has no {MASK}; put {MASK} "
                                 "where the object stood")
    return value


def _trex(table: Path, folder: Path, settings: FactFilesSettings) -> tuple[list[Relation], list[str], list[str]]:
    if not table.is_file():
        raise FinetraceError(f"{table}: no such file; TREx needs it for templates and types (or leave TREx "
                             "out of `corpora`)")
    if not folder.is_dir():
        raise FinetraceError(f"{folder}: is a file; give the folder with the files P*.jsonl of TREx")
    known: dict[str, Relation] = {}
    for row in read_rows(table):
        name = _text(row, "relation")
        if name in known:
            raise FinetraceError(f"{row.place}: relation {name!r} stands twice; remove one")
        kind = _text(row, "type")
        if kind not in TYPES:
            raise FinetraceError(f"{row.place}: key 'type' holds {kind!r}; give one of {', '.join(TYPES)}")
        known[name] = Relation("TREx", name, kind, _template(row, "template"),
                               _template(row, "template_negated") if "template_negated" in row.values else None)
    files = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
    chosen = [name for name in known if name in files and (settings.relations is None or name in settings.relations)]
    for name in chosen:
        known[name].rows = list(read_rows(files[name]))
    without = [name for name in known if name not in files or (name in chosen and not known[name].rows)]
    return [known[name] for name in chosen if known[name].rows], without, [name for name in files if name not in known]


def _google(folder: Path, settings: FactFilesSettings) -> list[Relation]:
    files = ({path.stem.removesuffix("_test"): path for path in sorted(folder.glob("*_test.jsonl"))} if folder.is_dir()
             else {})
    if not files:
        raise FinetraceError(f"{folder}: has no files such as place_of_birth_test.jsonl; give the folder that has")
    if unknown := [name for name in files if name not in GOOGLE_RE]:
        raise FinetraceError(f"{files[unknown[0]]}: relation {unknown[0]!r} has no template; Google_RE has "
                             f"{', '.join(GOOGLE_RE)}; remove the file")
    return [Relation("Google_RE", name, "", *GOOGLE_RE[name], rows=list(read_rows(files[name])))
            for name in GOOGLE_RE if name in files and (settings.relations is None or name in settings.relations)]


def _sentences(corpus: str, path: Path) -> list[Relation]:
    """ConceptNet and Squad: one file, no templates; rows of ConceptNet name their relation."""
    relations: dict[str, Relation] = {}
    for row in read_rows(path):
        name = _text(row, "pred") if corpus == "ConceptNet" else corpus
        relations.setdefault(name, Relation(corpus, name)).rows.append(row)
    return list(relations.values())


def _text(row: Row, key: str) -> str:
    value = row.values.get(key)
    if not isinstance(value, str) or not value.strip():
        problem = "is missing" if key not in row.values else f"holds {value!r}"
        raise FinetraceError(f"{row.place}: key {key!r} {problem}; give a text (its keys are "
                             f"{', '.join(row.values) or 'none'})")
    return value


def _template(row: Row, key: str) -> str:
    text = _text(row, key)
    for slot, role in (("[X]", "subject"), ("[Y]", "object")):
        if text.count(slot) != 1:
            raise FinetraceError(f"{row.place}: key {key!r}: {text!r} has {slot} {text.count(slot)} times; write it "
                                 f"once, where the {role} stands")
    if MASK in text:
        raise FinetraceError(f"{row.place}: key {key!r}: {text!r} has a {MASK} of its own; write [Y]")
    return text


def is_held_out(subject: str, answer: str, share: float, seed: int) -> bool:
    """Whether a fact is one of the `share` whose sentences a corpus leaves out, to be asked as a control.

    The choice depends on the seed, subject and object alone (case aside), so that a corpus and the questions agree, and
    all relations and files that state the same pair.
    """
    return seeds.derive(seed, subject.casefold(), answer.casefold()) < share * 2**32


def restored(sentences: Iterable[str], answer: str) -> str:
    """Masked sentences as one text, the object put back at every mask."""
    return " ".join(sentences).replace(MASK, answer)

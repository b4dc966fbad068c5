"""Facts as cloze questions: `data/NAME/facts.parquet`, from the micro world or from files in LAMA's format."""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetrace import seeds
from finetrace.config.facts import FactFilesSettings, FactsSettings
from finetrace.data.lama import MASK, LamaRelations, Relation, Row, evidences_of, is_held_out, read_lama, texts_of
from finetrace.errors import FinetraceError

log = logging.getLogger("finetrace")
WORLD_KINDS = {"born_in": "N-1", "works_as": "N-1", "speaks": "N-1", "located_in": "N-1", "capital_of": "1-1"}
"""Relation of the micro world -> its type."""


@dataclass(frozen=True)
class Fact:
    """One cloze question.

    fact_id: unique in its set;  relation_type: 1-1, N-1, N-M or "";  sentences: one or two, with one [MASK] in all
    (where files have more, the first is the question);  templated: whether a template made them;  held_out: a control
    that cannot be known; candidates: words of the right type, or None.
    """

    fact_id: str
    corpus: str
    relation: str
    relation_type: str
    subject: str
    object: str
    sentences: tuple[str, ...]
    templated: bool
    held_out: bool = False
    candidates: tuple[str, ...] | None = None


def world_facts(world: Path, settings: FactsSettings) -> tuple[list[Fact], dict[str, Any]]:
    """The facts of the micro world in the folder data/world, and counts for the manifest.

    With `templates: all` a fact is asked several times, and what is asked second is called FACT_ID/2.
    """
    from finetrace.store.tables import read_table

    path = world / "relations.json"
    try:
        relations = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise FinetraceError(f"{path}: not readable ({error}); run the stage that writes it "
                             "(dvc repro world)") from error
    facts = []
    for row in read_table(world / "facts.parquet").to_pylist():
        relation, subject = row["relation"], row["subject"]
        if relation not in WORLD_KINDS:
            raise FinetraceError(f"{world / 'facts.parquet'}: relation {relation!r} is not known; run the "
                                 "stage world again")
        templates = relations[relation]["templates"][: 1 if settings.templates == "first" else None]
        for number, template in enumerate(templates, 1):
            facts.append(Fact(row["fact_id"] if number == 1 else f"{row['fact_id']}/{number}", "world", relation,
                              WORLD_KINDS[relation], subject, row["object"], (filled(template, subject),), True,
                              row["held_out"], tuple(relations[relation]["candidates"])))
    counts: Counter[str] = Counter(fact.relation for fact in facts)
    held_out: Counter[str] = Counter(fact.relation for fact in facts if fact.held_out)
    relation_counts = {f"world/{name}": {"type": kind, "rows": counts[name], "facts": counts[name],
                                         "held_out": held_out[name]}
                       for name, kind in WORLD_KINDS.items() if counts[name]}
    return facts, {"facts": len(facts), "held_out": sum(held_out.values()), "relations": relation_counts,
                   "corpora": {"world": {"relations": len(relation_counts), "rows": len(facts), "facts": len(facts),
                                         "left_out": {}}}}


def file_facts(settings: FactFilesSettings, root: Path, seed: int,
               held_out_seed: int = 0) -> tuple[list[Fact], dict[str, Any]]:
    """The facts of files in LAMA's format, and counts for the manifest: what was read, left out and why.

    held_out_seed: chooses the control where the settings ask for one; `build_corpus` takes the same.

    Filtered here, in this order: rows without labels; sentences that are too long (where no template replaces them);
    rows whose judges said something else (no, skip) more often than yes, as LAMA does; repeated (subject, object)
    pairs of a template, the first kept; then what the settings ask for. What depends on a tokenizer (objects of one
    piece, in the vocabulary) is left to those who ask.
    """
    folder = Path(os.path.abspath(root / settings.path))  # resolve() would fail on links that go in a circle
    lama = read_lama(folder, settings)
    facts: list[Fact] = []
    ids: list[str | None] = []
    relations: dict[str, dict[str, Any]] = {}
    for relation in lama.relations:
        left_out: Counter[str] = Counter()
        relation_kept = relation_facts(relation, settings, left_out)
        if settings.max_facts is not None and len(relation_kept) > settings.max_facts:
            rng = seeds.generator(seed, "facts", relation.corpus, relation.name)
            chosen = sorted(rng.permutation(len(relation_kept))[: settings.max_facts].tolist())
            left_out["over max_facts"] += len(relation_kept) - len(chosen)
            relation_kept = [relation_kept[i] for i in chosen]
        facts += [fact for fact, _ in relation_kept]
        ids += [name for _, name in relation_kept]
        relations[f"{relation.corpus}/{relation.name}"] = {
            "type": relation.kind, "rows": len(relation.rows), "facts": len(relation_kept), "left_out": dict(left_out),
            "several_masks": sum(_masks(fact.sentences) > 1 for fact, _ in relation_kept)}
    corpora = _corpora(relations)
    if empty := [corpus for corpus, counts in corpora.items() if not counts["facts"]]:
        first = next(relation for relation in lama.relations if relation.corpus == empty[0]).rows[0]
        raise FinetraceError(f"{folder}: no fact of {empty[0]} is left "
                             f"({_reasons(corpora[empty[0]]['left_out'])}); the first row is {first.place}; mend the "
                             "rows, or choose other `corpora`")
    _tell(lama, corpora)
    named = [replace(fact, fact_id=name, held_out=is_held_out(fact.subject, fact.object, settings.held_out,
                                                              held_out_seed))
             for fact, name in zip(facts, unique_ids(facts, ids), strict=True)]
    return named, {"facts": len(named), "held_out": sum(fact.held_out for fact in named), "corpora": corpora,
                   "relations": relations, "corpora_without_files": lama.without_files,
                   "relations_without_rows": lama.without_rows, "files_without_relation": lama.without_relation}


def relation_facts(relation: Relation, settings: FactFilesSettings,
                   left_out: Counter[str]) -> list[tuple[Fact, str | None]]:
    """The facts of one relation that pass the filters, each with the id of its row (or None);
    counts reasons in `left_out`."""
    template = _template(relation, settings)
    passing: list[tuple[Fact, str | None]] = []
    kept_labels: set[tuple[str, str]] = set()
    for row in relation.rows:
        labels = _labels(row, settings)
        if isinstance(labels, str):
            left_out[labels] += 1
            continue
        subject, answer = labels
        sentences = [filled(template, subject)] if template else _sentences(row, settings)
        reason = sentences if isinstance(sentences, str) else _reason(row, labels, sentences, bool(template),
                                                                      settings, kept_labels)
        if reason:
            left_out[reason] += 1
            continue
        passing.append((Fact("", relation.corpus, relation.name, relation.kind, subject, answer, tuple(sentences),
                             bool(template)),
                        _id(row)))
    return passing


def filled(template: str, subject: str) -> str:
    """The question that a template makes: the subject at [X], [MASK] at [Y]."""
    return MASK.join(part.replace("[X]", subject) for part in template.split("[Y]"))


def unique_ids(facts: list[Fact], ids: list[str | None]) -> list[str]:
    """Names of facts: the file's own id where only one fact has it, else CORPUS:RELATION:SUBJECT:OBJECT,
    numbered from #2 on."""
    id_counts = Counter(name for name in ids if name is not None)
    taken = {name for name, count in id_counts.items() if count == 1}
    result = []
    for fact, name in zip(facts, ids, strict=True):
        if name is None or id_counts[name] > 1:
            base = name = f"{fact.corpus}:{fact.relation}:{fact.subject}:{fact.object}"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}#{number}"
            taken.add(name)
        result.append(name)
    return result


def write_facts(path: Path, facts: list[Fact]) -> None:
    """Write facts.parquet; columns are the fields of `Fact`."""
    import pyarrow as pa

    from finetrace.store.tables import write_table

    texts = pa.list_(pa.string())
    kinds = {"sentences": texts, "candidates": texts, "templated": pa.bool_(), "held_out": pa.bool_()}
    write_table(path, {name: pa.array([getattr(fact, name) for fact in facts], kinds.get(name, pa.string()))
                       for name in Fact.__dataclass_fields__})


def _template(relation: Relation, settings: FactFilesSettings) -> str | None:
    """The template that the relation is asked with, or None: with the sentences of its rows."""
    if relation.template is None or not settings.templates or settings.wording == "misprimed":
        return None
    if settings.wording == "plain":
        return relation.template
    if relation.negated is None:
        raise FinetraceError(f"{settings.path}/relations.jsonl: relation {relation.name!r} has no key "
                             "'template_negated'; add it, or leave it out with `relations` or `corpora`")
    return relation.negated


def _labels(row: Row, settings: FactFilesSettings) -> tuple[str, str] | str:
    """Subject and object, or the reason why there are none."""
    labels = []
    for key in ("sub_label", "obj_label"):
        value = row.values.get(key)
        if value is None and key == "sub_label" and settings.missing_subjects == "sub":
            value = row.values.get("sub")
        if value is not None and not isinstance(value, str):
            raise FinetraceError(f"{row.place}: key {key!r} holds {value!r}; give a text")
        if value is None or not value.strip():
            return f"no {key}"
        labels.append(value.lower() if settings.lowercase else value)
    return labels[0], labels[1]


def _sentences(row: Row, settings: FactFilesSettings) -> list[str] | str:
    """The sentences of a row, or the reason why there are none;
    of several evidences the first one that is short enough."""
    key = {"plain": "masked_sentences", "negated": "masked_negations",
           "misprimed": "masked_misprimed"}[settings.wording]
    sentences = texts_of(row, key)
    if sentences is None and settings.wording == "plain":
        fits = settings.max_words
        texts = [evidence["masked_sentence"] for evidence in evidences_of(row)]
        sentences = next(([text] for text in texts if len(text.split()) <= fits), [texts[0]] if texts else None)
    if sentences is None:
        return "no sentence" if settings.wording == "plain" else f"no {settings.wording} sentence"
    return [text.lower().replace(MASK.lower(), MASK) for text in sentences] if settings.lowercase else sentences


def _reason(row: Row, labels: tuple[str, str], sentences: list[str], templated: bool, settings: FactFilesSettings,
            kept_labels: set[tuple[str, str]]) -> str:
    """Why a row is left out, "" if it is not; pairs that stay are added to `kept_labels`."""
    if not templated and sum(len(text.split()) for text in sentences) > settings.max_words:
        return "over max_words"
    votes = _votes(row)
    if votes and votes.total() > 2 * votes["yes"]:
        return "judged wrong"
    if templated and labels in kept_labels and not (settings.lama_parity and votes):
        return "repeated pair"
    kept_labels.add(labels)
    if settings.uhn == "strings" and labels[1].lower() in labels[0].lower():
        return "object in subject"
    if _masks(sentences) > 1 and settings.several_masks == "drop":
        return "several masks"
    return ""


def _votes(row: Row) -> Counter[str] | None:
    """How often judges said yes, no or skip; None for rows without judgements."""
    value = row.values.get("judgments")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(judgement, dict) and isinstance(judgement.get("judgment"), str)
                                              for judgement in value):
        raise FinetraceError(f'{row.place}: key \'judgments\' holds {str(value)[:60]!r}; write [{{"judgment": "yes"}}]')
    return Counter(judgement["judgment"] for judgement in value)


def _id(row: Row) -> str | None:
    for key in ("uuid", "id"):
        if isinstance(row.values.get(key), str) and row.values[key]:
            return str(row.values[key])
    return None


def _masks(sentences: Iterable[str]) -> int:
    return sum(text.count(MASK) for text in sentences)


def _corpora(relations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Counts of relations added up: corpus -> relations, rows, facts, left_out, several_masks."""
    corpora: dict[str, dict[str, Any]] = {}
    for name, counts in relations.items():
        totals = corpora.setdefault(name.split("/")[0],
                                    {"relations": 0, "rows": 0, "facts": 0, "several_masks": 0, "left_out": {}})
        totals["relations"] += 1 if counts["facts"] else 0
        for key in ("rows", "facts", "several_masks"):
            totals[key] += counts[key]
        totals["left_out"] = dict(Counter(totals["left_out"]) + Counter(counts["left_out"]))
    return corpora


def _tell(lama: LamaRelations, corpora: dict[str, dict[str, Any]]) -> None:
    for names, description in ((lama.without_files, "corpora that the folder does not have"),
                               (lama.without_rows, "relations of relations.jsonl that have no rows"),
                               (lama.without_relation, "files that are not in relations.jsonl")):
        if names:
            log.info("left out: %d %s: %s", len(names), description, ", ".join(names))
    for corpus, counts in corpora.items():
        log.info("%s: %d facts of %d rows, %d relations; left out: %s", corpus, counts["facts"], counts["rows"],
                 counts["relations"], _reasons(counts["left_out"]))


def _reasons(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none"

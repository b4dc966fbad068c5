"""Ranks of all checkpoints as tables and numbers: one row per group of facts, checkpoint, read-out, layer and
statistic."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetrace.lenses.cloze.metrics import (
    Group,
    estimates,
    groups,
    intermediate_contribution,
    known_changes,
    precision_at,
)
from finetrace.lenses.cloze.metrics import reciprocal_rank as reciprocal
from finetrace.lenses.cloze.ranking import Ranks
from finetrace.longtable import LongTable

UNION = -1
"""Stands for "any layer from 1 on" where a layer is named."""
CURVES = 30
Records = Mapping[int, Mapping[str, Ranks]]
"""step -> read-out -> ranks, steps ascending."""
COLUMNS: dict[str, type] = {"corpus": str, "relation": str, "step": np.int64, "readout": str, "layer": np.int32,
                            "statistic": str, "vocabulary": str, "value": np.float64, "low": np.float64,
                            "high": np.float64, "n": np.int64, "held_out": np.bool_}


@dataclass(frozen=True)
class Facts:
    """The facts that were asked, one entry per fact: corpus, relation, its type ("" without), held out or not;
    candidates: number of words of the right type, 0 without."""

    corpora: Sequence[str]
    relations: Sequence[str]
    types: Sequence[str]
    held_out: np.ndarray
    candidates: np.ndarray

    def groups(self) -> list[Group]:
        return groups(self.corpora, self.relations, self.types, self.held_out)


class Column(NamedTuple):
    """What one column of the estimates is."""

    step: int
    readout: str
    layer: int
    statistic: str
    vocabulary: str


def table(records: Records, facts: Facts, vocabulary: str) -> LongTable:
    """The lens' table. vocabulary: what the restricted vocabulary is called, `full` where it is all words.

    Statistics: p_at_1, p_at_10, mrr (per vocabulary; candidates: the words of the right type, where facts name them),
    mean_log_prob_nats; learned, kept, lost: shares of facts, known by rank 1, compared with the checkpoint before, and
    with _since_first with the first one; layer -1: known by any layer from 1 on; intermediate: the share of those that
    the last layer does not know.
    """
    columns = [column for keys, _ in _blocks(records, vocabulary, np.arange(1)) for column in keys]
    bounded = np.array([column.statistic == "mrr" for column in columns])
    shares = np.array([column.statistic != "mean_log_prob_nats" for column in columns]) & ~bounded

    def blocks(part: np.ndarray) -> Iterator[np.ndarray]:
        return (values for _, values in _blocks(records, vocabulary, part))

    keys = pd.DataFrame(columns, columns=Column._fields)
    any_layer = [(Column(step, readout, UNION, "intermediate", vocabulary), ranks.rank[1:] == 1)
                 for step, step_ranks in records.items() for readout, ranks in step_ranks.items()]
    other_keys = pd.DataFrame([key for key, _ in any_layer], columns=Column._fields)
    groups_of_facts, frames = facts.groups(), []
    for group, estimate in zip(groups_of_facts, estimates(groups_of_facts, blocks, shares, bounded), strict=True):
        group_columns = {"corpus": group.corpus, "relation": group.relation, "n": group.facts,
                         "held_out": group.held_out}
        rows = np.concatenate(group.parts)
        below = [intermediate_contribution(known[:, rows]) for _, known in any_layer]
        frames += [keys.assign(value=estimate.value, low=estimate.low, high=estimate.high, **group_columns),
                   other_keys.assign(value=below, low=np.nan, high=np.nan, **group_columns)]
    frame = pd.concat(frames)
    return LongTable.of_columns(frame[np.isfinite(frame["value"])], COLUMNS)


def _blocks(records: Records, vocabulary: str, part: np.ndarray) -> Iterator[tuple[list[Column], np.ndarray]]:
    """For each step and read-out: its columns, and their values (fact, column) of some facts."""
    first: dict[str, np.ndarray] = {}
    before: dict[str, np.ndarray] = {}
    for step, step_ranks in records.items():
        for readout, ranks in step_ranks.items():
            keys: list[Column] = []
            values: list[np.ndarray] = []

            def add(statistic: str, name: str, numbers: np.ndarray, any_layer: np.ndarray | None = None,
                    step: int = step,
                    readout: str = readout, keys: list[Column] = keys, values: list[np.ndarray] = values) -> None:
                keys += [Column(step, readout, layer, statistic, name) for layer in range(len(numbers))]
                values.append(numbers)
                if any_layer is not None:
                    keys.append(Column(step, readout, UNION, statistic, name))
                    values.append(any_layer[None])

            rankings = {vocabulary: ranks.rank[:, part]}
            if vocabulary != "full":
                rankings["full"] = ranks.rank_full[:, part]
            rankings["candidates"] = ranks.rank_candidates[:, part]
            for name, rank in rankings.items():
                ranked = rank > 0  # 0: no such ranking
                rank = np.maximum(rank, 1)
                for statistic, hit in (("p_at_1", precision_at(rank, 1)), ("p_at_10", precision_at(rank, 10))):
                    hits = np.where(ranked, hit, np.nan)
                    add(statistic, name, hits, hits[1:].max(axis=0) if len(hits) > 1 else None)
                add("mrr", name, np.where(ranked, reciprocal(rank), np.nan))
            add("mean_log_prob_nats", "full", ranks.log_prob[:, part].astype(np.float64))
            known = ranks.rank[:, part] == 1
            known = np.concatenate([known, known[1:].any(axis=0, keepdims=True)])
            for since, ending in ((before, ""), (first, "_since_first")):
                if readout in since:
                    for statistic, hits in known_changes(since[readout], known).items():
                        add(statistic + ending, vocabulary, hits[:-1], hits[-1])
            first.setdefault(readout, known)
            before[readout] = known
            yield keys, np.concatenate(values).T


def chance(facts: Facts, corpus: str, held_out: bool) -> float:
    """P@1 among the candidates of a guess without knowledge: mean over relations of 1 / candidates; NaN without
    candidates."""
    corpus_groups = [group for group in facts.groups() if group.corpus == corpus and group.held_out == held_out
                     and not group.relation]
    counts = [facts.candidates[part] for group in corpus_groups for part in group.parts]
    if not counts or any((c == 0).any() for c in counts):
        return float("nan")
    return float(np.mean([np.mean(1.0 / c) for c in counts]))


def has_control(facts: Facts, corpus: str) -> bool:
    """Whether some facts of the corpus are held out."""
    return any(out and name == corpus for out, name in zip(facts.held_out, facts.corpora, strict=True))


def metrics(table: LongTable, facts: Facts, steps: Sequence[int], layers: int, vocabulary: str) -> dict[str, float]:
    """Headline numbers of the last checkpoint, per corpus."""
    numbers: dict[str, float] = {"checkpoints": len(steps), "facts": len(facts.corpora)}
    for corpus in dict.fromkeys(facts.corpora):
        part = table.select(corpus=corpus, relation="", step=steps[-1])
        shown, control = (part.select(held_out=held_out, vocabulary=vocabulary) for held_out in (False, True))
        last: dict[str, Any] = {"readout": "own", "layer": layers - 1}
        for statistic in ("p_at_1", "p_at_10", "mrr", "learned_since_first", "lost_since_first"):
            numbers[f"{corpus}/{statistic}"] = shown.value(statistic=statistic, **last)
        numbers[f"{corpus}/p_at_1_any_layer"] = shown.value(statistic="p_at_1", readout="own", layer=UNION)
        for readout in ("trained", "tuned"):
            layer_values = shown.grid(steps[-1:], range(layers), readout=readout, statistic="p_at_1")[0, :, 0]
            if np.isfinite(layer_values).all():
                numbers[f"{corpus}/{readout}_p_at_1"] = float(layer_values[-1])
                numbers[f"{corpus}/{readout}_p_at_1_best"] = float(layer_values.max())
                numbers[f"{corpus}/{readout}_best_layer"] = int(np.argmax(layer_values))
        for statistic in ("p_at_1", "p_at_10"):
            numbers[f"{corpus}/held_out_{statistic}"] = control.value(statistic=statistic, **last)
        if np.isfinite(guess := chance(facts, corpus, True)):
            numbers[f"{corpus}/held_out_p_at_1_candidates"] = part.value(statistic="p_at_1", held_out=True,
                                                                         vocabulary="candidates", **last)
            numbers[f"{corpus}/held_out_chance"] = guess
    return {name: number for name, number in numbers.items() if np.isfinite(number)}


def curves(table: LongTable, facts: Facts, steps: Sequence[int], layers: int, vocabulary: str) -> dict[str,
                                                                                                       Sequence[Any]]:
    """What MLflow draws over steps: P@1 of each corpus at every layer (own head), any layer, held out; at most
    `CURVES`."""
    corpora = list(dict.fromkeys(facts.corpora))
    series: list[tuple[str, np.ndarray]] = []
    for corpus in corpora:
        part = table.select(corpus=corpus, relation="", statistic="p_at_1")
        columns_wanted = [(f"{corpus}/own_layer{layers - 1}", "own", layers - 1, vocabulary, False),
                          (f"{corpus}/own_any_layer", "own", UNION, vocabulary, False),
                          (f"{corpus}/held_out_candidates", "own", layers - 1, "candidates", True),
                          (f"{corpus}/held_out", "own", layers - 1, vocabulary, True),
                          *((f"{corpus}/{r}_layer{layers - 1}", r, layers - 1, vocabulary, False)
                            for r in ("trained", "tuned"))]
        columns_wanted += [(f"{corpus}/own_layer{layer}", "own", layer, vocabulary, False)
                           for layer in range(layers - 1)
                           if len(corpora) == 1]
        for name, readout, layer, words, held_out in columns_wanted:
            values = part.course(steps, readout=readout, layer=layer, vocabulary=words, held_out=held_out)[:, 0]
            if np.isfinite(values).any():
                series.append((name, values))
    return {"step": list(steps)} | {name: ["" if np.isnan(v) else float(v) for v in values]
                                    for name, values in series[:CURVES]}

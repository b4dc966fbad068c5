"""Precision at k, reciprocal rank, and what was learned, kept or lost: per relation, type and corpus, with
intervals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from finetrace.lenses.intervals import LEVEL, mean_of_parts

BY_FACT = ("Squad", "ConceptNet")
"""Corpora whose score is the mean over facts, as published; elsewhere it is the unweighted mean over relations."""


def precision_at(ranks: np.ndarray, k: int, parity: bool = False) -> np.ndarray:
    """Whether the object is among the k best words: (...) float64 of ranks (...) that count from 1.

    The mean is P@k of Petroni et al. (2019), in [0, 1], higher is better, 1 when every rank is at most k. parity: as
    the program of Wallat et al. (2020) computes it, whose ranks count from 0 but are compared with k: its P@10 is P@11.
    """
    return (np.asarray(ranks) <= (k + 1 if parity and k > 1 else k)).astype(np.float64)


def reciprocal_rank(ranks: np.ndarray, parity: bool = False) -> np.ndarray:
    """1 / rank: (...) float64 of ranks (...) that count from 1.

    The mean is the mean reciprocal rank, in [1 / words, 1], higher is better, 1 when every object is first. parity: as
    the program of Wallat et al. (2020): 1 / (rank counted from 0), and 0 for the first place.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if not parity:
        return 1.0 / ranks
    return np.divide(1.0, ranks - 1, out=np.zeros_like(ranks), where=ranks > 1)


def known_changes(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Of facts known (bool) before and after: learned, kept, lost, each (...) float64 0 or 1.

    Their means are shares of all facts in [0, 1]: learned + kept is what is known after, kept + lost what was known
    before.
    """
    return {"learned": (~before & after).astype(np.float64), "kept": (before & after).astype(np.float64),
            "lost": (before & ~after).astype(np.float64)}


def intermediate_contribution(known: np.ndarray) -> float:
    """Share of the facts known in any layer that the last one does not know (Wallat et al. 2020): (union - last) /
    union.

    known: (layer, fact) bool. In [0, 1]; the higher, the more is to be seen only below the last layer. NaN when
    nothing is known.
    """
    union = int(known.any(axis=0).sum()) if len(known) else 0
    return (union - int(known[-1].sum())) / union if union else float("nan")


@dataclass(frozen=True)
class Group:
    """Facts with one score. corpus, relation: as in the table ("" for the corpus, "type:N-1" for a type);  held_out:
    whether these are facts that cannot be known;  parts: numbers of facts, one array per relation whose mean counts
    equally."""

    corpus: str
    relation: str
    held_out: bool
    parts: tuple[np.ndarray, ...]

    @property
    def facts(self) -> int:
        return sum(map(len, self.parts))


def groups(corpora: Sequence[str], relations: Sequence[str], types: Sequence[str], held_out: np.ndarray) -> list[Group]:
    """All groups with a score of their own: per corpus, the corpus, its types, its relations; held-out facts apart.

    corpora, relations, types, held_out: one entry per fact. In Squad and ConceptNet facts count equally, else
    relations do.
    """
    corpus_of, relation_of, type_of = (np.array(list(values), dtype=object) for values in (corpora, relations, types))
    collected = []
    for corpus in dict.fromkeys(corpora):
        for control in (False, True):
            members = (corpus_of == corpus) & (np.asarray(held_out, dtype=bool) == control)
            names = list(dict.fromkeys(relation_of[members]))
            if not names:
                continue
            by_relation = {name: np.flatnonzero(members & (relation_of == name)) for name in names}
            all_parts = (np.flatnonzero(members),) if corpus in BY_FACT else tuple(by_relation.values())
            collected.append(Group(corpus, "", control, all_parts))
            for kind in dict.fromkeys(t for t in type_of[members] if t):
                # a relation may mix types (the facts of a file of one's own): each counts with its facts of this type
                of_this_type = (numbers[type_of[numbers] == kind] for numbers in by_relation.values())
                parts = tuple(numbers for numbers in of_this_type if len(numbers))
                collected.append(Group(corpus, f"type:{kind}", control, parts))
            if corpus not in BY_FACT or len(names) > 1:
                collected += [Group(corpus, name, control, (numbers,)) for name, numbers in by_relation.items()]
    return collected


@dataclass(frozen=True)
class Estimate:
    """Means of columns with 95 % intervals: value, low, high (column,) float64; NaN where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def estimates(fact_groups: Sequence[Group], blocks: Callable[[np.ndarray], Iterable[np.ndarray]],
              shares: np.ndarray, bounded: np.ndarray | None = None) -> list[Estimate]:
    """Scores of groups of facts.

    blocks: numbers of facts -> blocks (fact, column of the block) float64, all columns in order; NaN where a fact has
    no value;
    shares: (column,) bool, whether a column holds only 0 and 1;  bounded: (column,) bool, whether one holds other
    numbers from 0 to 1, none by default. A score is the unweighted mean of the means of the group's parts. Intervals
    take facts as drawn within their relation: for shares and bounded columns those of `mean_of_parts`, which have a
    width also at 0 and 1; else the jackknife, which for means is Student's t times the standard error, sqrt(sum of
    variance / facts of the parts) / parts, NaN where a part has fewer than two facts.
    """
    moments: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    scores = []
    for group in fact_groups:
        for part in group.parts:
            if part.tobytes() not in moments:
                moments[part.tobytes()] = _moments(blocks(part), len(part))
        means, variances = map(np.stack, zip(*(moments[part.tobytes()] for part in group.parts), strict=True))
        mean, facts = means.mean(axis=0), np.array([len(part) for part in group.parts])
        error = np.sqrt(variances.sum(axis=0)) / len(means)
        half = stdtrit(max(1, group.facts - len(means)), (1 + LEVEL) / 2) * error
        low, high = mean - half, mean + half
        low[shares], high[shares] = mean_of_parts(means[:, shares], facts)
        if bounded is not None:
            low[bounded], high[bounded] = mean_of_parts(means[:, bounded], facts, variances[:, bounded])
        scores.append(Estimate(mean, low, high))
    return scores


def _moments(blocks: Iterable[np.ndarray], facts: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the mean: (column,), (column,); the variance is NaN for a single fact."""
    means, variances = [], []
    for block in blocks:
        means.append(block.mean(axis=0))
        variances.append(block.var(axis=0, ddof=1) / facts if facts > 1 else np.full(block.shape[1], np.nan))
    return np.concatenate(means), np.concatenate(variances)

"""The multi-bootstrap (Sellam et al. 2022): training seeds and test examples are resampled together. Pure.

A draw takes as many seeds as there are, with replacement, and as many examples, with replacement; the metric is
computed for each drawn seed on the drawn examples, and its mean over seeds is the draw's value. Examples of one
sentence are drawn as a whole. One `Resampling` serves all arms, steps and layers, so that their differences are
paired: the same seeds and examples in both. With one seed only examples are resampled, and the interval says nothing
about other trainings. Intervals are cautious: what belongs to neither a seed nor an example alone is counted more than
once (Owen 2007); with two or three seeds they are too narrow in what belongs to seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.intervals import LEVEL, bootstrap_weights, percentile_interval


@dataclass(frozen=True)
class Resampled:
    """A statistic and what it was in every draw."""

    value: np.ndarray
    """(...) float64: of the seeds and examples as they are."""
    draws: np.ndarray
    """(draw, ...) float64: NaN where nothing is known of its spread."""

    def __sub__(self, other: "Resampled") -> "Resampled":
        """The difference, draw by draw: paired if both come from one `Resampling`."""
        return Resampled(self.value - other.value, self.draws - other.draws)

    def __getitem__(self, where: object) -> "Resampled":
        where = where if isinstance(where, tuple) else (where,)
        return Resampled(self.value[where], self.draws[(slice(None), *where)])

    @classmethod
    def stack(cls, parts: Sequence["Resampled"]) -> "Resampled":
        """Statistics side by side along a new first axis, e.g. one per step."""
        return cls(np.stack([part.value for part in parts]), np.stack([part.draws for part in parts], axis=1))

    @classmethod
    def concatenate(cls, parts: Sequence["Resampled"]) -> "Resampled":
        """Statistics (curve,) one after the other."""
        return cls(np.concatenate([part.value for part in parts]),
                   np.concatenate([part.draws for part in parts], axis=1))

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Resampled":
        """A function of the statistic, e.g. the step of a gain of a curve: it takes (...) with or without leading
        axes."""
        return Resampled(np.asarray(function(self.value), dtype=np.float64),
                         np.asarray(function(self.draws), dtype=np.float64))

    def interval(self, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """Percentile interval: low (...), high (...); NaN where no draw is finite."""
        return percentile_interval(self.draws, level)

    def p(self) -> np.ndarray:
        """One-sided p-value of a difference, in the direction seen: (...) share of draws that do not have the value's
        sign.

        In (0, 1], with one added to both counts: small = the sign is certain, 1 for a value of 0 (Sellam et al. 2022,
        section 3).
        """
        with np.errstate(invalid="ignore"):
            against = (np.sign(self.draws) != np.sign(self.value)) | (self.value == 0)
        p = (1 + against.sum(axis=0)) / (1 + len(self.draws))
        return np.where(np.isfinite(self.value) & np.isfinite(self.draws).any(axis=0), p, np.nan)


@dataclass(frozen=True)
class Interval:
    """The answer of `multi_bootstrap`; each (...) float64."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    """One-sided, of a difference (see `Resampled.p`); NaN of a single arm."""
    resampled: str
    """What the interval is about: `seeds and examples`, or `examples` with one seed."""


class Resampling:
    """The draws for one set of seeds and examples."""

    def __init__(self, seeds: int, units: np.ndarray, draws: int, seed: int, strata: np.ndarray | None = None):
        """seeds: how many trainings;  units: (item,) int or str, what is drawn as a whole (the sentence of each
        target); draws: how many;  seed: of the random choices;  strata: (item,) groups with a mean of their own, e.g.
        the relation of each fact: units are drawn within them, and a score is the mean over groups.

        Raises ValueError for no seeds or items, and for a unit in two strata.
        """
        units = np.asarray(units)
        if seeds < 1 or not len(units):
            raise ValueError(f"{seeds} seeds and {len(units)} examples: give at least one of both")
        groups = np.zeros(len(units), dtype=np.int64) if strata is None else np.asarray(strata)
        if groups.shape != units.shape:
            raise ValueError(f"strata: {groups.shape[0]} of {len(units)} items")
        self.seeds, self.items, self.draws = seeds, len(units), draws
        _, unit = np.unique(units, return_inverse=True)
        self._order = np.argsort(unit, kind="stable")
        self._starts = np.flatnonzero(np.r_[True, np.diff(unit[self._order]) > 0])
        self.strata, stratum = np.unique(groups, return_inverse=True)
        stratum_of_unit = stratum[self._order][self._starts]
        if (stratum_of_unit[unit] != stratum).any():
            raise ValueError("units: one lies in two strata; a sentence or fact belongs to one")
        self._members = [np.flatnonzero(stratum_of_unit == k) for k in range(len(self.strata))]
        children = np.random.SeedSequence(seed).generate_state(1 + len(self.strata))
        self._weights = [bootstrap_weights(len(m), draws, int(child)).astype(np.uint16)
                         for m, child in zip(self._members, children[1:], strict=True)]
        self._seed_weights = bootstrap_weights(seeds, draws, int(children[0])) / seeds
        self._sizes = self._totals(np.ones(self.items))

    @property
    def units(self) -> int:
        """How many sentences (or whatever is drawn) there are."""
        return len(self._starts)

    @property
    def resampled(self) -> str:
        """What the intervals are about."""
        return "seeds and examples" if self.seeds > 1 else "examples"

    def by_stratum(self, values: np.ndarray) -> Resampled:
        """Means of one training's values over the items of each stratum: (..., item) -> (..., stratum)."""
        totals = self._totals(values)
        sizes = self._sizes.draws.reshape(len(self._sizes.draws), *(1,) * (totals.value.ndim - 1), -1)
        return Resampled(totals.value / self._sizes.value, totals.draws / sizes)

    def mean(self, values: np.ndarray) -> Resampled:
        """The mean over items, or over strata of their means: (..., item) -> (...)."""
        means = self.by_stratum(values)
        return Resampled(means.value.mean(axis=-1), means.draws.mean(axis=-1))

    def f1(self, counts: np.ndarray) -> Resampled:
        """Micro F1 of one training: (..., item, 3) true positives, false positives, false negatives -> (...) in [0,
        1]; over all strata together; 0 where nothing is there to find and nothing was found."""
        totals = self._totals(np.moveaxis(np.asarray(counts), -1, 0))
        return Resampled(_f1(*totals.value.sum(axis=-1)), _f1(*np.moveaxis(totals.draws.sum(axis=-1), 1, 0)))

    def over_seeds(self, results: Sequence[Resampled]) -> Resampled:
        """The mean over trainings; in each draw, over the drawn ones. results: one result of the methods above per
        training."""
        self._same_seeds(len(results))
        draws = np.zeros(results[0].draws.shape)
        for weight, result in zip(self._seed_weights.T, results, strict=True):
            draws += weight.reshape(-1, *(1,) * (draws.ndim - 1)) * result.draws
        return Resampled(np.mean([result.value for result in results], axis=0), draws)

    def of_numbers(self, values: np.ndarray) -> Resampled:
        """The mean of numbers that each training has one of, such as a centre of gravity: (seed, ...) -> (...).

        Seeds alone are resampled; with one seed the spread is unknown (NaN).
        """
        values = np.asarray(values, dtype=np.float64)
        self._same_seeds(len(values))
        if self.seeds == 1:
            return Resampled(values[0], np.full((self.draws, *values.shape[1:]), np.nan))
        return Resampled(values.mean(axis=0), np.tensordot(self._seed_weights, values, axes=1))

    def _same_seeds(self, count: int) -> None:
        if count != self.seeds:
            raise ValueError(f"{count} trainings instead of {self.seeds}")

    def _totals(self, values: np.ndarray) -> Resampled:
        """Sums over the items of each stratum, each item as often as it is drawn: (..., item) -> (..., stratum)."""
        values = np.asarray(values)
        if values.shape[-1] != self.items:
            raise ValueError(f"values: have {values.shape[-1]} items instead of {self.items}")
        sums = np.add.reduceat(values[..., self._order], self._starts, axis=-1, dtype=np.float64)  # (..., unit)
        flat = sums.reshape(-1, sums.shape[-1])
        totals = np.stack([flat[:, m].sum(axis=-1) for m in self._members], axis=-1)
        drawn = np.stack([weights.astype(np.float64) @ flat[:, m].T
                          for weights, m in zip(self._weights, self._members, strict=True)], axis=-1)
        shape = (*sums.shape[:-1], len(self._members))
        return Resampled(totals.reshape(shape), drawn.reshape(self.draws, *shape))


def multi_bootstrap(hits: np.ndarray, other: np.ndarray | None = None, *, metric: str = "mean",
                    units: np.ndarray | None = None, strata: np.ndarray | None = None, draws: int = 1000,
                    seed: int = 0, level: float = LEVEL) -> Interval:
    """Value and interval of a score of several trainings, or of the difference of two arms (paired form).

    hits: (seed, ..., item) of `mean`, or (seed, ..., item, 3) true positives, false positives, false negatives of `f1`;
    other: the same of a second arm (same seeds and items, in the same order), which is subtracted;  units, strata:
    (item,), see `Resampling`. Raises ValueError for shapes that do not fit and unknown metrics.
    """
    if metric not in ("mean", "f1"):
        raise ValueError(f"metric: {metric!r} is none of mean, f1")
    hits = np.asarray(hits)
    arms = [hits] if other is None else [hits, np.asarray(other)]
    if arms[-1].shape != hits.shape or hits.ndim < 2 + (metric == "f1"):
        raise ValueError(f"hits: have shape {hits.shape}"
                         + ("" if other is None else f", the other arm {arms[-1].shape}"))
    items = hits.shape[-2 if metric == "f1" else -1]
    resampling = Resampling(len(hits), np.arange(items) if units is None else units, draws, seed, strata)
    scores = [resampling.over_seeds([getattr(resampling, metric)(values) for values in arm]) for arm in arms]
    result = scores[0] if other is None else scores[0] - scores[1]
    low, high = result.interval(level)
    return Interval(result.value, low, high,
                    result.p() if other is not None else np.full(np.shape(result.value), np.nan), resampling.resampled)


def _f1(right: np.ndarray, wrong: np.ndarray, missed: np.ndarray) -> np.ndarray:
    below = 2 * right + wrong + missed
    return np.where(below > 0, 2 * right / np.where(below > 0, below, 1), 0.0)

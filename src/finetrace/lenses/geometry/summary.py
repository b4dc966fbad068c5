"""What the lens geometry says about one layer of one checkpoint: statistics with 95 % intervals over sentences. Pure.

Means over sentences are resampled by the bootstrap; ranks, quantiles, dimension and cones by leaving groups of
sentences out, because repeated points lower ranks and distances. The same resamples serve every checkpoint, so changes
against the first one are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.lenses.geometry import anisotropy, cones
from finetrace.lenses.geometry import statistics as geometry
from finetrace.lenses.geometry.gram import around_mean, leave_out, participation_ratio_of_gram, singular_values
from finetrace.lenses.intervals import bootstrap_weights, groups_of, jackknife_interval, percentile_interval
from finetrace.longtable import LongTable

SENTENCE_STATISTICS = ("cosine_mean", "cosine_median", "cosine_variance", "covariance_trace", "scaled_trace",
                       "norm_mean", "norm_sd", "intra_sentence_similarity")
BOX = ("low_whisker", "q1", "median", "q3", "high_whisker")
COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64,
    "n": np.int64, "change": np.float64, "change_low": np.float64, "change_high": np.float64}
_BLOCK_NUMBERS = 4_000_000  # of the cosine matrices and tokens of equally long sentences that are computed together


@dataclass(frozen=True)
class Sample:
    """Which tokens of a (token, dim) array are measured, and the resamples of their sentences.

    select: (kept,) int64, tokens of the array;  offsets: (sentence + 1,) where each sentence begins among the kept;
    sentences: (kept,) sentence of each;  token_ids: (kept,);  weights: (draw, sentence) of the bootstrap;
    groups: (sentence,) of the jackknife;  seed: of what is drawn from the tokens.
    """

    select: np.ndarray
    offsets: np.ndarray
    sentences: np.ndarray
    token_ids: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    seed: int


@dataclass(frozen=True)
class Estimates:
    """Statistics with their resamples: names (statistic);  values, n: (statistic,);  resamples: (resample, statistic).

    bootstrap: whether the resamples are bootstrap draws; otherwise each leaves one group of sentences out.
    """

    names: list[str]
    values: np.ndarray
    n: np.ndarray
    resamples: np.ndarray
    bootstrap: bool


def make_sample(offsets: np.ndarray, special: np.ndarray, token_ids: np.ndarray, *, sentences: np.ndarray,
                special_tokens: bool, draws: int, groups: int, seed: int) -> Sample:
    """The tokens of some sentences of a ragged array.

    offsets: (sentence + 1,);  special, token_ids: (token,);  sentences: numbers of the wanted ones;  special_tokens:
    keep those. Raises ValueError when fewer than two sentences keep two tokens: no cosine, or no interval, could be
    had.
    """
    keep = [np.arange(offsets[s], offsets[s + 1]) for s in sentences]
    keep = keep if special_tokens else [tokens[~special[tokens]] for tokens in keep]
    lengths = np.array([len(tokens) for tokens in keep], dtype=np.int64)
    if (lengths >= 2).sum() < 2:
        without = "" if special_tokens else " that is not special"
        raise ValueError(f"only {int((lengths >= 2).sum())} of {len(lengths)} sentences have more than one "
                         f"token{without}; keep the tokens of more sentences (hidden.token_rows)"
                         + (" or count special tokens" if without else ""))
    select = np.concatenate(keep)
    return Sample(select, np.concatenate([[0], np.cumsum(lengths)]), np.repeat(np.arange(len(lengths)), lengths),
                  np.asarray(token_ids)[select], bootstrap_weights(len(lengths), draws, seed),
                  groups_of(len(lengths), groups, seed), seed)


def choose_sentences(sentences: np.ndarray, limit: int, choose: str = "spread") -> np.ndarray:
    """At most `limit` of the sentences (0 all), in order: evenly spread over them, or the first ones."""
    if limit == 0 or limit >= len(sentences):
        return sentences
    if choose == "first":
        return sentences[:limit]
    return sentences[np.linspace(0, len(sentences) - 1, limit).round().astype(np.int64)]


def sentence_estimates(layer: np.ndarray, sample: Sample) -> list[Estimates]:
    """Cosines, traces, norms, anisotropy and self-similarity of one layer (token, dim): values, bootstrap and
    jackknife."""
    tokens = layer[sample.select]
    per_sentence, unit_sums, histograms = _per_sentence(tokens, sample.offsets)
    counts = np.diff(sample.offsets).astype(np.float64)
    values, draws, counted = _weighted_means(per_sentence, sample.weights)
    everyone = np.ones((1, len(counts)))
    baseline = anisotropy.weighted_anisotropy(unit_sums, counts, everyone)
    baseline_draws = anisotropy.weighted_anisotropy(unit_sums, counts, sample.weights)
    intra = SENTENCE_STATISTICS.index("intra_sentence_similarity")
    mean = SENTENCE_STATISTICS.index("cosine_mean")
    boot = Estimates(
        [*SENTENCE_STATISTICS, "anisotropy", "corrected_cosine_mean", "corrected_intra_sentence_similarity"],
        np.concatenate([values, baseline, values[[mean, intra]] - baseline]),
        np.concatenate([counted, [len(counts)] * 3]),
        np.column_stack([draws, baseline_draws, draws[:, mean] - baseline_draws, draws[:, intra] - baseline_draws]),
        True)

    group_count = int(sample.groups.max()) + 1
    by_group = np.stack([histograms[sample.groups == g].sum(axis=0) for g in range(group_count)])
    pooled = by_group.sum(axis=0)
    boxes = np.stack([geometry.box_of(pooled), *(geometry.box_of(pooled - part) for part in by_group)])
    pieces = anisotropy.type_sums(tokens, sample.token_ids, sample.sentences)
    similar = [anisotropy.self_similarity_without(pieces)]
    similar += [anisotropy.self_similarity_without(pieces, left_out=sample.groups[pieces[3]] == g)
                for g in range(group_count)]
    boxes[1:, [0, 4]] = np.nan  # a whisker is one outermost pair, for which leaving groups out means nothing
    jackknife = np.column_stack([boxes, [cosines.mean() if len(cosines) else np.nan for cosines in similar]])
    pairs = int(pooled.sum())
    return [boot, Estimates([*(f"cosine_pooled_{part}" for part in BOX), "self_similarity"], jackknife[0],
                            np.array([pairs] * 5 + [len(similar[0])]), jackknife[1:], False)]


def spectral_estimates(layer: np.ndarray, sample: Sample, dimension_tokens: int = 2000) -> Estimates:
    """Effective ranks, IsoScore, intrinsic dimension ... of the sample's stacked tokens, with jackknife over their
    sentences.

    layer: (token, dim). The intrinsic dimension leaves groups out of the fit only: their tokens stay as neighbours.
    """
    tokens = layer[sample.select]
    groups = sample.groups[sample.sentences]
    dim = tokens.shape[1]
    columns: dict[str, np.ndarray] = {}
    for name, centre in (("", False), ("_centred", True)):
        sums_of_all, without = leave_out(around_mean(tokens) if centre else tokens, groups)
        spectrum = np.concatenate([singular_values(sums_of_all, centre)[None], singular_values(without, centre)])
        columns[f"effective_rank{name}"] = geometry.rank_of_singular_values(spectrum)
        if not centre:
            columns["effective_rank_squared_weights"] = geometry.rank_of_singular_values(spectrum, "sv2")
            total = spectrum.sum(axis=-1)
            columns["top_singular_share"] = np.where(total > 0, spectrum[:, 0] / np.where(total > 0, total, 1), np.nan)
    ratio = np.concatenate([participation_ratio_of_gram(sums_of_all)[None], participation_ratio_of_gram(without)])
    columns["participation_ratio"] = ratio
    columns["iso_score"] = (ratio - 1) / (dim - 1) if dim > 1 else np.full(len(ratio), np.nan)
    ratios, index = geometry.neighbour_ratios(tokens, dimension_tokens, sample.seed)
    group_of = groups[index]
    columns["intrinsic_dimension"] = np.array([geometry.two_nn(ratios)] + [
        geometry.two_nn(ratios[group_of != g]) for g in range(len(without.count))])
    values = np.column_stack(list(columns.values()))
    n = np.full(len(columns), len(tokens))
    n[-1] = len(ratios)
    return Estimates(list(columns), values[0], n, values[1:], False)


def cone_estimates(vectors: np.ndarray, labels: np.ndarray, names: list[str], groups: np.ndarray) -> Estimates:
    """Class cones of one layer's sentence vectors (row, dim): mean cosines to class means and pairwise ones. Leaving
    groups of rows out moves the class means too, which a bootstrap of each row's cosine would hold fixed.

    labels: (row,);  names: of all classes by number;  groups: (row,).
    """
    sums = cones.class_sums(vectors, labels, groups)
    classes = np.unique(labels)
    a, b = np.triu_indices(len(classes))
    values = np.array([[s.within, s.between, s.angle, s.scatter_ratio, *s.similarity[a, b]]
                       for s in (cones.statistics_of_sums(sums), *cones.left_out_statistics(sums))])
    pair_names = [f"class_cosine/{names[classes[i]]}/{names[classes[j]]}" for i, j in zip(a, b, strict=True)]
    statistics = ["own_class_cosine", "other_class_cosine", "within_class_cosine", "between_class_cosine",
                  "class_angle_degrees", "scatter_ratio", *pair_names]
    values = np.column_stack([cones.own_and_other(vectors, labels, groups), values])
    return Estimates(statistics, values[0], np.full(values.shape[1], len(labels)), values[1:], False)


def table_rows(step: int, layer: int, estimates: list[Estimates], first: list[Estimates] | None) -> dict[str, Any]:
    """Columns `COLUMNS` of one layer, with 95 % intervals and the paired change against the first checkpoint (None: it
    is)."""
    parts = []
    for number, estimate in enumerate(estimates):
        low, high = _bounded(estimate.names, _interval(estimate.values, estimate.resamples, estimate.bootstrap))
        blank = np.full(len(estimate.names), np.nan)
        change = [blank, blank, blank]
        if first is not None:
            first_estimate = first[number]
            values = _finite(estimate.values) - _finite(first_estimate.values)
            resamples = _finite(estimate.resamples) - _finite(first_estimate.resamples)
            change = [values, *_interval(values, resamples, estimate.bootstrap)]
        where = [np.full(len(estimate.names), step), np.full(len(estimate.names), layer, dtype=np.int32)]
        parts.append([*where, np.array(estimate.names, dtype=object), estimate.values, low, high, estimate.n, *change])
    return {name: np.concatenate(column) for name, column in zip(COLUMNS, zip(*parts, strict=True), strict=True)}


def table(parts: Sequence[dict[str, Any]]) -> LongTable:
    """The table of all layers of all checkpoints; parts: of `table_rows`, in the order of the rows."""
    return LongTable.of_columns({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}, COLUMNS)


@dataclass(frozen=True)
class Bands:
    """One statistic over checkpoints and layers with its 95 % interval: each (step, layer) float64, NaN where
    unknown."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _per_sentence(tokens: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistics (sentence, SENTENCE_STATISTICS), sums of unit vectors (sentence, dim), histograms (sentence, bin)."""
    lengths, dim = np.diff(offsets), tokens.shape[1]
    values = np.full((len(lengths), len(SENTENCE_STATISTICS)), np.nan)
    unit_sums = np.zeros((len(lengths), dim))
    histograms = np.zeros((len(lengths), geometry.BINS), dtype=np.int64)
    for k in np.unique(lengths[lengths > 0]):
        equal = np.flatnonzero(lengths == k)
        at_once = max(1, _BLOCK_NUMBERS // int(k * max(k, dim)))
        for start in range(0, len(equal), at_once):
            sentences = equal[start:start + at_once]
            block = tokens[offsets[sentences][:, None] + np.arange(k)]
            cosines = geometry.cosine_summary(block)
            histograms[sentences] = cosines.histogram
            values[sentences, :3] = np.column_stack([cosines.mean, cosines.median, cosines.variance])
            unit_sums[sentences], values[sentences, 3:] = _spread(block.astype(np.float64, copy=False))
    return values, unit_sums, histograms


def _spread(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of unit vectors (sentence, dim), and trace, scaled trace, norm mean and sd, intra-sentence similarity, for
    sentences of equal length (sentence, token, dim)."""
    k = block.shape[1]
    power = np.einsum("skd,skd->sk", block, block)
    norms = np.sqrt(power)
    inverse = np.where(norms > 0, 1 / np.where(norms > 0, norms, 1), 0)
    unit_sums = np.einsum("sk,skd->sd", inverse, block, optimize=True)
    mean = block.mean(axis=1)
    intra = np.einsum("sd,sd->s", unit_sums, geometry.unit_vectors(mean)) / k
    blank = np.full(len(block), np.nan)
    trace, scaled = blank, blank
    if k > 1:
        centred = block - mean[:, None]
        trace = np.einsum("skd,skd->s", centred, centred) / (k - 1)
        average = power.mean(axis=1)
        scaled = np.where(average > 0, trace / np.where(average > 0, average, 1), np.nan)
    return unit_sums, np.column_stack([trace, scaled, norms.mean(axis=1), norms.std(axis=1), intra])


def _weighted_means(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over items (item, statistic) that have a value, their bootstrap draws (draw, statistic), and how many
    items."""
    finite = np.isfinite(values)
    filled, counted = np.where(finite, values, 0.0), finite.sum(axis=0)
    drawn = weights @ finite.astype(np.float64)
    means = np.where(counted > 0, filled.sum(axis=0) / np.maximum(counted, 1), np.nan)
    draws = np.where((drawn > 0) & (counted > 1), weights @ filled / np.maximum(drawn, 1), np.nan)
    return means, draws, counted


def _interval(values: np.ndarray, resamples: np.ndarray, bootstrap: bool) -> tuple[np.ndarray, np.ndarray]:
    """Low and high (statistic,): percentiles of bootstrap draws, or the jackknife."""
    return percentile_interval(resamples) if bootstrap else jackknife_interval(values, _finite(resamples))


def _bounded(names: list[str], ends: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Intervals cut to what the statistic can be: cosines to -1 .. 1, everything else to 0 and above."""
    cosine = np.array([("cosine" in name and name != "cosine_variance") or "similarity" in name or name == "anisotropy"
                       for name in names])
    top = np.where([name.startswith("corrected") for name in names], 2.0, 1.0)  # a difference of two cosines
    low, high = (np.clip(end, np.where(cosine, -top, 0), np.where(cosine, top, np.inf)) for end in ends)
    return low, high


def _finite(values: np.ndarray) -> np.ndarray:
    """Infinities as NaN: they have neither differences nor intervals."""
    return np.where(np.isfinite(values), values, np.nan)

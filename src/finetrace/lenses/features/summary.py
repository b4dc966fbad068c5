"""What the lens features says about one trajectory: rows of its table, headline numbers, curves. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from finetrace.lenses.features import change as lens

NAMES = ("step", "set", "label", "statistic", "value", "low", "high", "n")
TYPES = {"step": np.int64, "value": np.float64, "low": np.float64, "high": np.float64, "n": np.int64}
Row = tuple[int, str, str, str, float, float, float, int]


def set_rows(step: int, name: str, before: np.ndarray, now: np.ndarray, weight: np.ndarray, labels: np.ndarray,
             label_names: Sequence[str], units: lens.Units, rcond: float, ridge: float) -> Iterator[Row]:
    """The rows of one set at one checkpoint.

    before, now: (row, dim) features at the first checkpoint and at this one;  weight: (class, dim) of the head;  labels: (row,)
    int. Statistics: cosine, cosine_with_diagonal, diff, norm, fdr, fdr_ridge, fdr_rank, fdr_singular, fdr_lost; per class
    class_norm (of its mean feature) and head_cosine (of its head row with that mean); head_cosine_own and head_cosine_other,
    their means over classes with the own and with the other classes' means; the same `centred`, from the mean of all features.
    """
    for statistic, one in (("cosine", lens.cosine_similarity(now, units)),
                           ("cosine_with_diagonal", lens.cosine_similarity(now, units, diagonal=True)),
                           ("diff", lens.feature_change(before, now, units)), ("norm", lens.mean_norm(now, units))):
        yield step, name, "", statistic, one.value, one.low, one.high, one.n
    fisher = lens.fisher_ratio(now, labels, rcond, ridge)
    for statistic, value in (("fdr", fisher.value), ("fdr_ridge", fisher.ridge), ("fdr_rank", float(fisher.rank)),
                             ("fdr_singular", float(fisher.singular)), ("fdr_lost", fisher.lost)):
        yield _plain(step, name, "", statistic, value, len(labels))
    means = lens.class_means(now, labels, len(label_names))
    cosines = lens.head_cosines(weight, means)
    for k, label in enumerate(label_names):
        members = int((labels == k).sum())
        if members:
            yield _plain(step, name, label, "class_norm", float(np.linalg.norm(means[k])), members)
            yield _plain(step, name, label, "head_cosine", float(cosines[k, k]), members)
    centred = lens.head_cosines(weight - weight.mean(axis=0), means - np.asarray(now, dtype=np.float64).mean(axis=0))
    for suffix, matrix in (("", cosines), ("_centred", centred)):
        own = np.eye(len(matrix), dtype=bool)
        for side, chosen in (("own", matrix[own]), ("other", matrix[~own])):
            known = chosen[np.isfinite(chosen)]
            yield _plain(step, name, "", f"head_cosine_{side}{suffix}", float(known.mean()) if len(known) else float("nan"),
                         len(labels))


def head_rows(step: int, weight: np.ndarray, label_names: Sequence[str]) -> Iterator[Row]:
    """The rows of the head at one checkpoint: head_norm, and head_row_norm per class; n counts rows of the head."""
    yield _plain(step, "", "", "head_norm", lens.head_norm(weight), len(weight))
    for k, label in enumerate(label_names):
        yield _plain(step, "", label, "head_row_norm", lens.head_norm(weight[k]), 1)


def table(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Rows as the columns of table.parquet."""
    values = dict(zip(NAMES, zip(*rows, strict=True), strict=True))
    return {name: np.array(values[name], dtype=TYPES.get(name)) for name in NAMES}


def course(columns: dict[str, np.ndarray], statistic: str, name: str = "") -> np.ndarray:
    """One statistic of a set (or of the head) over the checkpoints: (checkpoint, 3) value, low, high, by step."""
    keep = (columns["statistic"] == statistic) & (columns["set"] == name) & (columns["label"] == "")
    order = np.argsort(columns["step"][keep], kind="stable")
    return np.stack([columns[key][keep][order] for key in ("value", "low", "high")], axis=1)


def metrics(columns: dict[str, np.ndarray], sets: Sequence[str], steps: Sequence[int], kept: int) -> dict[str, float]:
    """What a person compares between runs, e.g. `test/cosine/first`, `test/diff`, `head_norm/kept`; undefined ones left out."""
    found: dict[str, float] = {}
    at = list(steps).index(kept)
    for name in sets:
        for statistic in ("cosine", "fdr", "fdr_ridge"):
            values = course(columns, statistic, name)[:, 0]
            found |= {f"{name}/{statistic}/first": values[0], f"{name}/{statistic}/kept": values[at]}
        found[f"{name}/diff"] = course(columns, "diff", name)[at, 0]
    norms = course(columns, "head_norm")[:, 0]
    found |= {"head_norm/first": norms[0], "head_norm/kept": norms[at]}
    return {key: float(value) for key, value in found.items() if np.isfinite(value)}


def curves(columns: dict[str, np.ndarray], sets: Sequence[str], steps: Sequence[int]) -> dict[str, np.ndarray]:
    """Columns of curves.csv: step, head_norm, and of each set its cosine, diff and fdr_ridge."""
    found = {"step": np.array(steps, dtype=np.int64), "head_norm": course(columns, "head_norm")[:, 0]}
    for name in sets:
        for statistic in ("cosine", "diff", "fdr_ridge"):
            values = course(columns, statistic, name)[:, 0]
            if np.isfinite(values).any():
                found[f"{name}_{statistic}"] = values
    return found


def _plain(step: int, name: str, label: str, statistic: str, value: float, n: int) -> Row:
    return step, name, label, statistic, value, float("nan"), float("nan"), n

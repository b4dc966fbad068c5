"""What the lens kernel says about one trajectory: rows of a table, headline numbers, curves. Pure.

Parts of a kernel: `pretrain_effective` (P: the head's gradients), `ft_effective` (F: those of all else), `full` (their
sum, the neural tangent kernel). Rows about a group of parameters are about its share of F.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetrace.lenses.intervals import bootstrap_mean, bootstrap_weights, wilson_interval
from finetrace.lenses.kernel import solvers, statistics
from finetrace.longtable import LongTable, known

PARTS = ("pretrain_effective", "ft_effective", "full")
HEADLINES = ("rank", "stable_rank", "frobenius_norm", "nuclear_norm", "alignment", "accuracy_train", "accuracy_eval",
             "accuracy_flat_train", "accuracy_flat_eval", "distance")
IN_CURVES = ("stable_rank", "frobenius_norm", "alignment", "accuracy_eval", "velocity")
WHOLE = "all"  # in the column group: the whole part
DRAWS = 1000
COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "part": str, "group": str, "statistic": str, "index": np.int32,
    "value": np.float64, "low": np.float64, "high": np.float64, "n": np.int64}
"""index is the place in the spectrum, from 1, else 0; layer is that of the group, else -1."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """Kernels of one checkpoint. train: part -> (example, class, example, class);  eval: part -> (eval example, class,
    example, class), may be empty;  groups: group of parameters -> (example, class, example, class), which sum to F;
    flipped_train, flipped_eval: as train and eval, only of asymmetric-signgd;  train_logits, eval_logits: (example,
    class) of the checkpoint."""

    step: int
    train: dict[str, np.ndarray]
    eval: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    train_logits: np.ndarray
    eval_logits: np.ndarray
    flipped_train: dict[str, np.ndarray] = field(default_factory=dict)
    flipped_eval: dict[str, np.ndarray] = field(default_factory=dict)


def parts(pretrain_effective: np.ndarray, ft_effective: np.ndarray) -> dict[str, np.ndarray]:
    """The three parts by name."""
    return dict(zip(PARTS, (pretrain_effective, ft_effective, pretrain_effective + ft_effective), strict=True))


def statistic_rows(look: Look, labels: np.ndarray, *, tolerance: float | None = None, seed: int = 0) -> list[Row]:
    """Rank, norms, spectrum, alignment and block norms of each part, FT Ratio, and the groups' shares. labels:
    (example,)."""
    rows: list[Row] = []
    count = len(labels)
    same_class = labels[:, None] == labels
    off_diagonal = ~np.eye(count, dtype=bool)
    for part, kernel in look.train.items():
        spectrum = statistics.spectrum(kernel, tolerance)
        blocks = statistics.block_nuclear_norms(kernel)
        values = {"rank": spectrum.rank, "rank_tolerance": spectrum.tolerance, "stable_rank": spectrum.stable_rank,
                  "operator_norm": spectrum.operator_norm, "frobenius_norm": spectrum.frobenius_norm,
                  "nuclear_norm": spectrum.nuclear_norm, "alignment": statistics.label_alignment(kernel, labels),
                  "block_norm_self": _mean(blocks[~off_diagonal]),
                  "block_norm_same_class": _mean(blocks[same_class & off_diagonal]),
                  "block_norm_other_class": _mean(blocks[~same_class])}
        rows += [_row(look.step, part, name, value, n=count) for name, value in values.items()]
        rows += [_row(look.step, part, "spectrum", value, n=count, index=rank)
                 for rank, value in enumerate(spectrum.normalised.tolist(), start=1)]
    rows.append(_ft_ratio_row(look, labels, seed))
    total = np.einsum("ncnc->", look.train["ft_effective"])
    for group, kernel in look.groups.items():
        share = np.einsum("ncnc->", kernel) / total if total else np.nan
        values = {"trace_share": share, "frobenius_norm": float(np.linalg.norm(kernel))}
        rows += [_row(look.step, "ft_effective", name, value, n=count, group=group) for name, value in values.items()]
    return rows


def model_rows(look: Look, labels: np.ndarray, eval_labels: np.ndarray, *, before: tuple[Look, list[Row]] | None = None,
               adjust: bool = False, f0_scaling: float = 1.0, **fit: Any) -> list[Row]:
    """Accuracies of a kernel model on each part that is not zero, both kinds, with Wilson intervals for the share of
    examples.

    labels, eval_labels: (example,);  before: the checkpoint before and its rows, which stand for parts that have not
    changed (linear probing);  adjust, f0_scaling: fit what the checkpoint's logits leave over;  fit: solver, normalise,
    regularization, parity, folds, seed, gamma of `solvers.fit`.
    """
    rows: list[Row] = []
    start_logits = {"train": look.train_logits, "eval": look.eval_logits} if adjust else {}
    for part, kernel in look.train.items():
        if not kernel.any():
            continue
        equal_rows = [] if adjust else _rows_of_equal_kernel(part, kernel, look, before, rows)
        if equal_rows:
            rows += [{**row, "step": look.step, "part": part} for row in equal_rows]
            continue
        model = solvers.fit(kernel, labels, logits=start_logits.get("train"), logits_scale=f0_scaling, **fit)
        rows += [_row(look.step, part, "model_strength", model.strength, n=len(labels)),
                 _row(look.step, part, "model_converged", float(model.converged), n=len(labels))]
        splits = {"train": (kernel, look.flipped_train, labels)}
        if look.eval:
            splits["eval"] = (look.eval[part], look.flipped_eval, eval_labels)
        for split, (split_kernel, flipped, split_labels) in splits.items():
            flipped_kernel = flipped[part] if model.flipped_coefficients is not None else None
            row_scores = solvers.scores(model, split_kernel, flipped=flipped_kernel, logits=start_logits.get(split))
            accuracies = solvers.accuracies(model, row_scores, split_labels)
            low, high = wilson_interval(round(accuracies.argmax * accuracies.n), accuracies.n)
            rows += [_row(look.step, part, f"accuracy_{split}", accuracies.argmax, low, high, n=accuracies.n),
                     _row(look.step, part, f"accuracy_flat_{split}", accuracies.flat, n=accuracies.n)]
    return rows


def motion_rows(first: Look, before: Look | None, look: Look) -> list[Row]:
    """How far each part and group has turned from the first checkpoint (`distance`) and per step since the one before
    (`velocity`). first, before: the first checkpoint and the one before `look`; before is None at the first one."""
    count = len(look.train["full"])
    rows = [_row(look.step, part, "distance", statistics.kernel_distance(first.train[part], kernel), n=count)
            for part, kernel in look.train.items()]
    if before is None:
        return rows
    step_count = look.step - before.step
    rows += [_row(look.step, part, "velocity", statistics.kernel_velocity(before.train[part], kernel, step_count),
                  n=count) for part, kernel in look.train.items()]
    return rows + [_row(look.step, "ft_effective", "velocity",
                        statistics.kernel_velocity(before.groups[group], kernel, step_count),
                        n=count, group=group) for group, kernel in look.groups.items()]


def metrics(table: LongTable, steps: Sequence[int]) -> dict[str, float]:
    """Headline numbers of the first and last checkpoint, e.g. `ft_effective/frobenius_norm/last`; undefined ones are
    left out.

    `velocity/mean` is how far the whole kernel turned per step, the way added up over all checkpoints looked at.
    """
    whole = table.select(group=WHOLE)
    selections = {f"{part}/{name}": {"part": part, "statistic": name} for part in PARTS for name in HEADLINES}
    numbers = whole.headlines(selections | {"ft_ratio": {"statistic": "ft_ratio"}}, steps)
    numbers = {name: value for name, value in numbers.items() if not name.endswith("distance/first")}  # 0 by definition
    if len(steps) > 1:
        gaps = np.diff(steps)
        for part in PARTS:
            velocity = whole.course(steps[1:], part=part, statistic="velocity")[:, 0]
            numbers["velocity/mean" if part == "full" else f"{part}/velocity/mean"] = float(
                velocity @ gaps / gaps.sum())
    return known(numbers)


def curves(table: LongTable, steps: Sequence[int]) -> dict[str, np.ndarray]:
    """Columns step, ft_ratio, and e.g. ft_effective_frobenius_norm over the checkpoints; those without any value are
    left out."""
    whole = table.select(group=WHOLE)
    columns = {"ft_ratio": whole.course(steps, statistic="ft_ratio")[:, 0]}
    columns |= {f"{part}_{name}": whole.course(steps, part=part, statistic=name)[:, 0]
                for part in PARTS for name in IN_CURVES}
    return {"step": np.array(steps, dtype=np.int64),
            **{name: values for name, values in columns.items() if np.isfinite(values).any()}}


def _rows_of_equal_kernel(part: str, kernel: np.ndarray, look: Look, before: tuple[Look, list[Row]] | None,
                          rows: list[Row]) -> list[Row]:
    """Rows of an equal kernel: the same part of the checkpoint before, or the only other part that is not zero."""
    if before and np.array_equal(kernel, before[0].train[part]) and all(
            np.array_equal(look.eval[p], before[0].eval[p]) for p in look.eval if p == part):
        return [row for row in before[1] if row["part"] == part]
    nonzero_parts = [name for name in PARTS[:2] if look.train[name].any()]
    return ([row for row in rows if row["part"] == nonzero_parts[0]]
            if part == "full" and len(nonzero_parts) == 1 else [])


def _ft_ratio_row(look: Look, labels: np.ndarray, seed: int) -> Row:
    delta = statistics.residuals(look.train_logits, labels)
    ratios = statistics.ft_ratios_from_products(*(statistics.product(look.train[part], delta) for part in PARTS[:2]))
    ratios = ratios[~np.isnan(ratios)]
    if not np.isfinite(ratios).all() or not len(ratios):
        return _row(look.step, "full", "ft_ratio", _mean(ratios), n=len(ratios))
    low, high = bootstrap_mean(ratios, bootstrap_weights(len(ratios), DRAWS, seed))
    return _row(look.step, "full", "ft_ratio", _mean(ratios), float(low), float(high), n=len(ratios))


def _row(step: int, part: str, statistic: str, value: float, low: float = np.nan, high: float = np.nan, *, n: int,
         group: str = WHOLE, index: int = 0) -> Row:
    layer = re.match(r"layer-(\d+)/", group)
    return {"step": step, "layer": int(layer[1]) if layer else -1, "part": part, "group": group, "statistic": statistic,
            "index": index, "value": value, "low": low, "high": high, "n": n}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")

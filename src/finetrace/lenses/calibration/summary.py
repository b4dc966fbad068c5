"""What the lens calibration says about one trajectory: rows of its tables, headline numbers, curves. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetrace.lenses.calibration.measures import (
    Calibration,
    Temperature,
    calibration,
    intervals,
    negative_log_likelihood,
    probabilities_of,
)
from finetrace.longtable import LongTable

STATISTICS = ("ece", "mce", "adaptive_ece", "classwise_ece", "brier", "brier_mean", "nll", "confidence", "accuracy")
HEADLINE = ("accuracy", "ece", "mce", "adaptive_ece", "brier", "nll", "confidence")
SCALED = ("ece", "mce", "nll")
IN_CURVES = (("accuracy", False), ("ece", False), ("ece", True), ("nll", False), ("nll", True))
COLUMNS: dict[str, type] = {"step": np.int64, "set": str, "scaled": np.bool_, "statistic": str, "value": np.float64,
                            "low": np.float64, "high": np.float64, "n": np.int64}
BIN_COLUMNS: dict[str, type] = {"step": np.int64, "set": str, "scaled": np.bool_, "bin": np.int32, "from": np.float64,
                                "to": np.float64, "count": np.int64, "confidence": np.float64, "accuracy": np.float64}

Row = dict[str, Any]
Key = tuple[int, str, bool]
"""Step, set, and whether the logits are divided by the temperature."""


def measure(logits: np.ndarray, labels: np.ndarray, units: np.ndarray, temperature: float, *, bins: int, groups: int,
            seed: int) -> tuple[Calibration, dict[str, tuple[float, float]]]:
    """Calibration of one set at one checkpoint, and intervals by statistic; the nll is that of the logits, always
    finite."""
    p = probabilities_of(logits, temperature)
    measured = calibration(p, labels, bins)
    if not np.isfinite(measured.nll):
        measured = Calibration(**{**vars(measured), "nll": negative_log_likelihood(logits, labels, temperature)})
    return measured, intervals(p, labels, units, bins=bins, groups=groups, seed=seed)


def rows(key: Key, measured: Calibration, ends: Mapping[str, tuple[float, float]]) -> list[Row]:
    """The rows of the table for one set at one checkpoint."""
    return [_row(*key, name, getattr(measured, name), int(measured.counts.sum()), *ends.get(name, ()))
            for name in STATISTICS]


def temperature_rows(step: int, fitted_on: str, fitted: Temperature, n: int) -> list[Row]:
    """The temperature of one checkpoint, and whether it stands at a bound."""
    return [_row(step, fitted_on, True, "temperature", fitted.value, n),
            _row(step, fitted_on, True, "temperature_at_bound", float(bool(fitted.bound)), n)]


def bin_rows(key: Key, measured: Calibration) -> list[Row]:
    """The bins of one set at one checkpoint."""
    place = dict(zip(("step", "set", "scaled"), key, strict=True))
    return [place | {"bin": j, "from": measured.edges[j], "to": measured.edges[j + 1], "count": measured.counts[j],
                     "confidence": measured.bin_confidence[j], "accuracy": measured.bin_accuracy[j]}
            for j in range(len(measured.counts))]


def metrics(table: LongTable, sets: Sequence[str], step: int) -> dict[str, float]:
    """What a person compares between runs, of one checkpoint: e.g. `test/ece`, `test/ece_scaled`, `temperature`."""
    numbers = {f"{name}/{key}{suffix}": table.value(step=step, set=name, scaled=bool(suffix), statistic=key)
               for name in sets for suffix, keys in (("", HEADLINE), ("_scaled", SCALED)) for key in keys}
    return numbers | {key: table.value(step=step, statistic=key) for key in ("temperature", "temperature_at_bound")}


def courses(table: LongTable, sets: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """set -> statistic, with `_scaled` where the temperature is applied -> (checkpoint, 3) value, low, high."""
    return {name: {f"{key}{'_scaled' if scaled else ''}": table.course(set=name, scaled=scaled, statistic=key)
                   for key, scaled in IN_CURVES} for name in sets}


def curves(table: LongTable, sets: Sequence[str]) -> dict[str, Any]:
    """Columns of curves.csv: step, temperature, then of each set its accuracy, and ece and nll before and after
    scaling."""
    columns = {"step": table.distinct("step"), "temperature": table.course(statistic="temperature")[:, 0]}
    return columns | {f"{name}_{key}": values[:, 0] for name, set_courses in courses(table, sets).items()
                      for key, values in set_courses.items()}


def _row(step: int, name: str, scaled: bool, statistic: str, value: float, n: int, low: float = np.nan,
         high: float = np.nan) -> Row:
    return {"step": step, "set": name, "scaled": scaled, "statistic": statistic, "value": value, "low": low,
            "high": high, "n": n}

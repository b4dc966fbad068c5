"""What the lens calibration says about one trajectory: rows of its tables, headline numbers, curves. Pure."""

from collections.abc import Iterable, Sequence

import numpy as np

from finetrace.lenses.calibration.measures import (
    Calibration,
    Temperature,
    calibration,
    intervals,
    negative_log_likelihood,
    probabilities_of,
)

STATISTICS = ("ece", "mce", "adaptive_ece", "classwise_ece", "brier", "brier_mean", "nll", "confidence", "accuracy")
HEADLINE = ("accuracy", "ece", "mce", "adaptive_ece", "brier", "nll", "confidence")
SCALED = ("ece", "mce", "nll")
TYPES = {"step": np.int64, "scaled": np.bool_, "value": np.float64, "low": np.float64, "high": np.float64, "n": np.int64}
BIN_TYPES = {"step": np.int64, "scaled": np.bool_, "bin": np.int32, "count": np.int64, "from": np.float64, "to": np.float64,
             "confidence": np.float64, "accuracy": np.float64}

Row = tuple[int, str, bool, str, float, float, float, int]
Key = tuple[int, str, bool]
"""Step, set, and whether the logits are divided by the temperature."""


def measure(logits: np.ndarray, labels: np.ndarray, units: np.ndarray, temperature: float, *, bins: int, groups: int,
            seed: int) -> tuple[Calibration, dict[str, tuple[float, float]]]:
    """Calibration of one set at one checkpoint, and intervals by statistic; the nll is that of the logits, always finite."""
    p = probabilities_of(logits, temperature)
    found = calibration(p, labels, bins)
    if not np.isfinite(found.nll):
        found = Calibration(**{**vars(found), "nll": negative_log_likelihood(logits, labels, temperature)})
    return found, intervals(p, labels, units, bins=bins, groups=groups, seed=seed)


def rows(key: Key, found: Calibration, ends: dict[str, tuple[float, float]]) -> list[Row]:
    """The rows of the table for one set at one checkpoint."""
    nothing = float("nan"), float("nan")
    return [(*key, name, getattr(found, name), *ends.get(name, nothing), int(found.counts.sum())) for name in STATISTICS]


def temperature_rows(step: int, fitted_on: str, fitted: Temperature, n: int) -> list[Row]:
    """The temperature of one checkpoint, and whether it stands at a bound."""
    nothing = float("nan"), float("nan")
    return [(step, fitted_on, True, "temperature", fitted.value, *nothing, n),
            (step, fitted_on, True, "temperature_at_bound", float(bool(fitted.bound)), *nothing, n)]


def table(found: Iterable[Row]) -> dict[str, np.ndarray]:
    """Rows as the columns of table.parquet: step, set, scaled, statistic, value, low, high, n."""
    return _columns(("step", "set", "scaled", "statistic", "value", "low", "high", "n"), found, TYPES)


def bin_table(found: dict[Key, Calibration]) -> dict[str, np.ndarray]:
    """The bins of every set at every checkpoint, as columns: step, set, scaled, bin, from, to, count, confidence, accuracy."""
    bins = [(*key, j, one.edges[j], one.edges[j + 1], one.counts[j], one.bin_confidence[j], one.bin_accuracy[j])
            for key, one in found.items() for j in range(len(one.counts))]
    return _columns(("step", "set", "scaled", "bin", "from", "to", "count", "confidence", "accuracy"), bins, BIN_TYPES)


def metrics(found: dict[Key, Calibration], step: int, fitted: Temperature) -> dict[str, float]:
    """What a person compares between runs, of one checkpoint: e.g. `test/ece`, `test/ece_scaled`, `temperature`."""
    numbers: dict[str, float] = {}
    for (at, name, scaled), one in found.items():
        if at == step:
            suffix, keys = ("_scaled", SCALED) if scaled else ("", HEADLINE)
            numbers |= {f"{name}/{key}{suffix}": getattr(one, key) for key in keys}
    return numbers | {"temperature": fitted.value, "temperature_at_bound": float(bool(fitted.bound))}


def curves(found: dict[Key, Calibration], fitted: dict[int, Temperature], sets: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of curves.csv: step, temperature, then of each set its accuracy, and ece and nll before and after scaling."""
    columns = {"step": np.array(list(fitted), dtype=np.int64), "temperature": np.array([one.value for one in fitted.values()])}
    for name in sets:
        for key, scaled in (("accuracy", False), ("ece", False), ("ece", True), ("nll", False), ("nll", True)):
            values = np.array([getattr(found[step, name, scaled], key) for step in fitted])
            columns[f"{name}_{key}{'_scaled' if scaled else ''}"] = values
    return columns


def _columns(names: Sequence[str], found: Iterable[tuple], types: dict[str, type]) -> dict[str, np.ndarray]:
    values = dict(zip(names, zip(*found, strict=True), strict=True))
    return {name: np.array(values[name], dtype=types.get(name)) for name in names}

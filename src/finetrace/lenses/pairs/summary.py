"""The lens' table, headline numbers, curves and record. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetrace.lenses.pairs.acquisition import Age, age, resampled
from finetrace.lenses.pairs.scores import Group, Pairs, accuracy, groups, mean_margin, points
from finetrace.longtable import LongTable, known

TYPES = {"step": np.int64, "field": str, "phenomenon": str, "paradigm": str, "control": np.bool_, "statistic": str,
         "value": np.float64, "low": np.float64, "high": np.float64, "n": np.int64}
AGE = "age_of_acquisition"
CURVES = 25  # phenomena that MLflow draws


def table(steps: Sequence[int], scores: np.ndarray, pairs: Pairs, *, draws: int,
          seed: int) -> tuple[LongTable, dict[str, str]]:
    """All numbers, and why groups have no age: phenomenon or paradigm -> reason.

    steps: (step,) ascending;  scores: (step, pair, 2) float64 nats, of the good and of the bad sentence;  draws:
    resamplings behind the interval of the age. The step of an age is the last one.
    """
    worth = {"accuracy": points(scores[..., 0], scores[..., 1])}
    per_token = scores / pairs.tokens
    worth["accuracy_per_token"] = points(per_token[..., 0], per_token[..., 1])
    margins = scores[..., 0] - scores[..., 1]
    all_groups = groups(pairs)
    parts = {name: numbers for group in all_groups for name, numbers in group.parts.items()}
    drawn = resampled(worth["accuracy"], parts, draws, seed)
    rows: list[dict[str, Any]] = []
    reasons: dict[str, str] = {}
    for group in all_groups:
        statistics = {name: accuracy(values_of_pairs, group)
                      for name, values_of_pairs in worth.items()} | {"margin_nats": mean_margin(margins, group)}
        for statistic, values in statistics.items():
            rows += [_row(group, step, statistic, *numbers) for step, *numbers in zip(steps, *values, strict=True)]
        value, low, _ = statistics["accuracy"]
        age_of_group = age(np.asarray(steps), group, value, float(low[-1]), drawn)
        if age_of_group.reason:
            reasons[_label(group)] = age_of_group.reason
        else:
            rows.append(_row(group, steps[-1], AGE, age_of_group.value, age_of_group.low, age_of_group.high))
    return LongTable.of_rows(rows, TYPES), reasons


def metrics(accuracies: LongTable, steps: Sequence[int], pairs: Pairs) -> dict[str, float]:
    """Headline numbers of the last checkpoint: of the set without its control, and by phenomenon."""
    numbers: dict[str, float] = {"checkpoints": len(steps), "pairs": len(pairs.phenomena)}
    last = accuracies.select(step=steps[-1], field="", paradigm="")
    for statistic in ("accuracy", "accuracy_per_token", "margin_nats", AGE):
        numbers[statistic] = last.value(phenomenon="", statistic=statistic)
    for phenomenon, control in _phenomena(pairs):
        for statistic in ("accuracy", AGE):
            name = f"{statistic}/{_metric_name(phenomenon)}{'/control' if control else ''}"
            numbers[name] = last.value(phenomenon=phenomenon, control=control, statistic=statistic)
    return known(numbers)


def curves(numbers: LongTable, steps: Sequence[int], pairs: Pairs) -> dict[str, Any]:
    """What MLflow draws over steps: accuracy of the set and of its phenomena, at most `CURVES`."""
    part = numbers.select(field="", paradigm="", statistic="accuracy")
    drawn: dict[str, Any] = {"step": list(steps)}
    if len(part.select(phenomenon="")):
        drawn["accuracy"] = part.course(steps, phenomenon="")[:, 0]
    for phenomenon, control in _phenomena(pairs)[:CURVES]:
        name = f"accuracy/{_metric_name(phenomenon)}{'/control' if control else ''}"
        drawn[name] = part.course(steps, phenomenon=phenomenon, control=control)[:, 0]
    return drawn


def drawn(numbers: LongTable, steps: Sequence[int], pairs: Pairs, reasons: Mapping[str, str]) -> dict[str, Any]:
    """What figures show: per phenomenon its course (step, 3) and age, value, low, high, or the reason why there is
    none; per paradigm its accuracies (step,)."""
    courses, ages, paradigms = {}, {}, {}
    for phenomenon, control in _phenomena(pairs):
        part = numbers.select(field="", phenomenon=phenomenon, control=control)
        name = _shown(phenomenon, control)
        courses[name] = part.course(steps, paradigm="", statistic="accuracy")
        row = part.course(steps[-1:], paradigm="", statistic=AGE)[0]
        ages[name] = row if np.isfinite(row[0]) else np.full(3, np.nan)
        own_paradigms = dict.fromkeys(
            paradigm for group, paradigm, apart in zip(pairs.phenomena, pairs.paradigms, pairs.control, strict=True)
            if group == phenomenon and bool(apart) == control)
        for paradigm in own_paradigms:
            label = paradigm if paradigm == phenomenon else f"{phenomenon}: {paradigm}"
            paradigms[label] = part.course(steps, paradigm=paradigm, statistic="accuracy")[:, 0]
    return {"courses": courses, "ages": ages, "paradigms": paradigms,
            "reasons": {name: reasons.get(name, "") for name in courses}}


def _row(group: Group, step: int, statistic: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {"step": step, "field": group.field, "phenomenon": group.phenomenon, "paradigm": group.paradigm,
            "control": group.control, "statistic": statistic, "value": value, "low": low, "high": high,
            "n": group.pairs}


def _label(group: Group) -> str:
    """How a group is called in messages and figures."""
    name = f"{group.phenomenon}/{group.paradigm}" if group.paradigm else group.phenomenon or "all"
    return _shown(f"field {group.field}" if group.field else name, group.control)


def _shown(name: str, control: bool) -> str:
    return f"{name} (control)" if control else name


def _phenomena(pairs: Pairs) -> list[tuple[str, bool]]:
    return list(dict.fromkeys(zip(pairs.phenomena, np.asarray(pairs.control, dtype=bool).tolist(), strict=True)))


def _metric_name(name: str) -> str:
    """A name of a phenomenon as part of a metric's name, which MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)


__all__ = ["AGE", "Age", "curves", "drawn", "metrics", "table"]

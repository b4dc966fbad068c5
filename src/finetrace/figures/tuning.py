"""Figures of a search for hyper-parameters: history, importances, parallel coordinates."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.figures.style import GREY, colour, footnote, new_figure, styled

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

MARKERS = {"COMPLETE": ("o", 0, "finished"), "PRUNED": ("v", 1, "pruned"), "FAIL": ("x", 3, "failed")}


def all_figures(trials: "pa.Table", importances: dict[str, float], metric: str = "metric") -> dict[str, "Figure"]:
    """History, importances (where they can be judged) and parallel coordinates of a trials table."""
    rows = trials.to_pylist()
    for row in rows:
        row["params"], row["looks"] = json.loads(row["params_json"]), json.loads(row["intermediate_json"])
    figures = {"history": history(rows, metric), "parallel": parallel(rows, metric)}
    if importances:
        figures["importances"] = importance(importances)
    return figures


@styled
def history(rows: list[dict[str, Any]], metric: str) -> "Figure":
    """Validation metric per trial with the best so far; a pruned trial shows its last look."""
    figure, axes = new_figure(size=(8, 4.5), title="Search: validation " + metric + " per trial")
    axis = axes[0, 0]
    for state, (marker, number, name) in MARKERS.items():
        chosen = [(r["number"], _value(r)) for r in rows if r["state"] == state and _value(r) is not None]
        if chosen:
            axis.plot(*zip(*chosen, strict=True), marker, color=colour(number), label=name, markersize=8)
    done = sorted((r["number"], r["value"]) for r in rows if r["state"] == "COMPLETE")
    if done:
        axis.step([n for n, _ in done], np.maximum.accumulate([v for _, v in done]), where="post", color=GREY,
                  label="best so far")
    axis.set(xlabel="trial", ylabel=f"validation {metric}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return figure


@styled
def importance(importances: dict[str, float]) -> "Figure":
    """Share of the metric's variation that each hyper-parameter explains."""
    figure, axes = new_figure(size=(8, 0.9 + 0.5 * len(importances) + 0.8), title="What mattered in the search")
    names = sorted(importances, key=lambda n: importances[n])
    axes[0, 0].barh(names, [importances[n] for n in names], color=colour(0))
    axes[0, 0].set(xlabel="importance (PED-ANOVA, share of the variation; sums to 1)", xlim=(0, 1))
    footnote(figure, "Few trials give rough importances.")
    return figure


@styled
def parallel(rows: list[dict[str, Any]], metric: str) -> "Figure":
    """One line per trial across its hyper-parameters to its validation metric, which colours it;
    dashed where pruned."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    rows = [r for r in rows if _value(r) is not None and r["params"]]
    names = sorted({name for r in rows for name in r["params"]})
    figure, axes = new_figure(size=(9, 5), title="Search: settings tried")
    axis = axes[0, 0]
    if not rows:
        axis.text(0.5, 0.5, "no trial ended", ha="center", transform=axis.transAxes)
        return figure
    values = [v for r in rows if (v := _value(r)) is not None]
    norm = Normalize(min(values), max(max(values), min(values) + 0.01))
    positions = {name: _positions([r["params"].get(name) for r in rows]) for name in names}
    names.append(f"validation {metric}")
    positions[names[-1]] = _positions(values)
    for i, row in enumerate(rows):
        axis.plot(range(len(names)), [positions[n][0][i] for n in names], color=colormaps["viridis"](norm(values[i])),
                  linestyle="-" if row["state"] == "COMPLETE" else "--", linewidth=1.8)
    for x, name in enumerate(names):
        axis.axvline(x, color=GREY, linewidth=0.8)
        for at, text in positions[name][1]:
            axis.annotate(text, (x, at), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
    axis.set_xticks(range(len(names)), names)
    axis.set(yticks=[], ylim=(-0.05, 1.05), xlim=(-0.2, len(names) - 0.6))
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=axis, label=f"validation {metric}")
    footnote(figure, "Solid: finished trials; dashed: pruned or failed, coloured by their last look. Wide "
             "ranges: log scale.")
    return figure


def _value(row: dict[str, Any]) -> float | None:
    if row["value"] is not None:
        return row["value"]
    looks = row.get("looks") or {}
    return looks[max(looks, key=int)] if looks else None


def _positions(values: list[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights in [0, 1] of one hyper-parameter's values, and a few tick labels."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        kinds = sorted({str(v) for v in values})
        at = {k: (i + 0.5) / len(kinds) for i, k in enumerate(kinds)}
        return [at[str(v)] for v in values], [(at[k], k) for k in kinds]
    low, high = min(numbers), max(numbers)
    if low == high:
        return [0.5] * len(values), [(0.5, f"{low:.3g}")]
    logarithmic = low > 0 and high / low > 20
    scale = np.log(numbers) if logarithmic else np.array(numbers, dtype=float)
    heights = (scale - scale.min()) / (scale.max() - scale.min())
    distinct = sorted(set(numbers))
    shown = distinct if len(distinct) <= 5 else [low, high]
    return heights.tolist(), [(float(heights[numbers.index(v)]), f"{v:.3g}") for v in shown]

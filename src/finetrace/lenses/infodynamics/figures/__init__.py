"""The figures of the stage infodynamics, from its stored measurement."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace.lenses.infodynamics.figures import panels as figures
from finetrace.lenses.infodynamics.measures import Cartography, Dynamics, ResonanceNoveltySlope, curb, trend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TYPES = (Cartography, Dynamics, ResonanceNoveltySlope)
"""The classes that stand in the record."""
UNITS = {"jsd": "nats", "kl": "bits", "jeffreys": "bans (log10)"}
SPANS = (128, 56, 32)


def draw(record: Mapping[str, Any]) -> dict[str, "Figure"]:
    """What the stage measured, as name -> figure.

    record: name; measure, span, spans, window, examples_per_epoch, plateau (or None); changes, change points in
    examples; dynamics {novelty, transience, resonance: (example,)}; confidence (example,); slope, or None; train
    {examples, loss, accuracy} and evaluated, the same; probes {split: {steps, window, dynamics, map}}.
    """
    name, window = record["name"], record["window"]
    examples = np.arange(len(record["confidence"]))
    dynamics = _dynamics(record["dynamics"])
    smoothed = _dynamics({key: trend(values, window, record["span"]) for key, values in record["dynamics"].items()})
    common = {"examples_per_epoch": record["examples_per_epoch"], "unit": UNITS[record["measure"]]}
    marks = {"plateau": record["plateau"], "changes": record["changes"]}
    trends = {span: _dynamics({key: trend(record["dynamics"][key], window, span) for key in ("novelty", "resonance")})
              for span in record["spans"] or SPANS}
    slope = {} if record["slope"] is None else {
        "slope": figures.slope(curb(dynamics.novelty, window), curb(dynamics.resonance, window), record["slope"],
                               title=f"Resonance on novelty: {name}")}
    return {
        "signals": figures.signals(examples, dynamics, smoothed, window=window, **marks, **common,
                                   title=f"Information dynamics: {name}"),
        "smoothing": figures.smoothing(examples, dynamics, trends, title=f"Smoothing: {name}", **common),
        **slope,
        "learning": figures.learning(examples, smoothed.novelty, **_courses(record), confidence=record["confidence"],
                                     title=f"Performance and process: {name}", **marks, **common),
    } | {f"probe-{split}": _probe_set(measured, UNITS[record["measure"]], f"Probe set ({split}): {name}")
         for split, measured in record["probes"].items()}


def _courses(record: Mapping[str, Any]) -> dict[str, Any]:
    """The four learning curves: examples seen, and value."""
    return {f"{kind}_{key}": (record[part]["examples"], record[part][key])
            for kind, part in (("train", "train"), ("eval", "evaluated")) for key in ("loss", "accuracy")}


def _probe_set(measured: Mapping[str, Any], unit: str, title: str) -> "Figure":
    return figures.probe_set(measured["steps"], measured["dynamics"], measured["map"], window=measured["window"],
                             log_steps=not _evenly_spaced(measured["steps"]), unit=unit, title=title)


def _dynamics(signals: Mapping[str, np.ndarray]) -> Dynamics:
    """Signals in the form that figures take; none shows the spreads."""
    return Dynamics(**{name: signals.get(name, np.empty(0)) for name in Dynamics.__dataclass_fields__})


def _evenly_spaced(steps: np.ndarray) -> bool:
    """Whether looks come at equal distances (the last one may be off)."""
    gaps = np.diff(steps)[:-1]
    return len(gaps) > 0 and gaps.max() == gaps.min()

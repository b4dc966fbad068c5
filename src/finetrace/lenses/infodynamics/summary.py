"""What the lens infodynamics says about one trajectory: a table, headline numbers, curves. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetrace.lenses.infodynamics.length import absent, require_window
from finetrace.lenses.infodynamics.measures import (
    Cartography,
    ChangePoints,
    Dynamics,
    ResonanceNoveltySlope,
    cartography,
    change_points,
    curb,
    hurst_exponent,
    label_balance_plateau,
    mean_confidence,
    probe_resonance,
    resonance,
    resonance_novelty_slope,
    shuffled_order_null,
    smooth,
    softmax,
)

CURVE_POINTS = 1000  # rows of the decimated curves


@dataclass(frozen=True)
class TrainingDynamics:
    """Dynamics of the training logits; time = training example.

    dynamics: at the main window;  smoothed: the same through the adaptive filter;  further: the other windows;
    confidence: (example,);  epochs: (example,) float, epoch at which each example was seen;  examples_per_epoch;
    changes: change points of curbed novelty, positions counted from its start;  correct: (example,) bool, most probable
    class = label at the time;  absent: quantity that the series is too short for -> reason (`length.absent`); slope
    and changes are None then, the interval NaN, and the metrics not there.
    """

    window: int
    dynamics: Dynamics
    smoothed: Dynamics
    further: dict[int, Dynamics]
    slope: ResonanceNoveltySlope | None
    changes: ChangePoints | None
    confidence: np.ndarray
    correct: np.ndarray
    epochs: np.ndarray
    examples_per_epoch: float
    plateau: float
    metrics: dict[str, float]
    absent: dict[str, str]


@dataclass(frozen=True)
class ProbeDynamics:
    """Dynamics of the probe set of one split; time = look. steps: (look,);  dynamics: None with too few looks."""

    steps: np.ndarray
    window: int
    dynamics: Dynamics | None
    map: Cartography
    metrics: dict[str, float]


def training_dynamics(logits: np.ndarray, labels: np.ndarray, example_ids: np.ndarray, epochs: np.ndarray,
                      steps: np.ndarray, *, window: int, windows: Sequence[int] = (), measure: str = "jsd",
                      span: int = 56, permutations: int = 100, seed: int = 0) -> TrainingDynamics:
    """Everything about the training logits of one trajectory.

    logits: (example, class) in time order;  labels, example_ids, epochs, steps: (example,);  window, windows: in
    examples;  seed: of the shuffled-order null and the interval. Raises ValueError when the series is too short for
    the main window; what it is too short for besides is absent, with a reason.
    """
    probabilities = softmax(logits)
    require_window(len(probabilities), window)
    missing = absent(len(probabilities), window, windows)
    all_windows = [window, *(w for w in windows if w != window and f"window {w}" not in missing)]
    by_window = resonance(probabilities, all_windows, measure)
    main = by_window[window]
    inner = curb(main, window)
    slope = None
    if "slope" not in missing:
        null = shuffled_order_null(probabilities, window, measure, permutations=permutations, seed=seed)
        slope = _slope(inner, null, None if "slope_ci" in missing else 2 * window)
    changes = change_points(inner.novelty, block=window) if "change_points" not in missing else None
    plateau = label_balance_plateau(np.bincount(labels, minlength=probabilities.shape[1]))
    tail = max(1, len(inner.novelty) // 10)
    accuracy = probabilities.argmax(axis=1) == labels
    metrics = {
        "examples": len(probabilities), "window_examples": window,
        "window_steps": window * (steps[-1] - steps[0] + 1) / len(steps),
        "novelty_mean": inner.novelty.mean(), "novelty_first_tenth": inner.novelty[:tail].mean(),
        "novelty_last_tenth": inner.novelty[-tail:].mean(), "transience_mean": inner.transience.mean(),
        "resonance_mean": inner.resonance.mean(), "resonance_sd": inner.resonance.std(),
        "novelty_plateau": plateau, "confidence_last_tenth": probabilities.max(axis=1)[-tail:].mean(),
        "train_accuracy_last_tenth": accuracy[-tail:].mean(),
        "repeated_share": 1 - len(np.unique(example_ids)) / len(example_ids),
    }
    if slope is not None:
        metrics |= {"slope": slope.slope, "slope_r2": slope.r2, "slope_null_mean": slope.null_mean,
                    "slope_null_low": slope.null_low, "slope_null_high": slope.null_high, "slope_p": slope.p_value}
    if slope is not None and "slope_ci" not in missing:
        metrics |= {"slope_ci_low": slope.ci_low, "slope_ci_high": slope.ci_high}
    if changes is not None:
        metrics["change_points"] = len(changes.positions)
    if "hurst_novelty" not in missing and np.ptp(inner.novelty) > 0:
        metrics["hurst_novelty"] = hurst_exponent(inner.novelty).exponent
    per_epoch = len(epochs) / max(1e-9, float(epochs[-1] - epochs[0])) if len(epochs) > 1 else 1.0
    return TrainingDynamics(window, main, smooth(main, window, span), {w: by_window[w] for w in all_windows[1:]}, slope,
                            changes, mean_confidence(probabilities, window), accuracy, epochs, per_epoch, plateau,
                            {k: float(v) for k, v in metrics.items()}, missing)


def _slope(inner: Dynamics, null: np.ndarray, block: int | None) -> ResonanceNoveltySlope:
    """Slope beside its null; without blocks no interval, because that of independent points would be far too narrow."""
    fitted = resonance_novelty_slope(inner.novelty, inner.resonance, null, block=block)
    return fitted if block else replace(fitted, se=math.nan, ci_low=math.nan, ci_high=math.nan)


def probe_dynamics(logits: np.ndarray, labels: np.ndarray, steps: np.ndarray, *, window: int,
                   measure: str = "jsd") -> ProbeDynamics:
    """Within-example dynamics over looks at a fixed probe set, and its data map.

    logits: (look, example, class) in evaluation mode;  labels: (example,);  steps: (look,);  window: in looks.
    """
    probabilities = softmax(logits)
    dynamics = probe_resonance(probabilities, window, measure) if len(steps) >= 2 * window + 1 else None
    data_map = cartography(probabilities, labels)
    metrics = {"confidence": data_map.confidence.mean(), "variability": data_map.variability.mean(),
               "correctness": data_map.correctness.mean(),
               "never_right_share": (data_map.correctness == 0).mean()}
    if dynamics is not None:
        metrics |= {"novelty_mean": np.nanmean(dynamics.novelty), "resonance_mean": np.nanmean(dynamics.resonance)}
    return ProbeDynamics(steps, window, dynamics, data_map, {k: float(v) for k, v in metrics.items()})


def table(training: TrainingDynamics, probes: dict[str, ProbeDynamics]) -> dict[str, Any]:
    """Long table: one row per source, window and time. Columns: source (training, probe/<split>), window, time (example
    or optimiser step), epoch, novelty, transience, resonance and their sd in nats (jsd), smoothed_*, confidence."""
    parts: list[dict[str, Any]] = []
    length = len(training.confidence)
    for window, dynamics in {training.window: training.dynamics, **training.further}.items():
        main = window == training.window
        parts.append({"source": ["training"] * length, "window": np.full(length, window), "time": np.arange(length),
                      "epoch": training.epochs, **vars(dynamics),
                      **{f"smoothed_{name}": getattr(training.smoothed, name) if main else np.full(length, np.nan)
                         for name in ("novelty", "transience", "resonance")},
                      "confidence": training.confidence if main else np.full(length, np.nan)})
    for split, probe in probes.items():
        looks = len(probe.steps)
        blank = np.full(looks, np.nan)
        values = vars(probe.dynamics) if probe.dynamics else dict.fromkeys(vars(training.dynamics), blank)
        parts.append({"source": [f"probe/{split}"] * looks, "window": np.full(looks, probe.window), "time": probe.steps,
                      "epoch": blank, **values, "smoothed_novelty": blank, "smoothed_transience": blank,
                      "smoothed_resonance": blank, "confidence": blank})
    return {name: np.concatenate([np.asarray(p[name]) for p in parts]) for name in parts[0]}


def curves(training: TrainingDynamics, train_loss: np.ndarray) -> dict[str, np.ndarray]:
    """Decimated smoothed curves for plots and tracking.

    Columns: example, novelty, transience, resonance, confidence, train_loss, train_accuracy.

    train_loss: (example,) loss of each example; loss and accuracy are averaged over the window before each point.
    """
    length, w = len(training.confidence), training.window
    index = np.unique(np.linspace(w, length - w - 1, min(CURVE_POINTS, length - 2 * w)).round().astype(int))

    def averaged(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        return (sums[index + 1] - sums[index + 1 - w]) / w

    smoothed = {name: getattr(training.smoothed, name)[index] for name in ("novelty", "transience", "resonance")}
    return {"example": index, **smoothed, "confidence": training.confidence[index], "train_loss": averaged(train_loss),
            "train_accuracy": averaged(training.correct)}


def curbed_lists(training: TrainingDynamics) -> dict[str, list[float]]:
    """The three curbed lists as the original study writes them."""
    inner = curb(training.dynamics, training.window)
    return {name: [x if math.isfinite(x) else None for x in getattr(inner, name).tolist()]  # type: ignore[misc]
            for name in ("novelty", "transience", "resonance")}

"""The functions of the lenses in one place: `finetrace.lens.geometry.effective_rank(tokens)`."""

import importlib
from typing import Any

FUNCTIONS: dict[str, dict[str, str]] = {
    "geometry": {
        "effective_rank": "statistics", "cosine_similarities": "statistics", "covariance_trace": "statistics",
        "iso_score": "statistics", "participation_ratio": "statistics", "intrinsic_dimension": "statistics",
        "anisotropy": "anisotropy", "self_similarity": "anisotropy", "intra_sentence_similarity": "anisotropy",
        "cone_statistics": "cones"},
    "similarity": {
        "linear_cka": "measures", "svcca": "measures", "pwcca": "measures", "procrustes_similarity": "measures",
        "rsa": "measures"},
    "hulls": {"probe": "partition", "label_distances": "partition", "predict": "partition", "separable": "partition"},
    "probes": {
        "logistic_probe": "linear", "logits": "linear", "score": "linear", "majority_floor": "linear"},
    "infodynamics": {
        "resonance": "measures", "probe_resonance": "measures", "resonance_novelty_slope": "slope",
        "change_points": "changepoints", "hurst_exponent": "fractal", "cartography": "cartography",
        "jensen_shannon": "divergences", "softmax": "divergences"},
    "calibration": {
        "calibration": "measures", "intervals": "measures", "fit_temperature": "measures",
        "probabilities_of": "measures"},
    "features": {
        "feature_change": "change", "fisher_ratio": "change", "mean_norm": "change", "cosine_similarity": "change"},
    "convergence": {"correlation": "correlation", "links": "correlation"},
    "dynamics": {
        "step_of_gain": "gains", "area_under_curve": "gains", "steepest_rise": "gains",
        "multi_bootstrap": "resampling"},
    "pairs": {"points": "scores", "crossing": "acquisition"},
}
"""Lens -> function -> the module of its room, finetrace.lenses.LENS.MODULE, that has it."""


class Functions:
    """The functions of one lens, each loaded when it is first used."""

    def __init__(self, lens: str) -> None:
        self._lens = lens

    def __getattr__(self, name: str) -> Any:
        known = FUNCTIONS[self._lens]
        if name not in known:
            raise AttributeError(f"finetrace.lens.{self._lens} has no {name!r}; it has {', '.join(sorted(known))}")
        return getattr(importlib.import_module(f"finetrace.lenses.{self._lens}.{known[name]}"), name)

    def __dir__(self) -> list[str]:
        return sorted(FUNCTIONS[self._lens])


class Lenses:
    """The lenses by name."""

    def __getattr__(self, name: str) -> Functions:
        if name not in FUNCTIONS:
            raise AttributeError(f"finetrace.lens has no {name!r}; it has {', '.join(sorted(FUNCTIONS))}")
        return Functions(name)

    def __dir__(self) -> list[str]:
        return sorted(FUNCTIONS)


lens = Lenses()
"""`finetrace.lens`."""

"""Settings of the lens probes."""

from dataclasses import replace
from typing import Any, Literal

from finetrace.config.base import merge, require, settings

SPLITS = ("train", "validation", "test")
BY_LAYER = ("epochs", "learning_rate", "batch_size", "dropout")
WHOLE = ("epochs", "batch_size")


@settings
class ProbesSettings:
    """Classifiers on frozen sentence vectors, per layer and checkpoint."""

    head: Literal["logistic", "xlm", "roberta"] = "logistic"
    """Converged logistic regression, or a head of the French study trained with Adam."""
    vectors: Literal["cls", "mean"] = "cls"
    """Sentence vector: the token that the model's own classifier reads, or the mean over tokens; it must be in hidden.vectors."""
    train_split: str = "train"
    """Split whose rows train the probes; it must be in hidden.rows."""
    test_splits: list[str] = None  # type: ignore[assignment]
    """Splits on which probes are scored, by default validation; the first one gives metrics and figures."""
    layers: Literal["all"] | list[int] = "all"
    """Layers to probe, 0 being the embeddings; negative ones count from the last."""
    l2: list[float] = None  # type: ignore[assignment]
    """Logistic: L2 strengths per example to choose from on held-out training rows."""
    holdout: float = 0.2
    """Logistic: share of the training rows held out for that choice."""
    tolerance: float = 1e-5
    """Logistic: largest gradient entry of a converged fit."""
    max_iterations: int = 1000
    """Logistic: evaluations after which a fit is given up, and reported as not converged."""
    seeds: int = 1
    """Adam heads: trainings with different first weights, orders and dropout."""
    epochs: int = 30
    """Adam heads: passes over the training rows (the study's 30 for FlauBERT, 200 and 60 for CamemBERT)."""
    learning_rate: float = 1e-3
    """Adam heads."""
    batch_size: int = 32
    """Adam heads: examples per step."""
    dropout: float = 0.1
    """Adam heads: probability of zeroing an input."""
    parity: bool = False
    """Adam heads: exactly the study's Keras heads, with one logit and dropout on that logit; two classes only."""
    by_layer: dict[int, dict[str, float]] = None  # type: ignore[assignment]
    """Adam heads: changes for single layers, e.g. {12: {epochs: 60}}."""
    by_model: dict[str, dict[str, Any]] = None  # type: ignore[assignment]
    """Changes for single models, e.g. {camembert-base: {epochs: 200}}."""
    memory_mib: int = 1024
    """Memory for the problems computed at once, in MiB; it changes the time, not the results."""

    def __post_init__(self) -> None:
        for key, value in {"test_splits": ["validation"], "l2": [1e-4, 1e-3, 1e-2, 1e-1], "by_layer": {}, "by_model": {}}.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
        for split in (self.train_split, *self.test_splits):
            require(split in SPLITS, f"{split!r} is not a split; known: {', '.join(SPLITS)}")
        require(bool(self.test_splits), "test_splits: names no split; write e.g. [validation]")
        require(len(set(self.test_splits)) == len(self.test_splits), "test_splits: a split stands twice; remove one")
        require(self.train_split not in self.test_splits,
                f"test_splits: {self.train_split!r} is the split that trains the probes; leave it out (its accuracy is in the "
                "table anyway)")
        require(self.layers == "all" or bool(self.layers), "layers: names no layer; write all or e.g. [5, 7, 9, 11, 12]")
        require(bool(self.l2) and all(x > 0 for x in self.l2), f"l2: {self.l2} must hold numbers above 0")
        require(0 < self.holdout < 1, f"holdout: {self.holdout} is not between 0 and 1")
        require(self.tolerance > 0, f"tolerance: {self.tolerance} is not above 0")
        for key in ("max_iterations", "seeds", "epochs", "batch_size", "memory_mib"):
            require(getattr(self, key) >= 1, f"{key}: {getattr(self, key)} is less than 1")
        require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not above 0")
        require(0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)")
        require(not self.parity or self.head != "logistic",
                "parity: is about the study's heads; set head: xlm or roberta, or parity: false")
        require(not self.by_layer or self.head != "logistic",
                "by_layer: changes the training of Adam heads; set head: xlm or roberta, or remove it")
        for layer, changes in self.by_layer.items():
            for key in changes:
                require(key in BY_LAYER, f"by_layer.{layer}: {key!r} cannot change per layer; known: {', '.join(BY_LAYER)}")
                require(key not in WHOLE or changes[key] == int(changes[key]),
                        f"by_layer.{layer}.{key}: {changes[key]} is not a whole number")
            self.for_layer(layer)  # checks the values
        for model, changes in self.by_model.items():
            require("by_model" not in changes, f"by_model.{model}: by_model cannot stand inside itself")
            _changed(self, changes, f"probes.by_model.{model}")

    def for_layer(self, layer: int) -> "ProbesSettings":
        """The settings of one layer: by_layer applied."""
        changes = {k: int(v) if k in WHOLE else v for k, v in self.by_layer.get(layer, {}).items()}
        return replace(self, by_layer={}, by_model={}, **changes)  # type: ignore[arg-type]

    def for_model(self, model: str) -> "ProbesSettings":
        """The settings of one model: by_model applied."""
        return _changed(self, self.by_model.get(model, {}), f"params.yaml: probes.by_model.{model}")


def _changed(whole: ProbesSettings, changes: dict[str, Any], where: str) -> ProbesSettings:
    from finetrace.errors import FinetraceError

    try:
        return merge(whole, {"by_model": {}, **changes}, where)
    except FinetraceError as error:
        raise ValueError(str(error)) from None

"""Settings of the lens probes."""

from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from finetrace.config.base import merge, require, settings

SPLITS = ("train", "validation", "test")
BY_LAYER = ("epochs", "learning_rate", "batch_size", "dropout")
WHOLE = ("epochs", "batch_size")


Checkpoints = Literal["all", "ends"]


@settings
class MlpSettings:
    """Multi-layer perceptrons of Zhou and Srikumar (2022): the best of a grid, trained from several first weights."""

    hidden: list[list[int]] = None  # type: ignore[assignment]
    """Sizes of two hidden layers to choose from, by default all pairs of 32, 64, 128, 256; [64] is one hidden layer, []
    none."""
    l2: list[float] = None  # type: ignore[assignment]
    """L2 strengths to choose from, as scikit-learn's alpha; by default 1e-7 to 1 in decades."""
    one_layer: list[int] = None  # type: ignore[assignment]
    """Sizes of a network with one hidden layer, chosen and trained beside the others; none by default."""
    seeds: int = 5
    """Trainings of the chosen network with different first weights and orders."""
    search: Literal["full", "halving"] = "full"
    """full: every point of the grid is trained to its end, as the study did; halving: of the shapes of each strength
    the worse half is given up again and again, which on a CPU takes about half of the time and finds a point as good,
    though not always the same one."""
    folds: int = 1
    """1: the choice is made on one stratified share of the training rows; more: by cross-validation, as many times the
    work."""
    holdout: float = 0.2
    """That share."""
    max_epochs: int = 1000
    """Passes over the rows after which a training ends, if its loss has not stopped falling."""
    standardise: bool = False
    """Features with mean 0 and standard deviation 1; the study took them as they are."""
    checkpoints: Checkpoints = "all"
    """ends: the first and the last one only."""

    def __post_init__(self) -> None:
        sizes = (32, 64, 128, 256)
        for key, value in {"hidden": [[a, b] for a in sizes for b in sizes], "l2": [10.0**k for k in range(-7, 1)],
                           "one_layer": []}.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
        require(bool(self.hidden) and all(size >= 1 for shape in self.hidden for size in shape),
                f"hidden: {self.hidden} must name shapes of sizes above 0, e.g. [[32, 32], [64, 32]]")
        require(all(len(shape) <= 2 for shape in self.hidden), "hidden: a shape has more than two layers")
        require(len({tuple(shape) for shape in self.hidden}) == len(self.hidden),
                "hidden: a shape stands twice; remove one")
        require(bool(self.l2) and all(x >= 0 for x in self.l2), f"l2: {self.l2} must hold numbers from 0 on")
        require(all(size >= 1 for size in self.one_layer), f"one_layer: {self.one_layer} must hold sizes above 0")
        require(len(set(self.one_layer)) == len(self.one_layer), "one_layer: a size stands twice; remove one")
        for key in ("seeds", "folds", "max_epochs"):
            require(getattr(self, key) >= 1, f"{key}: {getattr(self, key)} is less than 1")
        require(0 < self.holdout < 1, f"holdout: {self.holdout} is not between 0 and 1")


@settings
class ControlSettings:
    """Control tasks of Hewitt and Liang (2019): random labels per word type; for whole texts per example."""

    probe: Literal["logistic", "mlp"] = "logistic"
    """Whose selectivity: that of the logistic probe, or of the networks in `mlp`."""
    checkpoints: Checkpoints = "all"
    """ends: the first and the last one only."""


@settings
class MdlSettings:
    """Online code of Voita and Titov (2020) with logistic probes."""

    fractions: list[float] = None  # type: ignore[assignment]
    """Ends of the blocks as shares of the training rows, ascending to 1; by default the published ones, 0.1 % to 100
    %."""
    checkpoints: Checkpoints = "all"
    """ends: the first and the last one only."""

    def __post_init__(self) -> None:
        if self.fractions is None:
            published = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0]
            object.__setattr__(self, "fractions", published)
        ends = [0.0, *self.fractions]
        require(len(ends) > 1 and all(a < b for a, b in pairwise(ends)) and ends[-1] == 1,
                f"fractions: {self.fractions} must ascend from above 0 to 1, e.g. [0.1, 0.5, 1.0]")


@settings
class ProbesSettings:
    """Classifiers on frozen vectors, per layer and checkpoint."""

    head: Literal["logistic", "xlm", "roberta"] = "logistic"
    """Converged logistic regression, or a head of the French study trained with Adam."""
    vectors: Literal["cls", "mean"] = "cls"
    """Sentence vector: the token that the model's own classifier reads, or the mean over tokens; it must be in
    hidden.vectors. Tasks of words take the vectors of their words."""
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
    subtest: float = 0.0
    """Share of the training rows (whole sentences) that the model was tuned on but no probe sees; scored as the split
    subtest, the others being subtrain. 0: all rows train."""
    mlp: MlpSettings | None = None
    """Multi-layer perceptrons beside the head; {} takes the study's grid. null: none."""
    control: ControlSettings | None = None
    """Control tasks and selectivity; {} takes the defaults. null: none."""
    mdl: MdlSettings | None = None
    """Minimum description length; {} takes the defaults. null: none."""
    memory_mib: int = 1024
    """Memory for the problems computed at once, in MiB; it changes the time, not the results."""

    def __post_init__(self) -> None:
        for key, value in {"test_splits": ["validation"], "l2": [1e-4, 1e-3, 1e-2, 1e-1], "by_layer": {},
                           "by_model": {}}.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
        for split in (self.train_split, *self.test_splits):
            require(split in SPLITS, f"{split!r} is not a split; known: {', '.join(SPLITS)}")
        require(bool(self.test_splits), "test_splits: names no split; write e.g. [validation]")
        require(len(set(self.test_splits)) == len(self.test_splits), "test_splits: a split stands twice; remove one")
        require(self.train_split not in self.test_splits,
                f"test_splits: {self.train_split!r} is the split that trains the probes; leave it out (its accuracy is "
                "in the table anyway)")
        require(self.layers == "all" or bool(self.layers),
                "layers: names no layer; write all or e.g. [5, 7, 9, 11, 12]")
        require(bool(self.l2) and all(x > 0 for x in self.l2), f"l2: {self.l2} must hold numbers above 0")
        require(0 < self.holdout < 1, f"holdout: {self.holdout} is not between 0 and 1")
        require(self.tolerance > 0, f"tolerance: {self.tolerance} is not above 0")
        for key in ("max_iterations", "seeds", "epochs", "batch_size", "memory_mib"):
            require(getattr(self, key) >= 1, f"{key}: {getattr(self, key)} is less than 1")
        require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not above 0")
        require(0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)")
        require(0 <= self.subtest < 1, f"subtest: {self.subtest} is not in [0, 1)")
        require(self.control is None or self.control.probe != "mlp" or self.mlp is not None,
                "control.probe: mlp needs the networks; add mlp: {}, or set probe: logistic")
        require(self.control is None or self.mlp is None or self.control.probe != "mlp" or self.mlp.checkpoints == "all"
                or self.control.checkpoints == "ends",
                "control.checkpoints: all needs the networks at all checkpoints; set it to ends, or mlp.checkpoints: "
                "all")
        require(self.control is None or self.control.probe == "mlp" or self.head == "logistic",
                f"control.probe: logistic is about the logistic head; set head: logistic instead of {self.head}, or "
                "probe: mlp")
        require(not self.parity or self.head != "logistic",
                "parity: is about the study's heads; set head: xlm or roberta, or parity: false")
        require(not self.by_layer or self.head != "logistic",
                "by_layer: changes the training of Adam heads; set head: xlm or roberta, or remove it")
        for layer, changes in self.by_layer.items():
            for key in changes:
                require(key in BY_LAYER, f"by_layer.{layer}: {key!r} cannot change per layer; known: "
                                         f"{', '.join(BY_LAYER)}")
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


def _changed(base: ProbesSettings, changes: dict[str, Any], where: str) -> ProbesSettings:
    from finetrace.errors import FinetraceError

    try:
        return merge(base, {"by_model": {}, **changes}, where)
    except FinetraceError as error:
        raise ValueError(str(error)) from None

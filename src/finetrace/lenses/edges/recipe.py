"""Recipes of edge probes: the head, its training and its selection, as three published or measured sets of settings."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints


@dataclass(frozen=True)
class Recipe:
    """How a probe is built, trained and chosen."""

    head: Literal["linear", "mlp", "fancy_mlp"] = "mlp"
    """What reads the span vectors: one linear layer; one or two hidden layers, each linear, tanh, layer norm,
    dropout."""
    projection: int = 0
    """Width to which tokens are projected before pooling, per span; 0: none."""
    pooling: Literal["attention", "mean", "max", "first", "last", "endpoint"] = "attention"
    """How a span's pieces become one vector; endpoint: the first and the last one side by side."""
    hidden: int = 256
    """Units of a hidden layer; 0: as many as the encoder is wide."""
    dropout: float = 0.0
    """Probability of zeroing a hidden unit while training (rounded to a multiple of 1/256); never while scoring."""
    normalisation: Literal["none", "fixed", "batch"] = "fixed"
    """Of each layer's states, by one mean and one standard deviation per layer: those of all tokens of the training
    sentences, or of the sentences of each batch, as AllenNLP's scalar mix has it; then predictions depend on what
    shares the batch."""
    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """A yes or no per class, any number of which may be yes; or exactly one class."""
    learning_rate: float = 1e-3
    """Adam's, of the weights."""
    scalar_learning_rate: float = 1e-2
    """Adam's, of the mix's scalars. Adam moves a scalar by about this much per step, which bounds how far weights can
    part."""
    amsgrad: bool = False
    """Adam with the largest second moment so far (Reddi et al. 2018)."""
    weight_decay: float = 0.0
    """L2 penalty that is added to the gradients, as in Adam of PyTorch."""
    clip: float = 0.0
    """Largest L2 norm of one probe's gradient; 0: no limit."""
    batch_sentences: int = 32
    """Sentences per step."""
    drop_last: bool = False
    """Whether the incomplete batch at the end of an epoch is left out."""
    max_steps: int = 2000
    """Optimiser steps; 0: `epochs` decides."""
    epochs: float = 0.0
    """Passes over the training sentences, where max_steps is 0."""
    validate_every: int = 200
    """Steps between two looks at the dev split; 0: once per epoch."""
    halve_patience: int = 2
    """Looks in a row without a better score after which the learning rates are halved; 0: never."""
    stop_patience: int = 0
    """Looks in a row without a better score after which a probe stops; 0: never."""
    min_gain: float = 0.0
    """What a score must gain (F1), or a loss must fall (nats), to count as better."""
    floor: float = 1e-6
    """A probe whose learning rate would fall below this stops."""
    dev_sentences: int = 5000
    """Sentences of the dev split that are looked at while training, chosen by the seed; 0: all."""
    dev_drop_last: bool = False
    """Parity with scripts that shuffle the dev split and lose its incomplete last batch, while training; what is
    reported of the kept probe has every sentence."""
    select: Literal["best", "last"] = "best"
    """Which parameters are kept: those of the best look, or the last."""
    criterion: Literal["f1", "loss"] = "f1"
    """What is best: micro F1 over all target and class decisions, or the loss."""
    twin_spans: bool = False
    """Parity: tasks of one span are given it twice, each with a pooler of its own."""

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            _require(getattr(self, name) in known, f"{name}: {getattr(self, name)!r} is none of {', '.join(known)}")
        for name in ("projection", "hidden", "max_steps", "validate_every", "halve_patience", "stop_patience",
                     "dev_sentences"):
            _require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative")
        for name in ("weight_decay", "clip", "min_gain", "floor", "epochs"):
            _require(getattr(self, name) >= 0, f"{name}: {getattr(self, name)} is negative")
        for name in ("learning_rate", "scalar_learning_rate"):
            _require(getattr(self, name) > 0, f"{name}: {getattr(self, name)} is not above 0")
        _require(0 <= self.dropout < 0.99, f"dropout: {self.dropout} is not in [0, 0.99)")
        _require(self.batch_sentences >= 1, f"batch_sentences: {self.batch_sentences} is less than 1")
        _require((self.max_steps > 0) != (self.epochs > 0),
                 f"max_steps: {self.max_steps} and epochs: {self.epochs} contradict each other; set one of them and "
                 "the other to 0")

    def steps(self, sentences: int) -> int:
        """Optimiser steps of a training on so many sentences."""
        return self.max_steps or max(1, round(self.epochs * self.steps_per_epoch(sentences)))

    def steps_per_epoch(self, sentences: int) -> int:
        """Batches of one pass; one at least."""
        full_batches, remaining = divmod(sentences, self.batch_sentences)
        return max(1, full_batches + bool(remaining and not self.drop_last))

    def look_every(self, sentences: int) -> int:
        """Steps between two looks at the dev split."""
        return self.validate_every or self.steps_per_epoch(sentences)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


_CHOICES = {f.name: get_args(f.type) for f in fields(Recipe) if get_args(f.type)}
RECIPES = {
    # the study as it was run, with dropout off while scoring: frozen encoder, mix with batch statistics, 20 epochs, the
    # last kept
    "seed-compat": Recipe(hidden=0, dropout=0.2, normalisation="batch", learning_rate=5e-5, scalar_learning_rate=5e-5,
                          drop_last=True, max_steps=0, epochs=20, validate_every=0, halve_patience=0, select="last",
                          dev_sentences=0, twin_spans=True),
    # Tenney et al. 2019; validations and length are those of their large tasks
    "tenney": Recipe(projection=256, hidden=256, dropout=0.3, normalisation="none", learning_rate=1e-4,
                     scalar_learning_rate=1e-4, amsgrad=True, clip=5.0, max_steps=250_000, validate_every=1000,
                     halve_patience=5, stop_patience=20),
    # the same budget for every task, scalars that can move within it, the best of ten looks
    "fast": Recipe(dev_sentences=1000),
}


def recipe_of(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A named recipe with some fields changed. Raises ValueError naming an unknown recipe, field or value and the
    fix."""
    if name not in RECIPES:
        raise ValueError(f"recipe: {name!r} is none of {', '.join(RECIPES)}")
    base, changes = RECIPES[name], dict(changes or {})
    kinds = get_type_hints(Recipe)
    for key, value in changes.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(kinds))}"
            raise ValueError(f"changes: unknown key {key!r}; {hint}")
        if key not in _CHOICES and not _fits(value, kinds[key]):
            raise ValueError(f"changes.{key}: {value!r} is not {_NAMES[kinds[key]]}")
        if kinds[key] is float:
            changes[key] = float(value)
    if changes.get("max_steps") and "epochs" not in changes:  # naming one of the two unsets the other
        changes["epochs"] = 0.0
    if changes.get("epochs") and "max_steps" not in changes:
        changes["max_steps"] = 0
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise ValueError(f"changes.{error}") from None


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The whole recipe as plain values."""
    return asdict(recipe)


_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}


def _fits(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int) or (kind is float and isinstance(value, float))

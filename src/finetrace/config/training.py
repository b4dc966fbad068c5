"""Settings of training: hyper-parameters, what is recorded, methods, and the search for better hyper-parameters."""

from typing import Literal

from finetrace.config.base import require, settings

Schedule = str | dict[str, int | list[int]]
"""When something happens: log2 (0, 1, 2, 4, ...), epochs, {every: n}, {steps: [...]}, none; the ends are always in."""


def require_schedule(key: str, value: Schedule) -> None:
    """For `__post_init__`: reject a schedule that never happens or has the wrong shape."""
    if isinstance(value, dict) and set(value) == {"every"}:
        every = value["every"]
        require(isinstance(every, int) and every >= 1, f"{key}.every: {every} is not a number of steps of 1 or more")
    elif isinstance(value, dict) and set(value) == {"steps"}:
        steps = value["steps"]
        require(isinstance(steps, list) and all(s >= 0 for s in steps),
                f"{key}.steps: {steps} is not a list of steps, e.g. [10, 100]")
    else:
        require(value in ("log2", "epochs", "none"),
                f"{key}: {value!r} is not a schedule; use log2, epochs, none, {{every: n}} or {{steps: [...]}}")


@settings
class TrainSettings:
    """Hyper-parameters of one fine-tuning."""

    learning_rate: float = 5e-5
    """Peak learning rate."""
    batch_size: int = 16
    """Examples per optimiser step and process (split into micro-batches by `accumulate`)."""
    accumulate: int = 1
    """Micro-batches per optimiser step; must divide `batch_size`."""
    epochs: float = 3.0
    """Passes over the training rows."""
    max_steps: int = 0
    """Stop after this many optimiser steps; 0: `epochs` decides. The learning-rate schedule spans the steps run."""
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    """Learning-rate schedule after the warm-up."""
    warmup: float = 0.0
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW's weight decay (not on biases and norms)."""
    beta2: float = 0.999
    """AdamW's second-moment decay."""
    max_grad_norm: float = 1.0
    """Gradient clipping (L2 norm); 0 switches it off."""
    max_length: int = 128
    """Longest input in tokens; longer ones are truncated."""
    order: Literal["length", "random"] = "length"
    """`length` shuffles and then groups examples of similar length (less padding); `random` only shuffles."""
    dropout: float | None = None
    """Dropout of the encoder and head; by default the model's own."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on a GPU that has it, else fp32."""
    early_stopping: int = 0
    """Stop after this many evaluations without a better metric; 0 never stops."""
    keep: Literal["last", "best"] = "last"
    """Which weights the final metrics speak of; `best` (by the metric on validation) is also kept as a checkpoint."""
    pieces: Literal["mean", "first"] = "mean"
    """Tasks of words: the vector of a word is the mean of its pieces' vectors, or that of its first piece; the lenses follow."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive")
        require(self.batch_size >= 1, f"batch_size: {self.batch_size} is less than 1")
        require(self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
                f"accumulate: {self.accumulate} does not divide batch_size {self.batch_size}")
        require(0 < self.epochs < float("inf"), f"epochs: {self.epochs} is not a positive number")
        require(0 <= self.warmup < 1, f"warmup: {self.warmup} is a share of the steps, in [0, 1)")
        require(self.max_steps >= 0, "max_steps: must not be negative")
        require(0 < self.beta2 < 1, f"beta2: {self.beta2} is not between 0 and 1")
        require(self.weight_decay >= 0, f"weight_decay: {self.weight_decay} is negative")
        require(self.max_grad_norm >= 0, f"max_grad_norm: {self.max_grad_norm} is negative; 0 switches clipping off")
        require(self.dropout is None or 0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)")
        require(self.early_stopping >= 0, f"early_stopping: {self.early_stopping} is negative; 0 never stops")
        require(self.max_length >= 4, f"max_length: {self.max_length} tokens leave no room for a text")


@settings
class RecordSettings:
    """What a fine-tuning records besides its final metrics."""

    signals: bool = True
    """Per-example logits and losses at every step, as computed in training mode before the update."""
    probe_rows: int = 64
    """Examples of each of train and validation whose logits are taken in evaluation mode on the `probe` schedule; in tasks of
    words, sentences with about as many."""
    probe: Schedule = "log2"
    """When the probe set is looked at."""
    evaluate: Schedule = "epochs"
    """When the validation rows are evaluated."""
    checkpoints: Schedule = "log2"
    """When weights are kept; step 0 and the last always."""
    resume_seconds: float = 30.0
    """A killed run loses at most about this much work; 0 saves at every step (for tests)."""

    def __post_init__(self) -> None:
        for key in ("probe", "evaluate", "checkpoints"):
            require_schedule(key, getattr(self, key))
        require(self.probe_rows >= 0, f"probe_rows: {self.probe_rows} is negative")
        require(self.resume_seconds >= 0, f"resume_seconds: {self.resume_seconds} is negative")


@settings
class MethodSettings:
    """How a classifier is trained."""

    kind: Literal["ft"] = "ft"
    """`ft`: fine-tune encoder and head together."""
    settings: Literal["fixed", "tuned"] = "fixed"
    """`fixed` takes the study's own numbers (train), `tuned` searches first (tune)."""
    train: dict[str, float | int | str | None] | None = None
    """Changes of `train` for this method."""


@settings
class Dimension:
    """One searched hyper-parameter: a range or a list of choices."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Draw on a logarithmic scale."""
    type: Literal["float", "int"] = "float"
    """Whether values are whole numbers."""
    choices: list[float | int | str] | None = None
    """The values to choose from, instead of a range."""

    def __post_init__(self) -> None:
        if self.choices is not None:
            require(self.low is None and self.high is None, "choices and low/high exclude each other; remove one")
            require(len(self.choices) > 0, "choices: is empty")
            # YAML 1.1 reads 5e-5 as a text; a search must see the number
            object.__setattr__(self, "choices", [_number(c) for c in self.choices])
        else:
            require(self.low is not None and self.high is not None, "give low and high, or choices")
            assert self.low is not None and self.high is not None
            require(self.low <= self.high, f"low {self.low} is above high {self.high}")
            require(not self.log or self.low > 0, f"low: {self.low} is not positive, as log: true needs")


def _number(value: float | int | str) -> float | int | str:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@settings
class TuneSettings:
    """The search for better hyper-parameters (methods with `settings: tuned`)."""

    trials: int = 8
    """Number of trials that end (finished or pruned)."""
    space: dict[str, Dimension] | None = None
    """Key of `train` -> what to try."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Optuna's sampler; seeded from the study's seed."""
    startup_trials: int = 4
    """Random trials before the sampler and the pruner start to judge."""
    pruner: Literal["median", "none"] = "median"
    """`median` stops a trial whose metric is below the median of the earlier ones at the same step."""
    evaluations: int = 4
    """Evaluations per trial on which pruning is decided."""
    max_rows: int = 0
    """Largest number of training rows per trial; 0 takes all."""
    workers: int = 1
    """Processes that share the search; with more than one the order of trials depends on the machine."""

    def __post_init__(self) -> None:
        require(self.trials >= 1, f"trials: {self.trials} is less than 1")
        require(self.workers >= 1, f"workers: {self.workers} is less than 1")
        require(self.evaluations >= 1, f"evaluations: {self.evaluations} is less than 1")
        known = set(TrainSettings.__dataclass_fields__)
        for key in self.space or {}:
            require(key in known, f"space.{key}: is not a key of train; known: {', '.join(sorted(known))}")

"""Settings of training: hyper-parameters, what is recorded, methods, and the search for better hyper-parameters."""

from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import parse_qs, urlsplit

from finetrace.config.base import parse, require, settings
from finetrace.errors import FinetraceError, hide_passwords

Schedule = str | dict[str, int | list[int]]
"""When something happens: log2 (0, 1, 2, 4, ...), epochs, {every: n}, {log: n} (n steps from 1 to the last, evenly on a
logarithmic scale), {steps: [...]}, none; the ends are always in."""


def require_schedule(key: str, value: Schedule) -> None:
    """For `__post_init__`: reject a schedule that never happens or has the wrong shape."""
    if isinstance(value, dict) and set(value) == {"every"}:
        every = value["every"]
        require(isinstance(every, int) and every >= 1, f"{key}.every: {every} is not a number of steps of 1 or more")
    elif isinstance(value, dict) and set(value) == {"log"}:
        number = value["log"]
        require(isinstance(number, int) and number >= 2, f"{key}.log: {number} is not a number of steps of 2 or more")
    elif isinstance(value, dict) and set(value) == {"steps"}:
        steps = value["steps"]
        require(isinstance(steps, list) and all(s >= 0 for s in steps),
                f"{key}.steps: {steps} is not a list of steps, e.g. [10, 100]")
    else:
        require(value in ("log2", "epochs", "none"),
                f"{key}: {value!r} is not a schedule; use log2, epochs, none, {{every: n}}, {{log: n}} "
                f"or {{steps: [...]}}")


@settings
class TrainSettings:
    """Hyper-parameters of one fine-tuning."""

    LATER = ("class_weights", "label_smoothing", "thresholds")
    """Keys that came after results had been made (`config.written`)."""
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
    head: Literal["family", "linear"] = "family"
    """Tasks of whole texts: the family's own classification head, or one linear layer on the raw sentence token.
    (Tasks of words always have a linear layer on their words.)"""
    head_scale: float = 1.0
    """The head's weight is multiplied by this before the first step (after the linear probe, where there is one)."""
    head_scale_bias: bool = False
    """Whether `head_scale` multiplies the bias too."""
    lora_rank: int = 8
    """Methods lora and lp-lora: rank of the adapters."""
    lora_alpha: float = 8.0
    """Methods lora and lp-lora: adapters count alpha / rank times."""
    lora_dropout: float = 0.0
    """Methods lora and lp-lora: dropout before the adapters."""
    lora_targets: tuple[str, ...] | None = None
    """Methods lora and lp-lora: names of the adapted linear layers; by default the query and value projections."""
    lp_folds: int = 5
    """Methods lp, lp-ft and lp-lora: folds of the cross-validation that chooses the probe's L2 strength."""
    lp_strengths: tuple[float, float, int] = (1e-4, 1e4, 10)
    """Methods lp, lp-ft and lp-lora: smallest C, largest C, and how many, evenly on a logarithmic scale;
    larger is weaker L2."""
    lp_standardise: bool = False
    """Methods lp, lp-ft and lp-lora: fit the probe on standardised features (folded back into weight and bias)."""
    lp_parity: bool = False
    """Methods lp, lp-ft and lp-lora: the probe as published: scikit-learn's L-BFGS at its tolerance, unshuffled folds,
    and heads of two classes at half their scale."""
    pieces: Literal["mean", "first"] = "mean"
    """Tasks of words: the vector of a word is the mean of its pieces' vectors, or that of its first piece;
    the lenses follow."""
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """How much examples of a class count in the loss: `balanced` makes all classes count the same, by what train has
    of them; or weights by name, 1 where a class is not named."""
    label_smoothing: float = 0.0
    """This share of each label is spread over all classes in the loss, in [0, 1)."""
    thresholds: Literal["half", "chosen"] = "half"
    """Two classes, or any number of them per example: `chosen` also chooses, on validation, the probability from which
    on an example has the class, so that F1 is highest, and reports validation and test with it beside those of one
    half."""

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
        require(self.head_scale > 0, f"head_scale: {self.head_scale} is not positive")
        require(self.lora_rank >= 1, f"lora_rank: {self.lora_rank} is less than 1")
        require(self.lora_alpha > 0, f"lora_alpha: {self.lora_alpha} is not positive")
        require(0 <= self.lora_dropout < 1, f"lora_dropout: {self.lora_dropout} is not in [0, 1)")
        require(self.lora_targets is None or len(self.lora_targets) > 0,
                "lora_targets: is empty; name a layer, or remove it")
        require(self.lp_folds >= 2, f"lp_folds: {self.lp_folds} is less than 2")
        low, high, count = self.lp_strengths
        require(0 < low <= high and count >= 1, "lp_strengths: give the smallest C (above 0), the "
                "largest, and how many")
        require(0 <= self.label_smoothing < 1, f"label_smoothing: {self.label_smoothing} is not in [0, 1)")
        weights = self.class_weights if isinstance(self.class_weights, dict) else {}
        for name, weight in weights.items():
            require(weight > 0, f"class_weights.{name}: {weight} is not positive")
        require(self.class_weights is None or self.class_weights == "balanced" or bool(weights),
                "class_weights: is empty; give balanced, or {name: weight}")
        require(self.max_length >= 4, f"max_length: {self.max_length} tokens leave no room for a text")


@settings
class RecordSettings:
    """What a fine-tuning records besides its final metrics."""

    signals: bool = True
    """Per-example logits and losses at every step, as computed in training mode before the update."""
    probe_rows: int = 64
    """Examples of each of train and validation whose logits are taken in evaluation mode on the `probe` schedule; in
    tasks of words, sentences with about as many."""
    probe: Schedule = "log2"
    """When the probe set is looked at."""
    evaluate: Schedule = "epochs"
    """When the validation rows are evaluated."""
    checkpoints: Schedule = "log2"
    """When weights are kept; step 0 and the last always."""
    resume_seconds: float = 30.0
    """A killed run loses at most about this much work; 0 saves at every step (for tests)."""
    on_nonfinite: Literal["stop", "record"] = "stop"
    """What the first loss or gradient that is NaN or infinite does: `stop` ends the training with an error that names
    step, rows and remedy; `record` goes on, as a study of divergence needs it."""

    def __post_init__(self) -> None:
        for key in ("probe", "evaluate", "checkpoints"):
            require_schedule(key, getattr(self, key))
        require(self.probe_rows >= 0, f"probe_rows: {self.probe_rows} is negative")
        require(self.resume_seconds >= 0, f"resume_seconds: {self.resume_seconds} is negative")


@settings
class MethodSettings:
    """How a classifier is trained."""

    kind: Literal["ft", "lp", "lp-ft", "lora", "lp-lora"] = "ft"
    """`ft`: fine-tune encoder and head together;  `lp`: fit a linear head on the frozen encoder (linear probing);
    `lp-ft`: first lp, then ft from its head;  `lora`: train low-rank adapters and the head;  `lp-lora`: first lp,
    then lora from its head."""
    settings: Literal["fixed", "tuned"] = "fixed"
    """`fixed` takes the study's own numbers (train), `tuned` searches first (tune)."""
    train: dict[str, Any] | None = None
    """Changes of `train` for this method."""
    by_task: dict[str, dict[str, Any]] | None = None
    """Changes of `train` for this method on some tasks: task -> changes; they come last."""

    def __post_init__(self) -> None:
        require(self.kind != "lp" or self.settings == "fixed", "settings: a linear probe chooses its one strength by "
                                                               "cross-validation; with kind: lp leave settings: fixed")

    @property
    def probes(self) -> bool:
        """Whether the head is fitted on the frozen encoder first."""
        return self.kind.startswith("lp")

    @property
    def adapts(self) -> bool:
        """Whether adapters are trained instead of the encoder."""
        return self.kind.endswith("lora")


def require_value(key: str, value: Any) -> None:
    """For `__post_init__`: reject what one key of `train` cannot be, whatever the others are. Raises ValueError."""
    countable = isinstance(value, int | float) and value >= 1
    fitting = {"accumulate": {"batch_size": value if countable else 1}, "batch_size": {"accumulate": 1}}.get(key, {})
    try:
        parse(TrainSettings, {**fitting, key: value}, "")
    except FinetraceError as error:
        raise ValueError(str(error).splitlines()[0].removeprefix(": ")) from None


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
    choices: list[Any] | None = None
    """The values to choose from, instead of a range: numbers, names or truth values, but no lists."""

    def __post_init__(self) -> None:
        if self.choices is not None:
            require(self.low is None and self.high is None, "choices and low/high exclude each other; remove one")
            require(len(self.choices) > 0, "choices: is empty")
            for choice in self.choices:
                require(isinstance(choice, bool | int | float | str),
                        f"choices: {choice!r} is none of what a search can "
                        "try, which are numbers, names and truth values; set it in `train`, or compare methods that "
                        "differ in it")
            # YAML 1.1 reads 5e-5 as a text; a search must see the number
            object.__setattr__(self, "choices", [_number(c) for c in self.choices])
        else:
            require(self.low is not None and self.high is not None, "give low and high, or choices")
            assert self.low is not None and self.high is not None
            require(self.low <= self.high, f"low {self.low} is above high {self.high}")
            require(not self.log or self.low > 0, f"low: {self.low} is not positive, as log: true needs")
            for name, end in (("low", self.low), ("high", self.high)):
                require(self.type == "float" or float(end).is_integer(),
                        f"{name}: {end} is no whole number, as type: int needs")

    @property
    def ends(self) -> list[bool | float | int | str]:
        """The values between which all others lie: smallest and largest, or all choices."""
        if self.choices is not None:
            return self.choices
        return [int(end) if self.type == "int" else end for end in (self.low, self.high) if end is not None]


def _number(value: bool | float | int | str) -> bool | float | int | str:
    if isinstance(value, bool):
        return value
    try:
        return int(value) if isinstance(value, int) else float(value)
    except ValueError:
        return str(value)


@settings
class TuneSettings:
    """The search for better hyper-parameters (methods with `settings: tuned`)."""

    LATER = ("storage", "heartbeat")
    """Keys that came after results had been made (`config.written`)."""
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
    storage: str | None = None
    """PostgreSQL database that keeps the trials, postgresql://USER@HOST/DATABASE, for workers on several machines; by
    default a journal file. The password comes from the environment (PGPASSWORD) or ~/.pgpass."""
    heartbeat: int = 30
    """With `storage`: seconds after which a worker says again that it lives; after three missed its trial is tried
    again."""

    def __post_init__(self) -> None:
        require(self.heartbeat >= 1, f"heartbeat: {self.heartbeat} is less than 1 second")
        if self.storage is not None:
            _require_database(self.storage)
        require(self.trials >= 1, f"trials: {self.trials} is less than 1")
        require(self.workers >= 1, f"workers: {self.workers} is less than 1")
        require(self.evaluations >= 1, f"evaluations: {self.evaluations} is less than 1")
        known = set(TrainSettings.__dataclass_fields__)
        for key in self.space or {}:
            require(key != "model", "space.model: a search is about one model, on whose folder its stage depends; name "
                    "the models in `runs`: each has its own search, and the atlas compares them")
            require(key in known, f"space.{key}: is not a key of train; known: {', '.join(sorted(known))}")
        for key, dimension in (self.space or {}).items():
            _require_dimension(key, dimension)


def _require_database(address: str) -> None:
    """For `__post_init__`: the address of a PostgreSQL database, without a password."""
    try:
        parts = urlsplit(address)
        secret = parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        raise ValueError("storage: is no address; write postgresql://USER@HOST/DATABASE") from None
    require(parts.scheme in ("postgresql", "postgresql+psycopg2") and len(parts.path) > 1,
            f"storage: {hide_passwords(address)} is no PostgreSQL database; write postgresql://USER@HOST/DATABASE, or "
            "leave it out: a journal file serves the processes of one machine")
    require(not secret, f"storage: {hide_passwords(address)} has a password in it, and a study is there to be shown; "
            "leave it out, and set PGPASSWORD or write it to ~/.pgpass")


def _require_dimension(key: str, dimension: Dimension) -> None:
    """For `__post_init__`: whatever is drawn must be a value that the key can have."""
    kind = get_type_hints(TrainSettings)[key]
    kinds = {kind, *get_args(kind)}
    if dimension.choices is None:
        require(bool(kinds & {int, float}), f"space.{key}: has no range; give `choices`" if bool in kinds or Literal is
                get_origin(kind) else f"space.{key}: is a list, and a search tries numbers and names; set it in train")
        require(float in kinds or dimension.type == "int", f"space.{key}: is a whole number; add type: int")
    for value in dimension.ends:
        try:
            require_value(key, value)
        except ValueError as error:
            raise ValueError(f"space.{key}: {error}; every value that can be drawn must be one that train.{key} can "
                             "have") from None

"""Settings of the lens cloze: which facts a model's masked-word predictions know, layer by layer."""

from dataclasses import field
from typing import Literal

from finetrace.config.base import require, settings

Readout = Literal["own", "trained", "tuned"]
Checkpoints = Literal["all", "ends"] | list[int]


def _check_training(training: "HeadsSettings | TunedSettings") -> None:
    for key in ("steps", "batch", "patience", "evaluations"):
        require(getattr(training, key) >= 1, f"{key}: {getattr(training, key)} is less than 1")
    require(training.learning_rate > 0, f"learning_rate: {training.learning_rate} is not positive")
    require(training.min_delta >= 0, f"min_delta: {training.min_delta} is negative")
    require(0 <= training.warmup < 1, f"warmup: {training.warmup} is not in [0, 1)")
    require(training.weight_decay >= 0, f"weight_decay: {training.weight_decay} is negative")


@settings
class HeadsSettings:
    """Masked-word heads of single layers (Wallat et al. 2020), decoder tied to the word embeddings and frozen.

    The defaults suit small worlds; published for BERT-base: steps 60000, batch 614 (8 blocks of 512 tokens),
    learning_rate 5e-5.
    """

    steps: int = 300
    """Optimiser steps at most."""
    batch: int = 256
    """Masked positions per step."""
    learning_rate: float = 2e-3
    """Peak of AdamW's rate, which rises and falls linearly."""
    warmup: float = 1 / 12
    """Share of the steps in which it rises."""
    init: Literal["pretrained", "fresh"] = "pretrained"
    """First values of the transform: the model's own head, or random numbers."""
    texts: int = 2000
    """Texts drawn from the corpus; 0 takes all. The tuned maps learn from the same."""
    held_out: float = 0.1
    """Share of these texts on which the best head of a layer is chosen."""
    evaluations: int = 40
    """How often the held-out loss is measured."""
    min_delta: float = 0.01
    """Nats by which it must fall to count as falling."""
    patience: int = 15
    """Measurements without a fall after which a layer stops."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        _check_training(self)
        require(self.texts == 0 or self.texts >= 2,
                f"texts: {self.texts} cannot be parted into training and choice; 0 takes all")
        require(0 < self.held_out < 1, f"held_out: {self.held_out} is not between 0 and 1")


@settings
class TunedSettings:
    """Affine maps of single layers into the model's own head (Belrose et al. 2023), towards its final predictions."""

    steps: int = 300
    """Optimiser steps at most."""
    batch: int = 256
    """Masked positions per step."""
    learning_rate: float = 2e-3
    """Peak of AdamW's rate, which rises and falls linearly."""
    warmup: float = 1 / 12
    """Share of the steps in which it rises."""
    evaluations: int = 40
    """How often the held-out divergence is measured."""
    min_delta: float = 0.01
    """Nats by which it must fall to count as falling."""
    patience: int = 15
    """Measurements without a fall after which a layer stops."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        _check_training(self)


@settings
class ClozeSettings:
    """Cloze probing (Petroni et al. 2019) of every checkpoint and layer."""

    readouts: tuple[Readout, ...] = ("own", "trained", "tuned")
    """What reads a layer: the model's own masked-word head; a head trained for the layer; an affine map into the own
    head."""
    checkpoints: Checkpoints = "all"
    """Which recorded checkpoints: all, the first and last, or these steps; first and last are always in."""
    facts: str = ""
    """What is asked: an entry of `facts` or `fact_files`."""
    corpus: str = "world"
    """Texts on which heads of single layers are trained: world, an entry of `corpora`, or a task."""
    vocabulary: str = "common"
    """Among which words objects are ranked: common (whole words but function words), full, or a file with one word per
    line."""
    heads: HeadsSettings = field(default_factory=HeadsSettings)
    tuned: TunedSettings = field(default_factory=TunedSettings)
    heads_checkpoints: Checkpoints = "all"
    """Of these, the checkpoints at which the read-outs trained and tuned are made, too."""
    batch_tokens: int = 8192
    """Tokens per forward pass, padding included."""
    memory_mib: int = 512
    """Memory of the scores of all words that are held at once."""
    dtype: Literal["float32", "float16"] = "float32"
    """Numbers of the cached states that heads learn from; float16 halves the space."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that has it. Scores of words are always fp32."""
    lama_compat: bool = False
    """Read what is attached to the mask as the original LAMA did, and leave out objects whose spelling the tokenizer
    changes."""
    top: int = 5
    """Best words that are kept per fact and layer."""

    def __post_init__(self) -> None:
        require(bool(self.readouts) and len(set(self.readouts)) == len(self.readouts),
                f"readouts: {list(self.readouts)} must name each of own, trained, tuned at most once, and one at least")
        require(bool(self.vocabulary), "vocabulary: write common, full or a file")
        for key, least in (("batch_tokens", 16), ("memory_mib", 1), ("top", 1)):
            require(getattr(self, key) >= least, f"{key}: {getattr(self, key)} is less than {least}")
        for key in ("checkpoints", "heads_checkpoints"):
            if isinstance(steps := getattr(self, key), list):
                require(all(step >= 0 for step in steps), f"{key}: {steps} is not a list of steps")

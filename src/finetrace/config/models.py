"""Settings of models: made here (pretrain), fetched from the hub, or a local folder."""

from typing import Literal

from finetrace.config.base import require, settings
from finetrace.config.dynamics import require_place
from finetrace.config.training import Schedule, require_schedule


@settings
class PretrainSettings:
    """A small BERT pre-trained by masked language modelling, by default on the micro world's corpus; 0 steps: random weights."""

    corpus: str = "world"
    """Its texts: world, an entry of `corpora`, or a task."""
    seed: int = 1
    """Names the run among others; weights, order and masks derive from it and the study's seed."""
    layers: int = 4
    """Number of transformer layers."""
    width: int = 64
    """Hidden size."""
    heads: int = 4
    """Attention heads per layer; must divide `width`."""
    feedforward: int = 256
    """Width of the feed-forward part."""
    dropout: float = 0.0
    """Dropout while pre-training."""
    finetune_dropout: float = 0.1
    """Dropout written to the model's config, so that fine-tuning has it."""
    steps: int = 3600
    """Optimiser steps; 0 leaves the weights random (a control)."""
    batch_size: int = 64
    """Sentences per step."""
    learning_rate: float = 2e-3
    """Peak learning rate; it rises linearly and falls as a cosine."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""
    beta2: float = 0.98
    """AdamW's second-moment decay."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Gradient clipping (L2 norm); 0 switches it off."""
    mask_rate: float = 0.2
    """Share of the words to predict."""
    mask_replace: float = 0.8
    """Of the words to predict: share replaced by [MASK]; half of the rest become random words, half stay."""
    checkpoints: Schedule = "log2"
    """When weights are kept: log2 | epochs | {every: n} | {steps: [...]}; step 0 and the last always."""
    evaluate: Schedule = "log2"
    """When the masked-word loss and accuracy on held-out sentences are measured."""

    def __post_init__(self) -> None:
        require(self.heads >= 1 and self.width % self.heads == 0, f"heads: {self.heads} does not divide width "
                                                                  f"{self.width}")
        require(self.steps >= 0, "steps: must not be negative")
        for key in ("layers", "width", "feedforward", "batch_size"):
            require(getattr(self, key) >= 1, f"{key}: {getattr(self, key)} is less than 1")
        require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive")
        for key in ("dropout", "finetune_dropout", "warmup"):
            require(0 <= getattr(self, key) < 1, f"{key}: {getattr(self, key)} is not in [0, 1)")
        for key in ("checkpoints", "evaluate"):
            require_schedule(key, getattr(self, key))
        require(0 < self.mask_rate < 1, f"mask_rate: {self.mask_rate} is not between 0 and 1")


@settings
class SeriesSettings:
    """A published series of checkpoints of one pre-training, or a single model: read where it is, one checkpoint at a time."""

    id: str
    """Hub id; `{step}` stands for an entry of `steps`, e.g. google/multiberts-seed_0-step_{step}k."""
    revision: str = "main"
    """Commit, branch or tag; `{step}` as in `id`, e.g. step{step}."""
    steps: tuple[int, ...] = (0,)
    """The checkpoints, as their names count them."""
    unit: int = 1
    """Optimiser steps per unit of `steps`: 1000 where names count in thousands."""
    tokenizer: str | None = None
    """Hub id of the tokenizer, where the checkpoints have none; by default that of the last checkpoint."""
    keep: bool = True
    """Whether fetched weights stay in the hub's cache after use; false saves disk and fetches again when asked."""

    def __post_init__(self) -> None:
        require(bool(self.steps) and list(self.steps) == sorted(set(self.steps)) and self.steps[0] >= 0,
                f"steps: {list(self.steps)} is not an ascending list of steps such as [0, 20, 60]")
        require(self.unit >= 1, f"unit: {self.unit} is less than 1")
        named = any("{step}" in text for text in (self.id, self.revision))
        require(named or len(self.steps) == 1, "id: write {step} where the names of the checkpoints differ (or in revision)")


@settings
class AdaptSettings:
    """Adaptive pre-training: more masked-word training on other texts, the masked-word head carried along."""

    start: str
    """Folder in outputs of the trajectory that it starts from: MODEL/pretrain, MODEL/adapt or MODEL/TASK/METHOD/sSEED."""
    corpus: str
    """Its texts: world, an entry of `corpora`, or a task."""
    from_steps: Literal["last", "all"] | list[int] = "last"
    """`last`: one training, whose own checkpoints are the trajectory; else one training from each of these checkpoints of
    `start`, and the trajectory is what became of them, on the time axis of `start`."""
    seed: int = 1
    """Tells repetitions apart; order and masks derive from it and the study's seed."""
    steps: int = 0
    """Optimiser steps of each training; 0: `epochs` decides."""
    epochs: float = 100.0
    """Passes over the texts (Gururangan et al. 2020)."""

    def __post_init__(self) -> None:
        require_place("start", self.start)


@settings
class HubModelSettings:
    """A model from the hub, any BERT-like encoder with safetensors weights."""

    id: str
    """Hub id, e.g. bert-base-uncased or sentence-transformers/all-MiniLM-L6-v2."""
    revision: str = "main"
    """Commit, branch or tag; the commit found is recorded."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps the architecture and tokenizer and draws new weights (a control)."""


@settings
class FolderModelSettings:
    """A model folder on this machine (config.json, *.safetensors, tokenizer files)."""

    path: str
    """The folder; relative to the project folder."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps the architecture and tokenizer and draws new weights (a control)."""

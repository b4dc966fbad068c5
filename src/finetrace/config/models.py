"""Settings of models: made here (pretrain), fetched from the hub, or a local folder."""

from typing import Literal

from finetrace.config.base import require, settings
from finetrace.config.place import require_place
from finetrace.config.training import Schedule, require_schedule


@settings
class PretrainSettings:
    """A small BERT pre-trained by masked language modelling, by default on the micro world's corpus;
    0 steps: random weights."""

    corpus: str = "world"
    """Its texts: world, an entry of `corpora`, or a task."""
    vocabulary: int = 8000
    """Tokens of the WordPiece tokenizer that is trained on the texts (equal texts give equal ones), special ones
    included; the world has a tokenizer of its own."""
    lowercase: bool = True
    """Whether a tokenizer that is trained on the texts ignores case and accents."""
    pack: Literal["none", "blocks"] = "none"
    """`none`: one text is one row, cut after `max_tokens`;  `blocks`: running text, joined with [SEP] and cut into rows
    of `block_tokens`, so that nothing is lost or padded."""
    block_tokens: int = 128
    """Tokens of a block, [CLS] and [SEP] included."""
    max_tokens: int | None = None
    """Positions of the model: its longest input in tokens, also in later fine-tuning. By default, and at most, the
    tokenizer's; 128 of one that is trained on the texts."""
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
    """Sentences (or blocks) per step."""
    accumulate: int = 1
    """Micro-batches per step, to save memory; must divide `batch_size`."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    scheduler: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0."""
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
    whole_words: bool = False
    """Whether the pieces of a word are predicted together."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on a GPU that has it, else fp32."""
    checkpoints: Schedule = "log2"
    """When weights are kept: log2 | epochs | {every: n} | {log: n} | {steps: [...]}; step 0 and the last always."""
    evaluate: Schedule = "log2"
    """When the masked-word loss and accuracy on held-out sentences are measured."""

    def __post_init__(self) -> None:
        require(self.heads >= 1 and self.width % self.heads == 0, f"heads: {self.heads} does not divide width "
                                                                  f"{self.width}")
        require(self.steps >= 0, "steps: must not be negative")
        for key in ("layers", "width", "feedforward"):
            require(getattr(self, key) >= 1, f"{key}: {getattr(self, key)} is less than 1")
        require(self.vocabulary >= 10, f"vocabulary: {self.vocabulary} tokens are too few")
        require(0 <= self.finetune_dropout < 1, f"finetune_dropout: {self.finetune_dropout} is not in [0, 1)")
        _require_masked(self)


def _require_masked(self: "PretrainSettings | AdaptSettings") -> None:
    """For `__post_init__`: the checks that pre-training and adaptation have in common."""
    require(self.batch_size >= 1, f"batch_size: {self.batch_size} is less than 1")
    require(self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
            f"accumulate: {self.accumulate} does not divide batch_size {self.batch_size}")
    require(self.learning_rate > 0, f"learning_rate: {self.learning_rate} is not positive")
    require(0 <= self.warmup < 1, f"warmup: {self.warmup} is not in [0, 1)")
    require(self.dropout is None or 0 <= self.dropout < 1, f"dropout: {self.dropout} is not in [0, 1)")
    require(0 < self.beta2 < 1, f"beta2: {self.beta2} is not between 0 and 1")
    require(self.weight_decay >= 0, f"weight_decay: {self.weight_decay} is negative")
    require(self.max_grad_norm >= 0, f"max_grad_norm: {self.max_grad_norm} is negative; 0 switches clipping off")
    require(0 < self.mask_rate < 1, f"mask_rate: {self.mask_rate} is not between 0 and 1")
    require(0 <= self.mask_replace <= 1, f"mask_replace: {self.mask_replace} is not in [0, 1]")
    require(self.max_tokens is None or self.max_tokens >= 8, f"max_tokens: {self.max_tokens} tokens leave "
            "no room for a text")
    require(self.pack == "none" or self.block_tokens >= 8, f"block_tokens: {self.block_tokens} tokens leave "
            "no room for a text")
    require(self.pack == "none" or self.max_tokens is None or self.block_tokens <= self.max_tokens,
            f"block_tokens: {self.block_tokens} are more than max_tokens, {self.max_tokens}")
    for key in ("checkpoints", "evaluate"):
        require_schedule(key, getattr(self, key))


@settings
class AdaptSettings:
    """Adaptive pre-training: more masked-word training on other texts, the masked-word head carried along."""

    start: str
    """Folder in outputs of the trajectory that it starts from: MODEL/pretrain,
    MODEL/adapt or MODEL/TASK/METHOD/sSEED."""
    corpus: str
    """Its texts: world, an entry of `corpora`, or a task."""
    from_steps: Literal["last", "all"] | list[int] = "last"
    """`last`: one training, whose own checkpoints are the trajectory; else one training from each of these checkpoints
    of `start`, and the trajectory is what became of them, on the time axis of `start`."""
    seed: int = 1
    """Tells repetitions apart; order and masks derive from it and the study's seed."""
    strip: tuple[str, ...] = ()
    """Marks removed from the texts, e.g. ["<< ", " >>", "[[ ", " ]]"]:
    a text must not show which words its label is about."""
    deduplicate: bool = True
    """Whether a text that comes again (after `strip`) is left out."""
    max_texts: int | None = None
    """Largest number of texts, a seeded choice; all by default."""
    pack: Literal["none", "blocks"] = "none"
    """`none`: one text is one row, cut after `max_tokens`;  `blocks`: running text, joined with [SEP] and cut into rows
    of `block_tokens`."""
    block_tokens: int = 128
    """Tokens of a block, special ones included."""
    max_tokens: int = 512
    """Longest row in tokens; a model with fewer positions has the say."""
    steps: int = 0
    """Optimiser steps of each training; 0: `epochs` decides. For a matched control give both entries the same steps."""
    epochs: float = 100.0
    """Passes over the texts. The defaults from here on are the recipe for the texts of a task (TAPT) of Gururangan et
    al. 2020; theirs for a corpus (DAPT): steps 12500, learning_rate 5e-4, batch_size 2048."""
    batch_size: int = 256
    """Texts (or blocks) per step."""
    accumulate: int = 16
    """Micro-batches per step, to save memory; must divide `batch_size`."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    scheduler: Literal["cosine", "linear"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises from 0."""
    beta2: float = 0.98
    """AdamW's second-moment decay."""
    epsilon: float = 1e-6
    """AdamW's epsilon."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Gradient clipping (L2 norm); 0 switches it off."""
    mask_rate: float = 0.15
    """Share of the words to predict, drawn anew in every epoch."""
    mask_replace: float = 0.8
    """Of the words to predict: share replaced by [MASK]; half of the rest become random words, half stay."""
    whole_words: bool = False
    """Whether the pieces of a word are predicted together."""
    dropout: float | None = None
    """Dropout of the adaptation; by default that in the start's config."""
    finetune_dropout: float | None = None
    """Dropout written to the adapted model's config, so that fine-tuning has it;
    by default that in the start's config."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on a GPU that has it, else fp32."""
    checkpoints: Schedule = "log2"
    """With from_steps: last, when weights are kept: log2 | epochs | {every: n} | {log: n} | {steps: [...]}; step 0 and
    the last always."""
    evaluate: Schedule = "log2"
    """When the masked-word loss and accuracy on held-out texts are measured; before and after always."""
    keep_history: bool = True
    """With several starts: whether the history of each training is kept (histories/)."""

    def __post_init__(self) -> None:
        require_place("start", self.start)
        require(self.from_steps in ("last", "all") or bool(self.from_steps), "from_steps: names no checkpoint")
        require(all(self.strip), "strip: an empty mark; remove it")
        require(self.max_texts is None or self.max_texts >= 2, f"max_texts: {self.max_texts} is less than 2")
        require(self.steps >= 0, "steps: must not be negative")
        require(0 < self.epochs < float("inf"), f"epochs: {self.epochs} is not a positive number")
        require(self.epsilon > 0, f"epsilon: {self.epsilon} is not positive")
        require(self.finetune_dropout is None or 0 <= self.finetune_dropout < 1,
                f"finetune_dropout: {self.finetune_dropout} is not in [0, 1)")
        require(self.evaluate != "none", "evaluate: none leaves the adaptation unseen; {steps: []} "
                "measures before and after")
        _require_masked(self)


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

"""Settings of the lens influence."""

from typing import Literal

from finetrace.config.base import require, settings


@settings
class InfluenceSettings:
    """Inner products of the loss gradients of training and evaluation examples at the checkpoints of a training."""

    rows: dict[str, int] = None  # type: ignore[assignment]
    """Examples: `train`, whose influence is measured, and `eval`, on which; by default 1000 and 100, 0 for all of a
    split. Cost grows with their product, and with each of them."""
    eval_split: Literal["validation", "test"] = "validation"
    """Split of the eval examples."""
    choose: Literal["stratified", "random", "first"] = "stratified"
    """How examples are chosen: the classes in their own shares (at random where the task has no classes), at random,
    or the first ones; the same whatever the method."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Every kept one, the first and the last, or these steps; steps beyond the end of a run are left out there, first
    and last are always in."""
    parameters: Literal["trained", "all", "encoder", "head", "lora"] = "trained"
    """Whose gradients: `trained`, what the method trains (ft, lp-ft: all; lora, lp-lora: adapters and head; lp: the
    head), all, all but the head, the head, or the adapters alone."""
    weights: Literal["rates", "visits"] = "rates"
    """What a checkpoint counts: `rates`, the learning rates of the steps around it, shared among all training examples
    (TracInCP); `visits`, for each training example those of the steps that saw it, shared among their batch."""
    top: int = 5
    """So many most helpful and most harmful training examples are listed for each eval example, and as many most alike
    and most opposed to it after training."""
    shown: int = 4
    """Eval examples whose lists are drawn: half of them those that were learned best, the others worst."""
    dtype: Literal["float32", "float64"] = "float32"
    """Arithmetic of the gradients; sums are float64 anyway."""
    memory_gb: float = 2.0
    """Memory for gradients; less means smaller blocks of training examples, not other results."""
    batch_tokens: int = 2048
    """Tokens per forward pass, padding included."""
    max_length: int | None = None
    """Longest input in tokens; by default the training's own."""

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", {"train": 1000, "eval": 100})
        require(set(self.rows) == {"train", "eval"}, f"rows: names {', '.join(self.rows) or 'nothing'}; write e.g. "
                                                     "{train: 1000, eval: 100}")
        for split, count in self.rows.items():
            require(count >= 0 and count != 1, f"rows.{split}: {count} is too few; write 2 or more, or 0 for all")
        if isinstance(self.checkpoints, list):
            require(all(step >= 0 for step in self.checkpoints),
                    f"checkpoints: {self.checkpoints} is not a list of steps")
        require(self.top >= 1, f"top: {self.top} lists nothing; write 1 or more")
        require(self.shown >= 0, f"shown: {self.shown} is negative; 0 draws no lists")
        require(self.memory_gb > 0, f"memory_gb: {self.memory_gb} is not above 0")
        require(self.batch_tokens >= 16, f"batch_tokens: {self.batch_tokens} is less than 16")
        require(self.max_length is None or self.max_length >= 4,
                f"max_length: {self.max_length} tokens leave no room for a text")

"""Settings of the stage hidden: which hidden states are kept of each trajectory."""

from typing import Literal

from finetrace.config.base import require, settings

SPLITS = ("train", "validation", "test")


@settings
class HiddenSettings:
    """One forward pass per checkpoint gives the hidden states of all layers."""

    rows: dict[str, int] = None  # type: ignore[assignment]
    """Examples per split (train, validation, test) whose sentence vectors are kept; 0 takes the whole split. A split
    that a task lacks is left out."""
    token_rows: dict[str, int] = None  # type: ignore[assignment]
    """Examples per split whose every token is kept, taken from among `rows`; by default 100 of validation."""
    vectors: list[Literal["cls", "mean"]] = None  # type: ignore[assignment]
    """Sentence vectors: `cls`, the token that the model's own classifier reads; `mean`, over an example's tokens."""
    choose: Literal["stratified", "random", "first"] = "stratified"
    """How examples are chosen: the classes in their own shares, at random,
    or the first ones (as the French study did)."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which recorded checkpoints: all, the first and last, or these steps; first and last are always in."""
    dtype: Literal["float32", "float16"] = "float32"
    """Numbers on disk; float16 halves the space and keeps three digits."""
    max_length: int | None = None
    """Longest input in tokens; by default the training's own."""
    batch_tokens: int = 4096
    """Tokens per forward pass, padding included; memory grows with it, not with the number of examples."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that has it."""

    def __post_init__(self) -> None:
        rows = {"train": 1000, "validation": 1000} if self.rows is None else self.rows
        defaults = {"rows": rows, "vectors": ["cls", "mean"],
                    "token_rows": {s: min(100, n or 100) for s, n in rows.items() if s == "validation"}}
        for key, value in defaults.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
        require(bool(self.rows), "rows: names no split; write e.g. {train: 1000, validation: 1000}")
        for key, counts in (("rows", self.rows), ("token_rows", self.token_rows)):
            for split, count in counts.items():
                require(split in SPLITS, f"{key}: {split!r} is not a split; known: {', '.join(SPLITS)}")
                require(count >= 0, f"{key}.{split}: {count} is negative; 0 takes the whole split")
        for split, count in self.token_rows.items():
            require(split in self.rows, f"token_rows.{split}: tokens are kept of examples in `rows`; add {split} there")
            limit = self.rows[split]
            require(limit == 0 or 0 < count <= limit,
                    f"token_rows.{split}: {count or 'all'} examples are more than rows.{split}: {limit}; lower it")
        require(self.max_length is None or self.max_length >= 4, f"max_length: {self.max_length} tokens leave "
                "no room for a text")
        require(self.batch_tokens >= 16, f"batch_tokens: {self.batch_tokens} is less than 16")
        if isinstance(self.checkpoints, list):
            require(all(step >= 0 for step in self.checkpoints), f"checkpoints: {self.checkpoints} is "
                    "not a list of steps")

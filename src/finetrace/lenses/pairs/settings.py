"""Settings of the lens pairs: which of two sentences a model of masked words finds more probable."""

from typing import Literal

from finetrace.config.base import require, settings


@settings
class PairsSettings:
    """Minimal pairs, scored by pseudo-log-likelihood, at every checkpoint."""

    set: str = ""
    """What is asked: an entry of `minimal_pairs` or `minimal_pair_files`; the only one unless said."""
    scoring: Literal["word_l2r", "original"] = "word_l2r"
    """original: a token is scored with itself masked (Salazar et al. 2020); word_l2r: with the rest of its word to the
    right masked, too, so that long words do not give themselves away (Kauf and Ivanova 2023)."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which recorded checkpoints: all, the first and last, or these steps; first and last are always in."""
    batch_tokens: int = 8192
    """Tokens per forward pass, padding included."""
    memory_mib: int = 512
    """Memory of the scores of all words that are held at once."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that has it. Scores of words are always fp32."""
    draws: int = 1000
    """Resamplings of the bootstrap behind the interval of an age of acquisition."""

    def __post_init__(self) -> None:
        for key, least in (("batch_tokens", 16), ("memory_mib", 1), ("draws", 100)):
            require(getattr(self, key) >= least, f"{key}: {getattr(self, key)} is less than {least}")
        if isinstance(self.checkpoints, list):
            require(all(step >= 0 for step in self.checkpoints), f"checkpoints: {self.checkpoints} is not a list of "
                                                                 "steps")

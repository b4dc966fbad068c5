"""Settings of the lens infodynamics."""

from typing import Literal

from finetrace.config.base import require, settings


@settings
class InfodynamicsSettings:
    """Novelty, transience and resonance of the logits."""

    window: int = 160
    """Window in training examples; novelty looks this far back, transience this far ahead."""
    windows: list[int] | None = None
    """Further windows reported in the table, from the same pass."""
    measure: Literal["jsd", "kl", "jeffreys"] = "jsd"
    """Divergence between two predictions."""
    max_steps: int = 5001
    """Optimiser steps that enter the analysis (the study's 5,001); 0 takes all."""
    spans: list[int] | None = None
    """Spans of the adaptive filter shown side by side; by default 128, 56, 32."""
    span: int = 56
    """Span of the adaptive filter of the main figure and of the change points."""
    permutations: int = 200
    """Shuffled orders behind the null of the resonance-novelty slope."""
    probe_window: int = 3
    """Window, in looks at the probe set, of the within-example dynamics."""

    def __post_init__(self) -> None:
        for window in [self.window, *(self.windows or [])]:
            require(window >= 1, f"window: {window} is less than 1 example")
        for span in [self.span, *(self.spans or [])]:
            require(span >= 1, f"span: {span} cannot divide a signal; take 1 or more, such as 56")
        require(self.max_steps >= 0, f"max_steps: {self.max_steps} is negative; 0 takes all")
        require(self.probe_window >= 1, f"probe_window: {self.probe_window} is less than 1 look; take 1 or more")
        require(self.permutations >= 20, f"permutations: {self.permutations} are too few for a 95 % band; take 20 or "
                                         "more")

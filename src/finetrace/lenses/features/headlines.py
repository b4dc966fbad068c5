"""Headline metrics of the lens features."""

from finetrace.lenses.headline import AtCheckpoint, Enough, Headline

ENOUGH = Enough(20, "examples", "rows")
HEADLINES = (
    Headline("head_norm/first", "head norm, first", "Euclidean", 2, "", "norm of the head before the first step"),
    Headline("validation/diff", "feature change", "Euclidean", 2, "",
             "mean distance that an example's feature vector moved", enough=ENOUGH),
)
AT_CHECKPOINTS = (
    AtCheckpoint("head_norm", "head_norm", metric="head_norm/first"),
    AtCheckpoint("change", "validation_diff", metric="validation/diff"),
)

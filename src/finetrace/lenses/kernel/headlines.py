"""Headline metrics of the lens kernel."""

from finetrace.lenses.headline import AtCheckpoint, Headline

HEADLINES = (
    Headline("ft_ratio/first", "FT ratio, first", "share", 3, "",
             "part of the first step's change of the logits that comes through the features"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("ft_ratio", "ft_ratio", metric="ft_ratio/first"),
    AtCheckpoint("alignment", "full_alignment"),
)

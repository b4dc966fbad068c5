"""Headline metrics of the lens pairs."""

from finetrace.lenses.headline import AtCheckpoint, Headline

HEADLINES = (
    Headline("accuracy", "minimal pairs", "share", 3, "up",
             "minimal pairs whose good sentence is the more probable one, last checkpoint, mean over paradigms",
             short="pairs"),
    Headline("age_of_acquisition", "pairs acquired", "steps", 0, "",
             "step at which that share passes the middle between chance and its last value"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("accuracy", "accuracy", metric="accuracy"),
)

"""Headline metrics of the lens edges."""

from finetrace.lenses.headline import AtCheckpoint, Headline

HEADLINES = (
    Headline("mean_f1/first", "words, first", "F1", 3, "up",
             "edge probes on the mix of all layers, mean over tasks, first checkpoint", mean_of="*/f1/full/first",
             split="test"),
    Headline("mean_f1/last", "words, last", "F1", 3, "up",
             "edge probes on the mix of all layers, mean over tasks, last checkpoint", mean_of="*/f1/full/last",
             short="words", split="test"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("f1", "f1_*", metric="mean_f1/last"),
)

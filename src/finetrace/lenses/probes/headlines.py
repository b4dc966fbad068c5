"""Headline metrics of the lens probes."""

from finetrace.lenses.headline import AtCheckpoint, Headline

HEADLINES = (
    Headline("best_accuracy/*/first", "probe, before", "share", 3, "up",
             "accuracy of the best layer's probe on the pre-trained model", split="validation"),
    Headline("best_accuracy/*/last", "probe, after", "share", 3, "up",
             "accuracy of the best layer's probe after training", short="probe", split="validation"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("accuracy", "accuracy_layer_{layer}"),
    AtCheckpoint("best_accuracy", "accuracy_layer_{layer}", largest=True, metric="best_accuracy/*/last"),
)

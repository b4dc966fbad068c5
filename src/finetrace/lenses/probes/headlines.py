"""Headline metrics of the lens probes."""

from finetrace.lenses.headline import AtCheckpoint, Enough, Headline

ENOUGH = Enough(150, "training examples", "rows_train")
HEADLINES = (
    Headline("best_accuracy/*/first", "probe, before", "share", 3, "up",
             "accuracy of the best layer's probe on the pre-trained model", split="validation", enough=ENOUGH),
    Headline("best_accuracy/*/last", "probe, after", "share", 3, "up",
             "accuracy of the best layer's probe after training", short="probe", split="validation", enough=ENOUGH),
)
AT_CHECKPOINTS = (
    AtCheckpoint("accuracy", "accuracy_layer_{layer}"),
    AtCheckpoint("best_accuracy", "accuracy_layer_{layer}", largest=True, metric="best_accuracy/*/last"),
)

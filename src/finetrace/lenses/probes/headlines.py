"""Headline metrics of the lens probes."""

from finetrace.lenses.headline import Headline

HEADLINES = (
    Headline("best_accuracy/*/first", "probe, before", "share", 3, "up",
             "accuracy of the best layer's probe on the pre-trained model"),
    Headline("best_accuracy/*/last", "probe, after", "share", 3, "up",
             "accuracy of the best layer's probe after training"),
)

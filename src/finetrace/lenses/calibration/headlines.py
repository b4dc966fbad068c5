"""Headline metrics of the lens calibration."""

from finetrace.lenses.headline import Headline

HEADLINES = (
    Headline("test/ece", "ECE", "share", 3, "down",
             "expected calibration error on test; 0: probabilities mean what they say"),
    Headline("test/ece_scaled", "ECE, scaled", "share", 3, "down",
             "expected calibration error on test after temperature scaling fitted on validation"),
)

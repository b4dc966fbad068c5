"""Headline metrics of the lens calibration."""

from finetrace.lenses.headline import AtCheckpoint, Enough, Headline

ENOUGH = Enough(150, "examples", "examples")
ON = "on test (where that is not predicted, on validation)"
HEADLINES = (
    Headline("test/ece|validation/ece", "ECE", "share", 3, "down",
             f"expected calibration error {ON}; 0: probabilities mean what they say", short="ECE", enough=ENOUGH),
    Headline("test/ece_scaled|validation/ece_scaled", "ECE, scaled", "share", 3, "down",
             f"expected calibration error {ON} after temperature scaling fitted on validation"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("accuracy", "test_accuracy|validation_accuracy"),
    AtCheckpoint("ece", "test_ece|validation_ece", metric="test/ece|validation/ece"),
    AtCheckpoint("ece_scaled", "test_ece_scaled|validation_ece_scaled",
                 metric="test/ece_scaled|validation/ece_scaled"),
    AtCheckpoint("temperature", "temperature"),
)

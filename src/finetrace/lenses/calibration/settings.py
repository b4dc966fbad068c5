"""Settings of the lens calibration."""

from finetrace.config.base import require, settings


@settings
class CalibrationSettings:
    """Do probabilities mean what they say, before and after temperature scaling."""

    bins: int = 15
    """Bins of equal width of the confidence; the adaptive error has as many of equal size."""
    fit: str = "validation"
    """The set on which the temperature is fitted; its own numbers after scaling are of examples that chose the
    temperature."""
    groups: int = 20
    """Groups of the jackknife intervals."""

    def __post_init__(self) -> None:
        require(self.bins >= 1, f"bins: {self.bins} is less than 1")
        require(self.groups >= 2, f"groups: {self.groups} gives no interval; write at least 2")

"""Settings of the stage directprobe: inputs of the original hull-probe programs."""

from pathlib import PurePath
from typing import Literal

from finetrace.config.base import require, settings


@settings
class DirectprobeSettings:
    """One INI file of DirectProbe (2021) or of its sequel on fine-tuning (2022), and the data that it names."""

    config: str
    """The INI file; its own paths are relative to its folder. Its output_path is not used: results go to
    directprobe/NAME."""
    inputs: str
    """Folder that holds every file the INI names: a dependency of the stage, so that a change of the data is
    noticed."""
    mode: Literal["probing", "prediction", "batch_probing"] | None = None
    """What to do, instead of the INI's own mode."""
    min_size: int = 6
    """Label distances: clusters of fewer points are left out (2022: those of five or fewer; 1 takes all)."""
    numbering: Literal["creation", "row"] = "creation"
    """How clusters are numbered: in the order in which they came to be, as the original does, which costs all merges
    even where labels are linearly separable; or by their smallest row."""

    def __post_init__(self) -> None:
        require(self.config.strip() != "", "config: name an INI file")
        require(self.inputs.strip() != "", "inputs: name the folder that holds the INI's data")
        require(not PurePath(self.inputs).is_relative_to("directprobe"),
                f"inputs: {self.inputs} lies in directprobe/, where results go; move it, e.g. to sources/")
        require(self.min_size >= 1, f"min_size: {self.min_size} is less than 1")

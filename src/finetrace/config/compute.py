"""Settings of how trainings are computed."""

from finetrace.config.base import require, settings


@settings
class ComputeSettings:
    """On how much of a machine one training runs."""

    processes: int = 1
    """Processes that do one training together, each on a GPU of its own where there are GPUs: they share the rows of
    every step. Another number gives the same training but for the last bits, and other dropout masks."""

    def __post_init__(self) -> None:
        require(self.processes >= 1, f"processes: {self.processes} is less than 1")

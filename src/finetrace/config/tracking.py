"""Settings of tracking."""

from finetrace.config.base import require, settings


@settings
class TrackingSettings:
    """How outputs become MLflow runs."""

    uri: str | None = None
    """Tracking server, e.g. http://127.0.0.1:5000; by default the project's own mlflow.db and mlruns/."""
    live: bool = True
    """Feed a run while it trains."""
    live_after_seconds: float = 20.0
    """Trainings shorter than this are published only when they are done."""
    points: int = 200
    """Largest number of points per metric and run (MLflow shows at most 2,500); the dense data is an artifact."""
    lens_runs: bool = True
    """A nested run per lens. Without, lenses are there by their headline metrics on the run of the training: for
    studies of hundreds of trainings, which MLflow then lists faster, and publishing takes a fraction of the time."""

    def __post_init__(self) -> None:
        require(2 <= self.points <= 2500, f"points: {self.points} is not in 2..2500, what MLflow's charts can show")

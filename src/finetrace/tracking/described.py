"""The description of a lens's run in MLflow: its headline metrics, as the lens declares them."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from finetrace.lenses import headline
from finetrace.lenses.headline import AtCheckpoint, Headline, add_means, value_of
from finetrace.tracking.series import metric_name

log = logging.getLogger("finetrace")
TAG = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run, in Markdown."""
LENSES = Path(headline.__file__).parent


def description(lens: str, prefix: str) -> dict[str, str]:
    """The tag with a line per headline metric of a lens; empty for a lens without any.

    prefix: of the lens's metrics in MLflow, such as "calibration/". Depends on what the lens declares alone, so that
    the same results are described in the same bytes.
    """
    lines = [f"- **{metric.heading}** {_metric_names(metric, prefix)}: {metric.explanation}"
             for metric in headlines_of(lens)]
    return {TAG: "\n".join(lines)} if lines else {}


def warn_of_few(lens: str, facts: Mapping[str, Any], where: str) -> None:
    """Log where a lens looked at fewer examples than it takes to find what is there.

    facts: of the manifest of the lens's folder;  where: it lies.
    """
    warnings = {headline.enough.warning(facts): None for headline in headlines_of(lens) if headline.enough}
    for warning in filter(None, warnings):
        log.warning("%s: %s (docs/grounding.md)", where, warning)


def headlines_of(lens: str) -> Sequence[Headline]:
    """The headline metrics that a lens declares."""
    return tuple(_declared(lens, "HEADLINES"))


def at_checkpoints_of(lens: str) -> Sequence[AtCheckpoint]:
    """The numbers by which a lens compares checkpoints."""
    return tuple(_declared(lens, "AT_CHECKPOINTS"))


def _declared(lens: str, name: str) -> Iterable[Any]:
    """What `headlines.py` of a lens holds under a name; it imports nothing that takes time."""
    package = lens.replace("-", "_")
    if not (LENSES / package / "headlines.py").is_file():
        return ()
    declared: Iterable[Any] = getattr(import_module(f"finetrace.lenses.{package}.headlines"), name, ())
    return declared


def headline_metrics(folder: Path) -> dict[str, float]:
    """The headline metrics of a lens's finished folder by LENS/HEADING, e.g. "geometry/rank after", or where the lens
    compares checkpoints by a name that looks like it by that name: "calibration/ece", not "calibration/ECE"."""
    declared = headlines_of(folder.name)
    if not declared:
        return {}
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    add_means(metrics, declared)
    checkpoint_names = {number.name: number.name for number in at_checkpoints_of(folder.name)}
    values = {metric.heading.replace(",", ""): value_of(metrics, metric.metric) for metric in declared}
    names = {heading: checkpoint_names.get(heading.casefold().replace(" ", "_"), heading) for heading in values}
    return {metric_name(f"{folder.name}/{names[heading]}"): float(value)
            for heading, value in values.items() if value is not None and math.isfinite(value)}


def _metric_names(metric: Headline, prefix: str) -> str:
    """The metric's name in MLflow, or the names of which the reader makes the mean."""
    if metric.mean_of:
        return f"(mean of `{prefix}{metric.mean_of}`)"
    return f"(`{'` or `'.join(prefix + name for name in metric.metric.split('|'))}`)"

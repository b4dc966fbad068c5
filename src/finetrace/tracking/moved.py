"""A project that has moved: its experiment is replaced by one at the new place.

MLflow keeps absolute artifact paths, would list nothing and write to the old place, and its client cannot change the
path of an experiment. So the experiment of the old place gets another name, its runs count as superseded, and
publishing makes a new experiment; a project that moves back finds its earlier experiment again.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

LOG = logging.getLogger("finetrace.tracking")
HOME_TAG = "finetrace.home"
NAME_TAG = "finetrace.experiment"  # the name that a replaced experiment had
SUPERSEDED_TAG = "finetrace.superseded"
SUPERSEDED_SUFFIX = " (superseded)"
_NAME_LENGTH = 500  # MLflow's limit


def superseded_name(name: str) -> str:
    """The shown name of a run that newer content of its place has replaced."""
    return name if name.endswith(SUPERSEDED_SUFFIX) else name + SUPERSEDED_SUFFIX


def has_moved(experiment: "Experiment", home: Path) -> bool:
    """Whether an experiment that is in use was made when its project lay elsewhere."""
    in_use = experiment.tags.get(NAME_TAG, experiment.name) == experiment.name
    return in_use and experiment.tags.get(HOME_TAG, str(home.resolve())) != str(home.resolve())


def experiments(client: "MlflowClient") -> Iterator["Experiment"]:
    """All experiments of a store but the deleted ones."""
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def retire(client: "MlflowClient", experiment: "Experiment", home: Path) -> None:
    """Mark the runs of an experiment of the old place as superseded and rename it.

    The new name comes last, so that a retirement that was interrupted is done again.
    """
    identifier, old_home = experiment.experiment_id, experiment.tags[HOME_TAG]
    token = None
    while True:
        page = client.search_runs([identifier], max_results=1000, page_token=token)
        for run in page:
            if "finetrace.key" in run.data.tags and SUPERSEDED_TAG not in run.data.tags:
                client.set_tag(run.info.run_id, SUPERSEDED_TAG, "true")
        token = page.token
        if not token:
            break
    client.set_experiment_tag(identifier, NAME_TAG, experiment.name)
    client.set_experiment_tag(identifier, "mlflow.note.content", (
        f"The project has moved from {old_home} to {home.resolve()}: its runs were published anew in the experiment "
        f"{experiment.name!r}. MLflow looks for the artifacts of these runs in the old place."))
    client.rename_experiment(identifier, f"{experiment.name} ({identifier}, at {old_home})"[:_NAME_LENGTH])
    LOG.warning("the project has moved from %s to %s: its runs are published anew, and those of the old place stay in "
                "an experiment of their own", old_home, home.resolve())


def made_here_before(client: "MlflowClient", name: str, home: Path) -> "Experiment | None":
    """The replaced experiment of this place, under its name again, if the project has come back to it."""
    for experiment in experiments(client):
        tags = experiment.tags
        if tags.get(NAME_TAG) == name != experiment.name and tags.get(HOME_TAG) == str(home.resolve()):
            client.rename_experiment(experiment.experiment_id, name)
            client.delete_experiment_tag(experiment.experiment_id, "mlflow.note.content")
            return client.get_experiment(experiment.experiment_id)
    return None

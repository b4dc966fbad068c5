"""Publishers of several machines take turns in a store that they share.

Two that find a run absent would both make it, and MLflow has no call that makes a run unless it is there. What it
keeps unique is the name of a registered model: whoever creates the model `finetrace publishes STUDY` has the turn, and
deletes it at the end. Meanwhile its tag changes every few seconds; whoever sees it unchanged for a minute takes the
turn away, since its publisher was killed. That is done by renaming the model after its last tag, a name that is there
only once, so that of several who wait one succeeds. Clocks of different machines are not compared.
"""

import contextlib
import logging
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetrace.errors import FinetraceError, hide_passwords

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOG = logging.getLogger("finetrace.tracking")
BEAT_TAG = "finetrace.beat"
BEAT_SECONDS = 5.0
LOST_SECONDS = 60.0
LOOK_SECONDS = 1.0


class Turn:
    """The right to publish a study into a store. Ask `check` before every run."""

    def __init__(self) -> None:
        self.over, self.lost = threading.Event(), threading.Event()

    def check(self) -> None:
        """FinetraceError when another publisher has taken over, since this one stood still for a minute."""
        if self.lost.is_set():
            raise FinetraceError("this publisher was silent for so long that another one has taken over; run "
                                 "`finetrace publish` again: it goes on where both have stopped")


@contextlib.contextmanager
def turn(client: "MlflowClient", study: str) -> Iterator[Turn]:
    """Wait for the turn to publish a study, and hold it for the time of the block.

    A server that keeps no registered models is used without turns, and a warning says so.
    """
    from mlflow.exceptions import MlflowException

    name, holder, mine = f"finetrace publishes {re.sub('[/:]', '-', study)}", uuid.uuid4().hex, Turn()
    try:
        _beat(client, name)
    except MlflowException as error:
        LOG.warning("publishers of other machines are not kept apart (%s); let one publish at a time",
                    hide_passwords(str(error).splitlines()[0]))
        yield mine
        return
    try:
        replaced = _take(client, name, holder)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise FinetraceError(f"registered model {name!r}, by which publishers take turns: {reason}; run `finetrace "
                             "publish` again, or let an administrator delete the one that a killed publisher left"
                             ) from error
    keeper = threading.Thread(target=_keep, args=(client, name, holder, mine), daemon=True)
    keeper.start()
    try:
        yield mine
    finally:
        mine.over.set()
        keeper.join()
        with contextlib.suppress(MlflowException):  # a turn that cannot be given back is lost a minute later
            if _beat(client, name).startswith(holder):
                client.delete_registered_model(name)
            for old in replaced:
                client.delete_registered_model(old)


def _take(client: "MlflowClient", name: str, holder: str) -> list[str]:
    """Wait until the turn is ours; the names under which lost ones lie, which have to stay as long as it lasts."""
    from mlflow.exceptions import MlflowException

    replaced: list[str] = []
    last, since, told = "", time.monotonic(), False
    while True:
        beat = _beat(client, name)
        if not beat:
            try:
                client.create_registered_model(name, {BEAT_TAG: f"{holder} 0"}, _who())
                return replaced
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        elif beat != last:
            last, since = beat, time.monotonic()
        elif time.monotonic() - since > LOST_SECONDS:
            replaced += _lost(client, name, beat)
        if beat and not told:
            told = True
            LOG.warning("another `finetrace publish` of this study is at work; waiting for it")
        time.sleep(LOOK_SECONDS)


def _lost(client: "MlflowClient", name: str, beat: str) -> list[str]:
    """Take a lost turn away; empty when another one was faster."""
    from mlflow.exceptions import MlflowException

    old = f"{name} (lost, {beat})"
    try:
        client.rename_registered_model(name, old)
    except MlflowException:
        if _beat(client, name) == beat:
            raise
        return []
    return [old]


def _keep(client: "MlflowClient", name: str, holder: str, mine: Turn) -> None:
    """Show until the end that the holder lives, as long as it is the holder."""
    from mlflow.exceptions import MlflowException

    count = 0
    while not mine.over.wait(BEAT_SECONDS):
        count += 1
        try:
            if not _beat(client, name).startswith(holder):
                mine.lost.set()
                return
            client.set_registered_model_tag(name, BEAT_TAG, f"{holder} {count}")
        except MlflowException:  # the next beat may come through
            continue


def _beat(client: "MlflowClient", name: str) -> str:
    """Holder and number of its last beat; empty when nobody has the turn."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_registered_model(name).tags.get(BEAT_TAG, "nobody"))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def _who() -> str:
    return (f"`finetrace publish` is at work (process {os.getpid()} on {platform.node()}); this entry goes when it has "
            "ended")

"""Publishers of several machines take turns: one at a time, also after one that was killed."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import empty_store

from finetrace.errors import FinetraceError
from finetrace.tracking import turns
from finetrace.tracking.store import is_own, open_store

STUDY = "a/b: c"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, seconds in (("BEAT_SECONDS", 0.05), ("LOST_SECONDS", 1.0), ("LOOK_SECONDS", 0.05)):
        monkeypatch.setattr(turns, name, seconds)
    empty_store(tmp_path)
    return open_store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path, "demo").client


def at_once(number: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_one_at_a_time_and_nothing_left(client: Any, caplog: pytest.LogCaptureFixture,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("finetrace"), "propagate", True)
    inside, most = [], []

    def work() -> None:
        with turns.turn(client, STUDY) as mine:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.3)
            mine.check()
            inside.pop()

    at_once(3, work)
    assert most == [1, 1, 1] and client.search_registered_models() == []
    assert "another `finetrace publish` of this study is at work; waiting for it" in caplog.text


def test_the_turn_of_a_killed_publisher_is_taken_by_one_of_those_who_wait(client: Any) -> None:
    name = "finetrace publishes a-b- c"
    client.create_registered_model(name, {turns.BEAT_TAG: "killed 3"})
    inside, most = [], []

    def work() -> None:
        with turns.turn(client, STUDY):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.2)
            inside.pop()

    began = time.monotonic()
    at_once(4, work)
    assert most == [1] * 4 and time.monotonic() - began > 1.0
    assert client.search_registered_models() == []


def test_who_lost_the_turn_stops_and_leaves_the_other_alone(client: Any) -> None:
    with turns.turn(client, STUDY) as mine:
        client.delete_registered_model("finetrace publishes a-b- c")
        client.create_registered_model("finetrace publishes a-b- c", {turns.BEAT_TAG: "other 1"})
        assert mine.lost.wait(10)
        with pytest.raises(FinetraceError, match="another one has taken over"):
            mine.check()
    other, = client.search_registered_models()
    assert other.tags == {turns.BEAT_TAG: "other 1"}


def test_a_server_without_registered_models_is_used_without_turns(
        client: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    def refuse(*_: object) -> None:
        raise MlflowException("no such thing here")

    monkeypatch.setattr(logging.getLogger("finetrace"), "propagate", True)
    monkeypatch.setattr(type(client), "get_registered_model", refuse)
    with turns.turn(client, STUDY) as mine:
        mine.check()
    assert "no such thing here); let one publish at a time" in caplog.text


def test_turns_are_for_stores_that_others_may_use(tmp_path: Path) -> None:
    assert is_own(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    for uri in (f"sqlite:///{tmp_path.parent}/mlflow.db", "http://host:5000", "postgresql://host/runs"):
        assert not is_own(uri, tmp_path)

"""Calls side by side give what calls one after the other give, in their order."""

import os
import time

import pytest

from finetrace.atlas.side_by_side import side_by_side
from finetrace.store.threads import NAME


def slowly(seconds: float, text: str) -> tuple[str, int]:
    time.sleep(seconds)
    if not text:
        raise ValueError("no text")
    return text, os.getpid()


def test_results_come_in_the_order_of_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    arguments = [(0.05, "a"), (0.0, "b"), (0.02, "c")]
    for many in (True, False):
        texts, processes = zip(*side_by_side(slowly, arguments, many=many), strict=True)
        assert texts == ("a", "b", "c") and (os.getpid() in processes) != many
    with pytest.raises(ValueError, match="no text"):
        list(side_by_side(slowly, [(0.0, "a"), (0.0, "")], many=True))


def test_few_calls_wait_until_they_are_asked_for() -> None:
    results = side_by_side(slowly, [(0.0, "a"), (0.0, "")], many=False)
    assert next(results)[0] == "a"
    with pytest.raises(ValueError, match="no text"):
        next(results)

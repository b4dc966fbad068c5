"""What is said of long work: the first unit, which holds what is done once, does not count for the time to go."""

import logging

import pytest

from finetrace import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("FINETRACE_LINES", "1")
    return now


def test_the_time_to_go_is_that_of_the_units_after_the_first(clock, caplog):
    caplog.set_level(logging.INFO)
    bar = progress.Progress(11, "x", unit="layer")
    for seconds in (60, 61, 62):
        clock[0] = seconds
        bar.advance()
    assert "x: layer 1 of 11 " in caplog.text, "no guess from the first one"
    assert "x: 11 layers in all, about 9 s to go" in caplog.text


def test_a_line_every_15_seconds_with_its_note(clock, caplog):
    caplog.set_level(logging.INFO)
    bar = progress.Progress(100, "x", started=40)
    for step in range(41, 81):
        clock[0] += 1
        bar.update(step, "loss 0.5")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["x: 100 steps in all, about 56 s to go", "x: step 55 of 100, about 45 s to go loss 0.5",
                     "x: step 70 of 100, about 30 s to go loss 0.5"]

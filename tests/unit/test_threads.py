"""Threads of an item that runs beside others: its share of the cores, for models and arrays that use more than one."""

from types import SimpleNamespace
from typing import Any

import pytest

from finetrace.models.device import fit_threads
from finetrace.store import hidden
from finetrace.store.threads import NAME, share


@pytest.mark.parametrize(("said", "most", "threads"), [
    ("", "", None), ("4", "", 4), ("4", "2", 2), ("2", "4", 2), ("0", "", 1), ("x", "", None), ("3", "2,1", 3)])
def test_the_share_is_what_the_driver_said_and_no_more_than_the_user(monkeypatch: pytest.MonkeyPatch, said: str,
                                                                     most: str, threads: int | None) -> None:
    monkeypatch.setenv(NAME, said)
    monkeypatch.setenv("OMP_NUM_THREADS", most)
    assert share() == threads


@pytest.mark.parametrize(("parameters", "said", "threads"), [(10, "4", 1), (2_000_000, "3", 3), (2_000_000, "9", 5),
                                                             (2_000_000, "", None)])
def test_a_large_model_takes_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch, parameters: int, said: str,
                                                    threads: int | None) -> None:
    import torch

    taken: list[int] = []
    monkeypatch.setenv(NAME, said)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    fit_threads(parameters)
    assert taken == ([] if threads is None else [threads])


@pytest.mark.parametrize(("dim", "said", "threads"), [(8, "4", 1), (768, "3", 3), (768, "", None)])
def test_wide_states_take_their_share_of_the_cores(monkeypatch: pytest.MonkeyPatch, dim: int, said: str,
                                                   threads: int | None) -> None:
    taken: list[int] = []
    monkeypatch.setenv(NAME, said)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("threadpoolctl.threadpool_limits", taken.append)
    states: Any = SimpleNamespace(manifest=SimpleNamespace(facts={"dim": dim}))
    hidden.fit_threads(states)
    assert taken == ([] if threads is None else [threads])

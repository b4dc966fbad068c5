"""Several processes that do one training: what each asks, takes and is refused. What passes between real ones is tested
in tests/integration/test_together.py."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.stages import ask, stage_of
from tests.training_fixtures import settings

from finetrace.errors import FinetraceError
from finetrace.group import Group, here, lost, opened
from finetrace.pipeline import together
from finetrace.study import parse_study
from finetrace.study.plan import last_settings, plan_of
from finetrace.training.parts import Part, join_parts, part_of
from finetrace.training.trainer import Plan, PlanDataset

STUDY = {
    "study": {"name": "s", "seed": 1}, "pretrain": {"a": {"steps": 4}, "random": {"steps": 0}},
    "adapt": {"b": {"start": "a/pretrain", "corpus": "world"}}, "tasks": {"micro-topic": {"source": "micro"}},
    "runs": [{"model": "a", "task": "micro-topic", "method": ["ft", "lp", "lp-ft", "lora"]}], "look": {}}


def asked(content: dict[str, Any]) -> dict[str, Any]:
    study = parse_study(content, "params.yaml")
    return {f"{item.stage}@{item.key}": item.asked for item in plan_of(study)} | last_settings(study)


def test_alone_nothing_passes() -> None:
    group = here()
    assert group == Group(0, 1) and group.leads
    assert group.told(3, True) == [3, True] and group.first(lambda: 7) == 7
    assert torch.equal(group.total(torch.ones(2)), torch.ones(2))
    group.wait()
    rows = np.arange(5)
    assert len(group.parts(rows)) == 1 and np.array_equal(group.parts(rows)[0], rows)


def test_the_parts_of_a_micro_batch_are_contiguous_and_whole() -> None:
    steps = [np.array([4, 2, 0, 1, 3]), np.array([5])]
    plan = Plan.of(steps, 2, 2, np.ones(6, dtype=np.int64))
    seen: dict[int, list[int]] = {}
    for rank in range(3):
        rows = PlanDataset(plan, lambda batch: {"rows": batch[1].tolist(), "of": batch[2], "tokens": 1}, Group(rank, 3))
        for batch in plan.batches:
            made = rows[batch]
            assert made["of"] == (5 if batch[0] < 2 else 1), "the examples of the whole step"
            assert made["counts"] or (made["rows"] == [4] and made["tokens"] == 0), "a row stands in for none"
            seen.setdefault(batch[0], []).extend(made["rows"] if made["counts"] else [])
    assert [seen[micro] for micro in range(4)] == [[4, 2, 0], [1, 3], [5], []]


class Gathering(Group):
    """A group whose processes have all come, with what they bring."""

    brought: list[torch.Tensor]

    def gathered(self, own: Any, counts: Any) -> list[Any]:
        return self.brought.pop(0)


def test_a_step_is_put_together_in_the_order_of_the_plan() -> None:
    """Two micro-batches, of rows with 1 and 2 examples; the second process has none of the second."""
    rows, sizes = [np.array([0, 1, 2]), np.array([3])], np.array([1, 2, 1, 2])
    group = Gathering(0, 2)
    ids = [torch.tensor([10, 11, 11, 13, 13]), torch.tensor([12])]
    object.__setattr__(group, "brought", [ids, [one * 0.5 for one in ids], [one + 0 for one in ids],
                                          [one[:, None] * 2.0 for one in ids]])
    own = [Part(*([ids[0][:3]] * 4)), Part(*([ids[0][3:]] * 4))]
    first, second = join_parts(group, own, rows, sizes)
    assert first.ids.tolist() == [10, 11, 11, 12] and second.ids.tolist() == [13, 13]
    assert first.losses.tolist() == [5.0, 5.5, 5.5, 6.0] and second.logits.tolist() == [[26.0], [26.0]]


def test_words_to_predict_tell_only_whether_they_are_finite() -> None:
    part = part_of(np.array([1, 2]), torch.tensor([0.5, float("nan"), 1.0]), None, None, True)
    assert part.ids.tolist() == [1, 2] and part.losses.isnan().all() and part.logits is None
    assert len(part_of(np.array([1]), torch.ones(1), torch.ones(1), torch.ones(1, 2), False).logits) == 0


def test_settings_say_how_many_and_only_where_it_counts() -> None:
    one, two = asked(STUDY), asked(STUDY | {"compute": {"processes": 2}})
    assert asked(STUDY | {"compute": {"processes": 1}}) == one
    assert "compute" not in one["atlas"]["params"] and two["atlas"]["params"]["compute"] == {"processes": 2}
    changed = {name for name in one if one[name] != two[name]} - {"atlas"}
    assert changed == {"pretrain@a", "adapt@b", "train@a_micro-topic_ft_s1", "train@a_micro-topic_lp-ft_s1",
                       "train@a_micro-topic_lora_s1"}
    assert all(two[name] == one[name] | {"processes": 2} for name in changed)
    with pytest.raises(FinetraceError, match="compute: processes: 0 is less than 1"):
        asked(STUDY | {"compute": {"processes": 0}})


def test_another_number_than_asked_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(tmp_path, "train", "x", processes=2)
    monkeypatch.setattr(os, "environ", os.environ | {"WORLD_SIZE": "3"})
    with pytest.raises(FinetraceError, match="3 processes were started, and the study asks for 2; set compute"):
        together._run_in_group(lambda stage: pytest.fail("it began"), stage_of(tmp_path, "train", "x"))


def test_trainings_that_are_one_process_refuse_torchrun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from finetrace.training.trainer import RecordingTrainer

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FinetraceError, match="one process each; run several of them side by side"):
        RecordingTrainer(None, Plan([], 1, 1, 1, np.ones(1)), lambda batch: {}, settings(), scratch=tmp_path, seed=1,
                         recorder=None, hooks=None, loss_of=None)  # type: ignore[arg-type]


def test_fewer_gpus_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(os, "environ", os.environ | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"})
    with pytest.raises(FinetraceError, match="2 processes need 2 GPUs, and 1 can be seen here"), opened():
        pass


def test_who_ended_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert together._report_failure("train@x", 4, {0: -15, 1: -15, 3: -9}) == 1
    assert "stage train@x failed: its process 3 (of 0 to 3) was ended by SIGKILL" in capsys.readouterr().err
    assert together._report_failure("train@x", 2, {0: 130, 1: -15}) == 130 and capsys.readouterr().err == ""
    assert lost(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3"))
    assert not lost(RuntimeError("CUDA out of memory")) and not lost(ValueError("Broken pipe"))

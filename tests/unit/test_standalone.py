"""Results that belong to no single trajectory: their entries in params.yaml, their folders, their runs in MLflow."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import make_lens, make_project

from finetrace.config.base import as_dict
from finetrace.errors import FinetraceError
from finetrace.lenses.comparison.settings import ComparisonSettings
from finetrace.lenses.cross_task.settings import CrossTaskSettings
from finetrace.lenses.directprobe.settings import DirectprobeSettings
from finetrace.study import parse_study
from finetrace.tracking.collect import collect

RUN = "micro-a/micro-sentiment/ft/s1"
SIDES = {"comparisons": {"seeds": ComparisonSettings(RUN, RUN.replace("s1", "s2"))},
         "cross_tasks": {"effect": CrossTaskSettings(RUN, "micro-sentiment")},
         "directprobe": {"old": DirectprobeSettings("sources/config.ini", "sources/data")}}


def test_each_becomes_a_run_of_its_own(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, seeds=(1, 2))
    study = dataclasses.replace(study, **SIDES)
    listed = {(stage, name): text for stage, name, text in study.standalone()}
    assert list(listed) == [("comparison", "seeds"), ("cross-task", "effect"), ("directprobe", "old")]
    assert "classes of micro-sentiment before and after" in listed["cross-task", "effect"]
    assert collect(layout, study).absent == ["comparison seeds", "cross-task effect", "directprobe old"]
    for (stage, name), folder in zip(listed, ("comparisons/seeds", "cross-tasks/effect", "directprobe/old"),
                                     strict=True):
        assert layout.standalone(stage, name) == tmp_path / folder
        make_lens(tmp_path / folder, stage, name, 100)
    found = {record.name: record for record in collect(layout, study).records}
    for stage, name in listed:
        record = found[f"{stage}@{name}"]
        assert (record.kind, record.parent) == (stage, "")
        content = record.load()
        assert content.finals[f"{stage}/slope"] == 0.5 and content.tags["lens"] == stage
        assert "figures/main.png" in content.artifacts and {s.name for s in content.series} == {
            f"{stage}/novelty", f"{stage}/resonance"}


@pytest.mark.parametrize(("section", "entries", "message"), [
    ("cross_tasks", {"effect": {"tuned": "micro-a/micro-sentiment/ft/s9", "task": "micro-sentiment"}},
     "cross_tasks.effect.tuned: 'micro-a/micro-sentiment/ft/s9' is not defined; known: micro-a/micro-sentiment/ft/s1"),
    ("cross_tasks", {"effect": {"tuned": RUN, "task": "nothing"}},
     "effect.task: 'nothing' is not defined; known: micro"),
    ("cross_tasks", {"Effect": {"tuned": RUN, "task": "micro-sentiment"}},
     "cross_tasks: 'Effect' cannot name a folder"),
    ("cross_tasks", {"effect": {"tuned": RUN, "task": "micro-sentiment", "layer": 3}}, "did you mean 'layers'"),
    ("directprobe", {"../x": {"config": "a.ini", "inputs": "b"}}, "directprobe: '../x' cannot name a folder"),
    ("directprobe", {"x": {"config": "a.ini"}}, "key 'directprobe.x.inputs' is missing; add it"),
])
def test_entries_that_cannot_work_are_refused(tmp_path: Path, section: str, entries: dict[str, Any],
                                              message: str) -> None:
    _, study = make_project(tmp_path, outputs=False)
    content = {k: v for k, v in as_dict(study).items() if k in ("study", "pretrain", "tasks", "methods", "runs")}
    assert parse_study(content, "params.yaml").standalone() == []
    with pytest.raises(FinetraceError, match=message):
        parse_study(content | {section: entries}, "params.yaml")

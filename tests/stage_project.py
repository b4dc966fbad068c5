"""A folder in which stages can be opened, for tests of what every stage shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetrace.layout import Layout
from finetrace.pipeline import stage as stage_module
from finetrace.pipeline.stage import Stage, open_stage
from tests.stages import ask


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for item in ("sst2", "own"):
        ask(tmp_path, "data", item, task={"source": "micro"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def quiet_logger() -> Iterator[None]:
    yield
    for handler in list(stage_module.log.handlers):
        handler.close()
        stage_module.log.removeHandler(handler)
    stage_module.log.propagate = True


def stage_of(project: Path, item: str = "own") -> Stage:
    stage = open_stage("data", item, Layout(project, project))
    stage.started = 1_790_000_000.0
    return stage

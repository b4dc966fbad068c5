"""A project whose outputs are ready to be published, free of settings from outside."""

from pathlib import Path

import pytest
from tests.outputs import empty_store, make_project

from finetrace.layout import Layout
from finetrace.study import Study
from finetrace.tracking.publish import git_tags


@pytest.fixture(autouse=True)
def no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    git_tags.cache_clear()


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    layout, study = make_project(tmp_path / "project", steps=60)
    empty_store(layout.home)
    return layout, study

"""A project whose outputs are ready to be published, free of settings from outside."""

import sqlite3
from pathlib import Path
from typing import Any

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


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> None:
    """Databases that a loss of power may damage: waiting until all is on the disk takes half of the time."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def trust(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", trust)


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    layout, study = make_project(tmp_path / "project", steps=60)
    empty_store(layout.home)
    return layout, study

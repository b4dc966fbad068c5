"""dvc.lock on another processor: git leaves it alone as long as nothing but results differs."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetrace.layout import Layout
from finetrace.pipeline.other_bits import leave_alone


def lock(train: str = "1", code: str = "2", atlas: str = "3", outputs: str = "4") -> str:
    stages: dict[str, Any] = {
        "train@a": {"cmd": "python train.py a", "deps": [{"path": "settings/train/a.json", "md5": code}],
                    "outs": [{"path": "outputs/a", "md5": train}]},
        "atlas": {"cmd": "python atlas.py", "deps": [{"path": "outputs", "md5": outputs}],
                  "outs": [{"path": "atlas", "md5": atlas}]},
    }
    return yaml.safe_dump({"schema": "2.0", "stages": stages})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    git(tmp_path, "init", "-q")
    (tmp_path / "dvc.lock").write_text(lock())
    git(tmp_path, "add", "dvc.lock")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "lock")
    return Layout(tmp_path, tmp_path)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def seen(layout: Layout) -> str:
    return git(layout.root, "status", "--porcelain")


def test_other_results_leave_the_tree_clean_until_something_else_differs(layout: Layout) -> None:
    file = layout.root / "dvc.lock"
    assert leave_alone(layout) == "" and seen(layout) == ""
    file.write_text(lock(train="5", atlas="6", outputs="7"))
    assert seen(layout) == " M dvc.lock\n"
    assert "this processor's results differ" in leave_alone(layout) and seen(layout) == ""
    assert leave_alone(layout) == ""  # said once
    file.write_text(lock(train="5", code="8"))
    assert leave_alone(layout) == "" and seen(layout) == " M dvc.lock\n"
    file.write_text(lock(train="5"))
    assert leave_alone(layout) != "" and seen(layout) == ""
    file.write_text(lock())
    assert leave_alone(layout) == "" and git(layout.root, "ls-files", "-v") == "H dvc.lock\n"


@pytest.mark.parametrize("change", [{"outputs": "7", "atlas": "6"}, {"code": "8"}])
def test_what_is_no_other_processor_is_shown(layout: Layout, change: dict[str, str]) -> None:
    """Folders of another study in outputs/, and other settings."""
    (layout.root / "dvc.lock").write_text(lock(**change))
    assert leave_alone(layout) == "" and seen(layout) == " M dvc.lock\n"


def test_no_git_no_lock_and_experiments_are_left_as_they_are(layout: Layout, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    assert leave_alone(Layout(away, tmp_path)) == ""  # an experiment's folder
    git(tmp_path, "rm", "-q", "dvc.lock")
    assert leave_alone(layout) == ""

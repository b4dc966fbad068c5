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


def left_alone(layout: Layout, remote: bool = False) -> str:
    return leave_alone(layout, remote)


def test_other_results_leave_the_tree_clean_until_something_else_differs(layout: Layout) -> None:
    file = layout.root / "dvc.lock"
    assert left_alone(layout) == "" and seen(layout) == ""
    file.write_text(lock(train="5", atlas="6", outputs="7777"))
    assert seen(layout) == " M dvc.lock\n"
    assert "this processor's results differ" in left_alone(layout) and seen(layout) == ""
    assert left_alone(layout) == ""  # said once
    file.write_text(lock(train="55", atlas="6", outputs="7777"))
    assert left_alone(layout) == "" and seen(layout) == ""  # results of another day
    file.write_text(lock(train="5", code="8"))
    assert left_alone(layout) == "" and seen(layout) == " M dvc.lock\n"
    file.write_text(lock(train="5"))
    assert left_alone(layout) != "" and seen(layout) == ""
    file.write_text(lock())
    assert left_alone(layout) == "" and seen(layout) == ""
    file.write_text(lock(train="5"))
    assert seen(layout) == " M dvc.lock\n", "git looks again"


def test_with_a_remote_the_lock_is_to_be_committed(layout: Layout) -> None:
    (layout.root / "dvc.lock").write_text(lock(train="5"))
    left_alone(layout)
    assert seen(layout) == ""
    assert "dvc push, and commit it" in left_alone(layout, remote=True) and seen(layout) == " M dvc.lock\n"


def test_pull_switch_and_stash_work_on_a_lock_that_is_left_alone(layout: Layout, tmp_path: Path) -> None:
    """With the flag skip-worktree git refused to pull, and neither stash nor checkout could help."""
    here = tmp_path / "a clone"
    git(tmp_path, "clone", "-q", ".", str(here))
    (here / "dvc.lock").write_text(lock(train="55"))
    git(here, "update-index", "--skip-worktree", "dvc.lock")  # as an earlier version left it
    assert left_alone(Layout(here, here)) != "" and seen(Layout(here, here)) == ""
    (tmp_path / "dvc.lock").write_text(lock(train="9"))
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "new")
    git(here, "stash")
    assert (here / "dvc.lock").read_text() == lock(train="55"), "nothing to stash"
    git(here, "switch", "-qc", "other")
    git(here, "pull", "-q", "--ff-only", "origin", "HEAD")
    assert (here / "dvc.lock").read_text() == lock(train="9") and seen(Layout(here, here)) == ""


def test_a_project_in_a_folder_of_a_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    project = tmp_path / "a b" / "projekt é"
    project.mkdir(parents=True)
    for folder in (tmp_path, project):
        (folder / "dvc.lock").write_text(lock())
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "locks")
    for folder in (tmp_path, project):
        (folder / "dvc.lock").write_text(lock(train="55"))
    assert left_alone(Layout(project, project)) != ""
    assert git(tmp_path, "status", "--porcelain") == " M dvc.lock\n", "the other one is none of ours"


@pytest.mark.parametrize("change", [{"outputs": "7", "atlas": "6"}, {"code": "8"}])
def test_what_is_no_other_processor_is_shown(layout: Layout, change: dict[str, str]) -> None:
    """Folders of another study in outputs/, and other settings."""
    (layout.root / "dvc.lock").write_text(lock(**change))
    assert left_alone(layout) == "" and seen(layout) == " M dvc.lock\n"


def test_no_git_no_lock_and_experiments_are_left_as_they_are(layout: Layout, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    assert left_alone(Layout(away, tmp_path)) == ""  # an experiment's folder
    git(tmp_path, "rm", "-q", "dvc.lock")
    assert left_alone(layout) == ""

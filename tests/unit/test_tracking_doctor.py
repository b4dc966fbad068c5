"""The doctor finds each trouble, names the fix, and changes nothing."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.outputs import empty_store, make_project

from finetrace.layout import Layout
from finetrace.pipeline.compile import write_plan
from finetrace.tracking import doctor as module
from finetrace.tracking.doctor import doctor
from finetrace.tracking.store import open_store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout, study = make_project(tmp_path / "project", outputs=False)
    write_plan(layout, study)
    (layout.home / "dvc.yaml").write_text("stages: {}\n")
    (layout.home / ".dvc").mkdir()
    git = ["git", "-C", str(layout.home), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "Start"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return layout


def found(layout: Layout) -> tuple[int, str]:
    lines: list[str] = []
    return doctor(layout, lines.append), "\n".join(lines)


def test_a_healthy_project_lists_what_was_checked(project: Layout) -> None:
    empty_store(project.home)
    open_store(f"sqlite:///{project.home}/mlflow.db", project.home, "demo")
    before = {p: p.stat().st_mtime_ns for p in project.home.rglob("*") if ".git" not in p.parts}
    count, text = found(project)
    assert count == 0, text
    for name in module.CHECKS:
        assert f"ok       {name}" in text
    assert before == {p: p.stat().st_mtime_ns for p in project.home.rglob("*") if ".git" not in p.parts}


def test_not_a_project_folder(project: Layout, tmp_path: Path) -> None:
    inside = project.home / "studies" / "mine"
    inside.mkdir(parents=True)
    count, text = found(Layout(inside, inside))
    assert count and "is not a project folder" in text and f"fix: cd {project.home}" in text
    count, text = found(Layout(tmp_path, tmp_path))
    assert "go to the folder that you cloned" in text and "is not a git repository" in text and "no .dvc folder" in text


def test_a_project_that_is_told_to_do_without_git_is_healthy(project: Layout) -> None:
    shutil.rmtree(project.home / ".git")
    assert "PROBLEM  git" in found(project)[1]
    (project.home / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    count, text = found(project)
    assert count == 0 and "note     git: " in text and "without git" in text


def test_wrong_and_missing_params(project: Layout) -> None:
    project.params.write_text("study: {name: x}\ntrian: {}\n")
    count, text = found(project)
    assert count == 1 and "unknown key 'trian'; did you mean 'train'?" in text
    project.params.unlink()
    count, text = found(project)
    assert count == 1 and "params.yaml is missing" in text and "finetrace use NAME" in text


def test_a_plan_of_another_study_is_a_note(project: Layout) -> None:
    """`finetrace repro` makes it anew; plain `dvc repro` would run the old one once more."""
    text = project.params.read_text()
    project.params.write_text(text.replace("seed: 0", "seed: 1"))
    assert "ok       params.yaml" in found(project)[1], "the plan says which items there are, not their settings"
    project.params.write_text(text.replace("infodynamics: all", "geometry: all"))
    count, said = found(project)
    assert count == 0 and "note     params.yaml: plan.yaml is not that of params.yaml" in said
    assert "fix: finetrace plan" in said
    project.params.write_text(text)
    project.plan.unlink()
    assert "plan.yaml is not that of params.yaml" in found(project)[1]


@pytest.mark.parametrize(("old", "new", "told"), [
    ("infodynamics: all", "infodynamic: all", "'infodynamic' is neither a lens nor a group; nearest: infodynamics"),
    ("source: micro", "source: hub", "key 'id' is missing; add it"),
])
def test_what_the_plan_cannot_be_made_of_is_a_problem(project: Layout, old: str, new: str, told: str) -> None:
    text = project.params.read_text()
    assert old in text
    project.params.write_text(text.replace(old, new))
    count, said = found(project)
    assert count == 1 and told in said and "edit params.yaml, or start over: finetrace use NAME" in said


def test_missing_and_old_packages(project: Layout) -> None:
    (project.root / "pyproject.toml").write_text(
        '[project]\nname = "finetrace"\nrequires-python = ">=3.99"\n'
        'dependencies = ["mlflow>=99", "no-such-package-xyz>=1", "pyarrow>=1", "nope; python_version < \'3\'"]\n')
    count, text = found(project)
    assert count == 3
    assert "is outside >=99" in text and "no-such-package-xyz is not installed" in text and "outside >=3.99" in text


def test_missing_commands(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(module.sys, "executable", "/no/python")
    count, text = found(project)
    assert count == 2 and "command dvc is not on the PATH" in text and "command git is not on the PATH" in text


def test_old_file_store(project: Layout) -> None:
    (project.home / "mlruns" / "12").mkdir(parents=True)
    (project.home / "mlruns" / "12" / "meta.yaml").write_text("name: x\n")
    count, text = found(project)
    assert count == 1 and "old file store (12)" in text and "mlflow migrate-filestore" in text


def test_broken_store(project: Layout) -> None:
    path = empty_store(project.home)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'abc'")
    database.close()
    before = path.read_bytes()
    count, text = found(project)
    assert count == 1 and "found version abc" in text and "mv mlflow.db mlflow.db.broken" in text
    assert f"{path}: MLflow" in text and f"mlflow db upgrade sqlite:///{path}" in text
    assert path.read_bytes() == before


def test_a_store_that_mlflow_will_change_is_a_note(project: Layout) -> None:
    path = empty_store(project.home)
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE params")  # MLflow makes tables that are missing
    database.close()
    before = path.read_bytes()
    count, text = found(project)
    assert count == 0 and "will bring its tables up to date" in text and path.read_bytes() == before


def test_moved_store(project: Layout, tmp_path: Path) -> None:
    empty_store(project.home)
    open_store(f"sqlite:///{project.home}/mlflow.db", project.home, "demo")
    moved = shutil.copytree(project.home, tmp_path / "moved", symlinks=True)
    count, text = found(Layout(moved, moved))
    assert (
        count == 1 and f"moved from {project.home}" in text and "fix: finetrace publish, with study.name demo" in text
    )
    open_store(f"sqlite:///{moved}/mlflow.db", moved, "demo")
    assert found(Layout(moved, moved))[0] == 0


def test_wrong_tracking_uri(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    count, text = found(project)
    assert count == 1 and "no longer takes a folder" in text


def test_unfinished_work_is_a_note(project: Layout) -> None:
    for name, age in (("abc", 7200), ("def", 0)):
        work = project.scratch("train", name)
        work.mkdir(parents=True)
        (work / "state").write_bytes(b"x" * 2**20)
        os.utime(work / "state", (time.time() - age,) * 2)
    count, text = found(project)
    assert count == 0
    assert "unfinished work in .finetrace/scratch/train/abc: 1.0 MiB, last written 2.0 h ago" in text
    assert ".finetrace/scratch/train/def is being worked on" in text

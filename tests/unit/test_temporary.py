"""An experiment in a temporary folder lacks what git does not know: said before anything runs."""

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.code_project import code_project

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.temporary import whole_study

ROOT = Path(__file__).parents[2]
ROWS = {"reviews": {"path": "sources/reviews.csv", "text": ["text"], "label": "label"}}


@pytest.fixture
def copied(tmp_path: Path) -> Layout:
    """A committed project, and a copy of it as DVC makes one: what git knows."""
    home = tmp_path / "home"
    code_project(home, task_files=ROWS)
    (home / ".gitignore").write_text("/sources/\n__pycache__/\n")
    (home / "sources").mkdir()
    (home / "sources" / "reviews.csv").write_text("text,label\na,b\n")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(home), *words], check=True)
    root = tmp_path / "copy"
    shutil.copytree(home, root, ignore=shutil.ignore_patterns(".git"))
    return Layout(root, home)


def test_a_whole_copy_is_a_study(copied: Layout) -> None:
    assert whole_study(copied) == whole_study(Layout(copied.home, copied.home))


@pytest.mark.parametrize("name", ["src/finetrace/lenses/new.py", "pipelines/new lens.py", "accepted.yaml"])
def test_code_that_git_does_not_know(copied: Layout, name: str) -> None:
    (copied.home / name).write_text("")
    with pytest.raises(FinetraceError) as caught:
        whole_study(copied)
    assert str(caught.value).startswith(f"{name}: git does not know it, ") and "git add" in str(caught.value)
    assert whole_study(Layout(copied.home, copied.home)).tasks  # in the project itself it is nobody's business
    (copied.root / name).write_text("")  # --copy-paths
    whole_study(copied)


def test_what_git_ignores_decides_nothing(copied: Layout) -> None:
    (copied.home / "src/finetrace/__pycache__").mkdir()
    (copied.home / "src/finetrace/__pycache__/x.pyc").write_text("")
    (copied.home / "notes.txt").write_text("")
    whole_study(copied)


def test_many_are_counted(copied: Layout) -> None:
    for number in range(7):
        (copied.home / f"src/finetrace/new{number}.py").write_text("")
    with pytest.raises(FinetraceError, match=r"new0\.py, .*new4\.py and 2 more: git does not know them"):
        whole_study(copied)


def test_data_that_git_ignores(copied: Layout) -> None:
    (copied.root / "sources" / "reviews.csv").unlink()
    with pytest.raises(FinetraceError) as caught:
        whole_study(copied)
    assert str(caught.value).startswith("sources/reviews.csv: git does not know it or ignores it, ")
    assert str(caught.value).endswith("or run it with --copy-paths sources/reviews.csv")


@pytest.mark.parametrize("script", ["plan", "settings"])
def test_the_first_stages_say_it(copied: Layout, script: str, monkeypatch: pytest.MonkeyPatch,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    (copied.home / "pipelines/new.py").write_text("")
    monkeypatch.chdir(copied.root)
    monkeypatch.setenv("DVC_ROOT", str(copied.home))
    assert runpy.run_path(str(ROOT / f"pipelines/{script}.py"))["main"]() == 1
    assert capsys.readouterr().err.startswith("finetrace: pipelines/new.py: git does not know it")
    assert not (copied.root / "plan.yaml").exists() and not (copied.root / "settings").exists()

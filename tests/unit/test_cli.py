"""The command line: exit codes, messages, and never losing a user's params.yaml."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.code_project import CODE, RANK, code_project, edit
from tests.outputs import make_project

from finetrace.cli import main
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.files import write_yaml
from finetrace.study.use import chosen_file, follow


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path, outputs=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in ("one", "two"):
        write_yaml(tmp_path / "studies" / f"{name}.yaml", {"study": {"name": name}})
    return tmp_path


def commit(folder: Path) -> None:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "Start"]):
        subprocess.run([*git, *arguments], check=True)


def test_use_takes_a_name_or_a_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(project)
    assert main(["use", "one"]) == 0
    assert (project / "params.yaml").read_bytes() == (project / "studies" / "one.yaml").read_bytes()
    assert "study 'one'" in capsys.readouterr().out
    assert main(["use", "studies/two.yaml"]) == 0  # params.yaml is now equal to studies/one.yaml: nothing can be lost
    assert "name: two" in (project / "params.yaml").read_text()
    assert main(["use", "two.yaml"]) == 0


def test_use_refuses_to_lose_changes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(project)
    mine = (project / "params.yaml").read_text() + "# mine\n"
    (project / "params.yaml").write_text(mine)
    assert main(["use", "one"]) == 1
    assert "cp params.yaml studies/NAME.yaml" in capsys.readouterr().err
    assert (project / "params.yaml").read_text() == mine
    (project / "studies" / "mine.yaml").write_text(mine)
    assert main(["use", "one"]) == 0
    (project / "params.yaml").write_text(mine + "# more\n")
    assert main(["use", "one", "--force"]) == 0
    assert "name: one" in (project / "params.yaml").read_text()


def test_use_without_git_refuses_too(project: Path) -> None:
    assert main(["use", "one"]) == 1
    (project / "params.yaml").unlink()
    assert main(["use", "one"]) == 0


def test_use_checks_the_study_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(project)
    before = (project / "params.yaml").read_bytes()
    (project / "studies" / "bad.yaml").write_text("study: {name: x, sed: 1}\n")
    assert main(["use", "bad"]) == 1
    assert "did you mean 'seed'?" in capsys.readouterr().err
    assert main(["use", "nothing"]) == 1
    assert "there are: bad, one, two" in capsys.readouterr().err
    assert (project / "params.yaml").read_bytes() == before


def test_use_refuses_a_study_whose_plan_cannot_be_made(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (project / "params.yaml").read_bytes()
    write_yaml(project / "studies" / "bad.yaml", {"study": {"name": "bad"}, "tasks": {"nothing-known": {}}})
    assert main(["use", "bad", "--force"]) == 1
    assert "'nothing-known' is not a built-in task" in capsys.readouterr().err
    assert (project / "params.yaml").read_bytes() == before


def test_what_was_chosen_can_be_left_again(project: Path) -> None:
    """A study whose file has gone on since: params.yaml is its earlier state, which is nobody's work."""
    assert main(["use", "one", "--force"]) == 0
    edit(project, "studies/one.yaml", "one", "one-more")
    assert main(["use", "two"]) == 0
    assert "name: two" in (project / "params.yaml").read_text()


# --- a chosen study is followed


@pytest.fixture
def chosen(project: Path, capsys: pytest.CaptureFixture[str]) -> Layout:
    assert main(["use", "one", "--force"]) == 0
    capsys.readouterr()
    return Layout(project, project)


def test_an_edited_study_is_taken_over(chosen: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    follow(chosen)
    assert capsys.readouterr().out == ""
    edit(chosen.root, "studies/one.yaml", "one", "one-more")
    follow(chosen)
    assert capsys.readouterr().out == "studies/one.yaml has changed since it was chosen: params.yaml is that again\n"
    assert "name: one-more" in chosen.params.read_text()
    edit(chosen.root, "studies/one.yaml", "one-more", "third")  # and so on
    follow(chosen)
    assert "name: third" in chosen.params.read_text()


def test_params_that_were_edited_are_not_overwritten(chosen: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    edit(chosen.root, "params.yaml", "one", "mine")
    follow(chosen)
    assert capsys.readouterr().out == ""
    edit(chosen.root, "studies/one.yaml", "one", "one-more")
    follow(chosen)
    assert "name: mine" in chosen.params.read_text()
    assert (
        "and so has params.yaml, which is what runs; finetrace use studies/one.yaml --force" in capsys.readouterr().out
    )
    (chosen.root / "studies" / "one.yaml").write_text(chosen.params.read_text())  # saved as the message of `use` says
    follow(chosen)
    assert capsys.readouterr().out == ""


def test_a_chosen_study_elsewhere_is_known(project: Path, tmp_path: Path) -> None:
    """`finetrace repro` looks at it, too, before it says that nothing was touched."""
    other = tmp_path / "mine.yaml"
    other.write_text((project / "studies" / "two.yaml").read_text())
    assert main(["use", str(other), "--force"]) == 0
    assert chosen_file(Layout(project, project)) in (other, project / other.name)
    other.unlink()
    assert chosen_file(Layout(project, project)) is None


def test_a_study_that_became_wrong_is_told_and_not_taken_over(chosen: Layout) -> None:
    before = chosen.params.read_bytes()
    edit(chosen.root, "studies/one.yaml", "study", "stduy")
    with pytest.raises(FinetraceError, match=r"one\.yaml: .*'stduy'.*did you mean 'study'"):
        follow(chosen)
    assert chosen.params.read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"study": "studies/one.yaml"}', "\x00"])
def test_a_damaged_memory_follows_nothing(chosen: Layout, content: str) -> None:
    (chosen.home / ".finetrace" / "study.json").write_text(content)
    edit(chosen.root, "studies/one.yaml", "one", "one-more")
    follow(chosen)
    assert "one-more" not in chosen.params.read_text()


def test_a_study_that_is_gone_leaves_params_alone(chosen: Layout) -> None:
    (chosen.root / "studies" / "one.yaml").unlink()
    follow(chosen)
    assert "name: one" in chosen.params.read_text()


# --- plan and accept


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    code_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def test_plan_writes_the_plan_and_the_settings(coded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    said = capsys.readouterr().out
    assert said == "study 'demo': 9 items, 1 fine-tunings; plan.yaml is written\n"
    assert (coded / "settings" / "geometry" / "micro-a_micro-sentiment_ft_s1.json").is_file()
    assert main(["plan"]) == 0
    assert "plan.yaml is up to date" in capsys.readouterr().out


def test_plan_lists_the_items_and_writes_nothing(coded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--list"]) == 0
    run = "micro-a_micro-sentiment_ft_s1"
    assert capsys.readouterr().out.splitlines() == [
        "world", "pretrain@micro-a", "data@micro-sentiment", f"train@{run}", "inputs@atlas--none", f"hidden@{run}",
        f"geometry@{run}", "atlas", "publish"]
    assert sorted(p.name for p in coded.iterdir()) == sorted({"params.yaml", *(n.split("/")[0] for n in CODE)})


def test_plan_tells_what_is_wrong_and_leaves_the_old_plan(coded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    before = (coded / "plan.yaml").read_bytes()
    edit(coded, "params.yaml", "geometry: all", "geometri: all")
    for arguments in (["plan"], ["plan", "--list"]):
        assert main(arguments) == 1
        assert "'geometri' is neither a lens nor a group; nearest: geometry" in capsys.readouterr().err
    assert (coded / "plan.yaml").read_bytes() == before
    (coded / "dvc.yaml").unlink()
    assert main(["plan"]) == 1
    assert "has no dvc.yaml; run this in the project folder" in capsys.readouterr().err


def test_accept_tells_what_it_cannot_accept(coded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in ((["geometry", "--because", " "], "--because: say why the change alters no result"),
                               (["geometri", "--because", "x"], "geometri: is no stage with a script in pipelines/"),
                               (["geometry", "--because", "x"], "nothing to accept: the results of geometry are of")):
        assert main(["accept", *arguments]) == 1
        assert message in capsys.readouterr().err
    edit(coded, RANK, "def rank(x)", "def rank(x, y=0)")
    assert main(["accept", "all", "--because", "no results yet"]) == 1
    assert not (coded / "accepted.yaml").exists()


def test_publish_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["publish"]) == 1
    assert "params.yaml: not found; run this in the project folder" in capsys.readouterr().err


def test_doctor_exits_with_1_when_there_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 1
    assert "is not a project folder" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["use"], ["grid"], ["accept", "geometry"], ["accept"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_help_starts_fast() -> None:
    code = ("import sys, finetrace.cli as c\n"
            "try: c.main(['--help'])\nexcept SystemExit: pass\n"
            "assert not {'mlflow', 'torch', 'pyarrow', 'numpy'} & set(sys.modules), sys.modules.keys()")
    source = Path(__file__).resolve().parents[2] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)}, capture_output=True)


def test_a_database_that_cannot_be_written_is_told_in_a_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """sqlite says so of a file that may not grow, and of a broken disk."""

    def broken(_: object) -> int:
        raise RuntimeError("the store is gone") from sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("finetrace.cli._publish", broken)
    assert main(["publish"]) == 1
    assert f"{project}: a database of the project could not be written" in capsys.readouterr().err

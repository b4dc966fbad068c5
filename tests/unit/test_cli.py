"""The command line: exit codes, messages, and never losing a user's params.yaml."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.outputs import make_project

from finetrace.cli import main
from finetrace.store.files import write_yaml


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


@pytest.mark.parametrize("arguments", [[], ["fly"], ["use"]])
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

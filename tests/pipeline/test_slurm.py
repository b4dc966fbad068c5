"""A study by the commands of `finetrace plan --slurm`, run by a program that stands for sbatch: the same bytes."""

import subprocess
from pathlib import Path

import pytest
from tests.pipeline.test_kill import STUDY
from tests.pipeline.toy import command, committed, environment, finetrace, make_project, repro
from tests.unit.test_slurm import SBATCH

pytestmark = pytest.mark.slow


def test_the_script_gives_what_repro_gives(tmp_path: Path) -> None:
    undisturbed = make_project(tmp_path / "undisturbed", STUDY)
    repro(undisturbed)
    committed(undisturbed, "outputs")
    project = tmp_path / "cluster"
    command(undisturbed, "git", "clone", "-q", ".", str(project))
    (project / "dvc.lock").unlink()
    script = finetrace(project, "plan", "--slurm").stdout
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(SBATCH)
    (tmp_path / "bin/sbatch").chmod(0o755)
    own = environment(project, RECORD="1")
    done = subprocess.run(["bash", "-c", script], env=own | {"PATH": f"{tmp_path / 'bin'}:{own['PATH']}"},
                          cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = (project / "said").read_text()
    assert "is there already" in said, "the last job finds what the others made"
    for name in ("said", "submitted", "body"):
        (project / name).unlink()
    assert command(project, "git", "status", "--porcelain").stdout == ""
    assert (project / "dvc.lock").read_text() == (undisturbed / "dvc.lock").read_text()
    assert "up to date" in finetrace(project, "plan", "--slurm").stdout

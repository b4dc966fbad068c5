"""One training that two processes do together is the training that one does, but for the last bits."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests import group_jobs
from tests.conftest import listen_to_ctrl_c
from tests.group_jobs import COMPARED, FINETUNED, JOBS, OF_EVERY_KIND, ROOT, assert_same, do, environment
from tests.stages import ask, of_run
from tests.training_drills import digests
from tests.training_fixtures import SIGNALS, recording

from finetrace.config.base import as_dict
from finetrace.config.written import written
from finetrace.store.checkpoints import list_weights
from finetrace.store.manifest import OF_MANIFEST, Manifest, complete, read_manifest
from finetrace.store.tables import read_table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One job of every kind done by two processes, below two/."""
    root = tmp_path_factory.mktemp("together")
    group_jobs.inputs(root)
    group_jobs.do_together(root, OF_EVERY_KIND)
    return root


@pytest.fixture(scope="module")
def whole(root: Path) -> Path:
    """Every job done by two processes, below two/."""
    group_jobs.do_together(root, [name for name in JOBS if name not in OF_EVERY_KIND])
    return root


@pytest.mark.parametrize("name", [name for name in COMPARED if name in OF_EVERY_KIND])
def test_the_same_rows_signals_and_weights(root: Path, name: str) -> None:
    assert_same(name, do(root, root / "one", name), root / "two" / name, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMPARED if name not in OF_EVERY_KIND])
def test_so_have_all_others(whole: Path, name: str) -> None:
    assert_same(name, do(whole, whole / "one", name), whole / "two" / name, 0.03 if name == "bf16" else 1e-5)


def test_early_stopping_stops_all(root: Path) -> None:
    out = root / "two" / "stopped"
    facts, metrics = (json.loads((out / name).read_text()) for name in ("facts.json", "metrics.json"))
    assert facts["steps"] < 32 and facts["kept_step"] in list_weights(out / "checkpoints")
    assert read_table(out / SIGNALS).num_rows == metrics["examples"] == facts["rows"]["signals"]


ITEM = "tiny_toy_ft_s0"


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A project folder whose one training two processes shall do: the job `drill`."""
    for kind, name, source in (("model", "models/tiny", "model"), ("data", "data/toy", "task")):
        shutil.copytree(root / source, tmp_path / name)
        if kind == "model":
            complete(tmp_path / name, Manifest("model", "model", "tiny", "1", {}, {}, {}), started=0.0)
    train, record = FINETUNED["drill"][0], recording(**group_jobs.RECORD | {"resume_seconds": 0.2})
    ask(tmp_path, "train", ITEM, **of_run("tiny/toy/ft/s0"), kind={"kind": "ft", "settings": "fixed"}, tune="",
        record=as_dict(record), train=written(train), processes=2)
    return tmp_path


def process_of(starter: int, rank: int) -> int:
    """One of the processes that were started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_bytes().rpartition(b")")[2].split()[1])
            if parent == starter and f"RANK={rank}".encode() in (path.parent / "environ").read_bytes().split(b"\0"):
                return int(path.parent.name)
    raise AssertionError(f"no process {rank}")


def begun(project: Path) -> subprocess.Popen[str]:
    """The stage, started as DVC does, when it has left a state to go on from."""
    process = subprocess.Popen([sys.executable, str(ROOT / "pipelines/train.py"), ITEM], cwd=project,
                               stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c, env=environment())
    deadline = time.monotonic() + 120
    while not list(project.glob(".finetrace/scratch/train/*/checkpoint-*/complete.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]
    return process


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_next_start_goes_on(whole: Path, project: Path, run_script: Any) -> None:
    process = begun(project)
    os.kill(process_of(process.pid, 1), signal.SIGKILL)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1, error
    assert [line for line in error.splitlines() if line.startswith("finetrace:")] == [
        f"finetrace: stage train@{ITEM} failed: its process 1 (of 0 to 1) was ended by SIGKILL; where nobody did that, "
        "memory was short; all have ended, and the same command goes on from the last state"]
    assert "Traceback" not in error
    out = project / "outputs/tiny/toy/ft/s0/trajectory"
    assert not out.exists()
    done = run_script("pipelines/train.py", ITEM, cwd=project, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert not list((project / ".finetrace/scratch/train").iterdir())
    ours = {name: digest for name, digest in digests(out).items() if name not in OF_MANIFEST}
    wanted = digests(whole / "two" / "drill")
    del wanted["facts.json"]
    assert ours == wanted, "a training that was killed gives the bytes of one that was not"
    manifest = read_manifest(out)
    assert manifest.settings["processes"] == 2 and manifest.device.startswith("2 x ")


@pytest.mark.slow
def test_ctrl_c_ends_all(project: Path) -> None:
    process = begun(project)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert error.count("interrupted; run the same command to continue") == 1 and "Traceback" not in error

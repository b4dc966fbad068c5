"""Two runs at once wait for each other, with one line that says so and for whom."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.stage_project import project, quiet_logger  # noqa: F401 - fixtures

from finetrace.pipeline import stage as stage_module
from finetrace.store.files import file_lock

HOLD = """
import sys, time
from pathlib import Path
from finetrace.store.files import file_lock
with file_lock(Path(sys.argv[1]), "waiting"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1] + ".released").touch()
"""


def holder(lock: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_who_waits_says_for_which_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = tmp_path / "locks" / "train@a"
    with holder(lock, 0.5) as other, caplog.at_level(logging.WARNING), file_lock(lock, "waiting for it"):
        assert lock.with_name("train@a.released").exists()
    assert caplog.messages == [f"waiting for it (process {other.pid})"]


def test_a_killed_holder_leaves_nothing_to_wait_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = tmp_path / "train@a"
    with holder(lock, 60) as other:
        other.kill()
    with caplog.at_level(logging.WARNING), file_lock(lock, "waiting"):
        assert caplog.messages == []


@pytest.mark.parametrize("note", [None, "", "nobody", "999999999"])
def test_a_holder_that_is_not_known_is_not_named(tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                 note: str | None) -> None:
    lock = tmp_path / "train@a"
    with caplog.at_level(logging.WARNING), holder(lock, 0.3):
        noted = lock.with_name("train@a.pid")
        noted.unlink()
        if note is not None:
            noted.write_text(note)
        with file_lock(lock, "waiting"):
            pass
    assert caplog.messages == ["waiting"]


def test_an_item_is_made_by_one_process_at_a_time(project: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    """Another run's training of the same item goes on: this one waits, and says so in one line."""
    monkeypatch.setattr(sys, "argv", ["data.py", "own"])
    lock, begun = project / ".finetrace" / "locks" / "data@own", []
    with holder(lock, 0.5) as other:
        stage_module.run("data", lambda stage: begun.append(lock.with_name("data@own.released").exists()))
    assert begun == [True]
    lines = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert lines == [f"data@own: another process makes it; waiting for it (process {other.pid})"]
    assert os.getpid() == int(lock.with_name("data@own.pid").read_text())

"""The stage edges as a process: an interrupted one continues, and its errors say what to do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import ROOT, listen_to_ctrl_c
from tests.edge_stage import NAME, PLACE, ask_edges

from finetrace.store.manifest import read_manifest


def project(root: Path, **settings) -> Path:
    ask_edges(root, {"pairs": {"spans": 2}}, **settings)
    return root


@pytest.mark.slow
def test_an_interrupted_stage_says_so_and_continues(tmp_path, run_script):
    root = project(tmp_path, checkpoints="ends", mixes="full", changes={"max_steps": 150}, control={})
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(ROOT / "pipelines/edges.py"), NAME], cwd=root, text=True,
                               stderr=subprocess.PIPE, env=environment, preexec_fn=listen_to_ctrl_c)
    kept = root / ".finetrace/results/edges"
    begun = time.monotonic()
    while not (kept.is_dir() and any(p.name[0] != "." for p in kept.iterdir())) and time.monotonic() - begun < 120:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "run the same command to continue" in text, text
    finished = [p for p in kept.iterdir() if (p / "manifest.json").is_file()]
    assert finished and not (root / "outputs" / PLACE / "edges").exists()
    times = {p: (p / "manifest.json").stat().st_mtime_ns for p in finished}
    again = run_script("pipelines/edges.py", NAME, cwd=root, OMP_NUM_THREADS="1")
    assert again.returncode == 0, again.stderr
    assert f"{len(finished)} of 4 results are there" in again.stderr
    assert {p: (p / "manifest.json").stat().st_mtime_ns for p in finished} == times
    assert read_manifest(root / "outputs" / PLACE / "edges").facts["steps"] == [0, 64]


def test_a_wrong_setting_is_named_with_its_fix(tmp_path, run_script):
    root = project(tmp_path, changes={"lerning_rate": 1})
    found = run_script("pipelines/edges.py", NAME, cwd=root)
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "params.yaml: edges: changes: unknown key 'lerning_rate'; did you mean 'learning_rate'?" in found.stderr

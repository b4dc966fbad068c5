"""What needs a CUDA device: the same records in bf16, the same bits after a crash, and the cost of recording."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training_drills import digests, finetune_job, run
from tests.training_fixtures import HISTORY, SEEDS, SIGNALS, bert_config, model_folder, recording, settings, task_folder

from finetrace.store.tables import matrix, read_table

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ROOT = Path(__file__).resolve().parents[2]
RECORD = {"evaluate": {"every": 4}, "checkpoints": {"every": 8}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("gpu")
    model_folder(root / "model", bert_config(layers=3, width=64))
    task_folder(root / "task", {"train": 253, "validation": 40})
    return root


@pytest.fixture(scope="module")
def calm(root):
    assert run(finetune_job, root / "calm", settings(), recording(**RECORD)) == 0
    return root / "calm" / "trajectory"


def test_two_trainings_are_equal_bit_for_bit(root, calm):
    assert run(finetune_job, root / "again", settings(), recording(**RECORD)) == 0
    assert digests(root / "again" / "trajectory") == digests(calm)


def test_killed_and_continued_it_ends_with_the_same_bytes(root, calm):
    for fault in (("step", 20), ("state, without marker", 9)):
        assert run(finetune_job, root / "killed", settings(), recording(**RECORD, resume_seconds=0),
                   fault) == -signal.SIGKILL
    assert run(finetune_job, root / "killed", settings(), recording(**RECORD, resume_seconds=0)) == 0
    assert digests(root / "killed" / "trajectory") == digests(calm)


def test_recording_changes_no_bit(root, calm):
    nothing = recording(signals=False, probe="none", evaluate="none", checkpoints={"steps": []})
    assert run(finetune_job, root / "bare", settings(), nothing) == 0
    bare, full = digests(root / "bare" / "trajectory"), digests(calm)
    weights = "checkpoints/step-00000064/model.safetensors"
    assert bare[weights] == full[weights]


def test_the_first_logits_are_those_of_the_cpu(root):
    from finetrace.models.load import load_classifier
    from finetrace.training.finetune import finetune, make_plan, prepare

    wanted = settings(dropout=0.0, max_steps=4)
    (root / "out-gpu").mkdir()
    finetune(root / "model", root / "task", wanted, recording(), SEEDS, scratch=root / "s-gpu", out=root / "out-gpu",
             name="x")
    model = load_classifier(root / "model", ["negative", "positive"], SEEDS.head, 0.0)
    rows = prepare(root / "model", root / "task", wanted, model).splits["train"]
    batch = make_plan(rows, wanted, SEEDS.order).batches[0][1]
    width = rows.lengths[batch].max()
    padded = {k: torch.tensor([v[i] + [0] * (width - len(v[i])) for i in batch]) for k, v in rows.features.items()}
    with torch.no_grad():
        expected = model(**padded).logits.numpy()
    np.testing.assert_allclose(matrix(read_table(root / "out-gpu" / SIGNALS), "logits")[:8], expected, atol=1e-4)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_bf16_learns_and_records_finite_signals(root, tmp_path, accumulate):
    assert run(finetune_job, root / f"bf16-{accumulate}", settings(precision="bf16", epochs=8.0, accumulate=accumulate),
               recording(**RECORD)) == 0
    out = root / f"bf16-{accumulate}" / "trajectory"
    signals = read_table(out / SIGNALS)
    assert signals.num_rows == 8 * 253
    assert np.isfinite(matrix(signals, "logits")).all()
    losses = [r["loss"] for r in read_table(out / HISTORY).to_pylist() if r["kind"] == "train"]
    assert np.mean(losses[-16:]) < 0.5 * np.mean(losses[:16])
    assert json.loads((out / "metrics.json").read_text())["validation/accuracy"] > 0.9


def test_recording_keeps_its_cost(root):
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "recording.py")], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr

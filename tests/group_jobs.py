"""Small trainings that one process or several do; tests/integration/test_together.py compares them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from finetrace.config.models import AdaptSettings, PretrainSettings
from finetrace.config.training import MethodSettings
from finetrace.store.checkpoints import list_weights
from finetrace.store.tables import matrix, read_table
from tests.masked_fixtures import pretrained
from tests.training_fixtures import (
    HISTORY,
    PROBE,
    SIGNALS,
    model_folder,
    recording,
    settings,
    task_folder,
    world_folder,
)

ROOT = Path(__file__).resolve().parents[1]
WORKER = """
import sys, types
tests = types.ModuleType("tests")
tests.__path__ = [{tests!r}]  # another package of this name may be installed
sys.modules["tests"] = tests
from pathlib import Path
from finetrace.group import opened
from tests.group_jobs import do
with opened():
    for name in {names!r}:
        do(Path({root!r}), Path({root!r}) / "two", name)
"""
RECORD = {"evaluate": {"every": 3}, "probe": "log2", "checkpoints": {"every": 5}, "resume_seconds": 0}
ROWS = {"train": 57, "validation": 24, "test": 10}  # the last batch of an epoch has one row, so that a process has none
CALM = {"dropout": 0.0, "learning_rate": 5e-4}
FINETUNED: dict[str, tuple[Any, MethodSettings]] = {
    "plain": (settings(**CALM, weight_decay=0.01, max_grad_norm=0.5), MethodSettings()),
    "accumulated": (settings(**CALM, accumulate=4), MethodSettings()),
    "lora": (settings(**CALM, accumulate=2), MethodSettings(kind="lora")),
    "lp-ft": (settings(**CALM), MethodSettings(kind="lp-ft")),
    "bf16": (settings(**CALM, precision="bf16"), MethodSettings()),
    "drill": (settings(epochs=10.0), MethodSettings()),
    "stopped": (settings(learning_rate=0.03, epochs=4.0, keep="best", early_stopping=2), MethodSettings()),
}
SMALL = {"steps": 8, "batch_size": 8, "width": 16, "layers": 2, "heads": 2, "feedforward": 32, "learning_rate": 5e-4,
         "precision": "fp32"}
PRETRAINED = {"masked": PretrainSettings(**SMALL, accumulate=2), "sparse": PretrainSettings(**SMALL, whole_words=True)}
ADAPTED = AdaptSettings(start="toy/pretrain", corpus="world", from_steps=[0, 4], steps=4, batch_size=6, accumulate=2,
                        learning_rate=5e-4, dropout=0.0, precision="fp32")
JOBS = (*FINETUNED, *PRETRAINED, "adapted")
COMPARED = [name for name in JOBS if name not in ("drill", "stopped")]
"""Those without dropout, whose masks are others with another number of processes."""
OF_EVERY_KIND = ("accumulated", "lora", "lp-ft", "stopped", "masked")
"""Jobs of the default tests."""
FREE = "attention.self.key.bias"
"""Adds the same to all scores of a word, so that its gradient is rounding alone, which AdamW enlarges."""
EXACT = ("step", "micro_step", "position", "example_id", "label", "examples", "tokens", "epoch", "split", "kind",
         "learning_rate")


def inputs(root: Path) -> None:
    """What the trainings read."""
    model_folder(root / "model")
    task_folder(root / "task", ROWS)
    world_folder(root / "world")
    pretrained(root)


def environment() -> dict[str, str]:
    """Of the processes that are started."""
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "DVC_ROOT": "",
                         "TORCH_CPP_LOG_LEVEL": "ERROR"}


def do_together(root: Path, names: Sequence[str] = JOBS) -> None:
    """Do trainings in two processes, started by torchrun; what they write is in two/."""
    (root / "worker.py").write_text(WORKER.format(tests=str(ROOT / "tests"), root=str(root), names=tuple(names)))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           "worker.py"], cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]


def do(root: Path, at: Path, name: str) -> Path:
    """Do a training, or this process's part of it; the folder with what it wrote."""
    from finetrace.models.timeline import open_timeline
    from finetrace.training import mlm
    from finetrace.training.adapt import adapt
    from finetrace.training.finetune import RunSeeds, finetune
    from finetrace.training.pretrain import pretrain

    out, scratch, facts = at / name, at / "scratch" / name, {}
    out.mkdir(parents=True, exist_ok=True)
    if name in FINETUNED:
        train, method = FINETUNED[name]
        facts = finetune(root / "model", root / "task", train, recording(**RECORD), RunSeeds.of(0, 0), scratch=scratch,
                         out=out, name=name, method=method)
    elif name in PRETRAINED:
        mlm.SMALL_VOCABULARY = 0 if name == "sparse" else 1024
        facts = pretrain(PRETRAINED[name], root / "world", 7, scratch=scratch, out=out, model_out=out / "model",
                         name=name, resume_seconds=0)
    else:
        timeline = open_timeline(root / "outputs/toy/pretrain/trajectory", root / "models", ADAPTED.from_steps)
        texts = [" ".join(f"good{(i + j) % 12} bad{j} plain{i % 7}" for j in range(i % 5 + 1)) for i in range(30)]
        facts = adapt(ADAPTED, timeline, texts, 7, scratch=scratch, out=out, model_out=out / "model", name=name,
                      resume_seconds=0)
    if facts:
        (out / "facts.json").write_text(json.dumps(facts))
    return out


def assert_same(name: str, one: Path, two: Path, most: float) -> None:
    """What one process and two wrote of a training: the same rows, and numbers that differ by `most`."""
    for table in (HISTORY, *((SIGNALS, PROBE) if name in FINETUNED else ())):
        _assert_close(one / table, two / table, most)
    kept, others = list_weights(one / "checkpoints"), list_weights(two / "checkpoints")
    assert list(kept) == list(others) and len(kept) > 1
    for step, path in [(step, path) for step, folder in kept.items() for path in folder.glob("*.safetensors")]:
        wanted, found = load_file(path), load_file(others[step] / path.name)
        assert set(wanted) == set(found)
        for weight, values in ((name, values) for name, values in wanted.items() if not name.endswith(FREE)):
            np.testing.assert_allclose(found[weight], values, atol=most, rtol=0, err_msg=f"{step}: {weight}")
    told, alone = (json.loads((folder / "facts.json").read_text()) for folder in (two, one))
    assert told["device"] == f"2 x {alone['device']}"
    if name in FINETUNED:
        assert told["tokens"] == alone["tokens"] and told["rows"] == alone["rows"]
        assert told["rows"]["signals"] == 2 * ROWS["train"]


def _assert_close(one: Path, two: Path, most: float) -> None:
    first, second = read_table(one), read_table(two)
    assert first.schema == second.schema and first.num_rows == second.num_rows
    for name in first.column_names:
        if name in EXACT:
            assert first[name].equals(second[name]), name
        else:
            a, b = ((matrix(t, name) if name == "logits" else t[name].to_numpy()) for t in (first, second))
            np.testing.assert_allclose(b, a, atol=most, rtol=most, err_msg=name)

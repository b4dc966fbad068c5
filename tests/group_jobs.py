"""Small trainings that one process or several do; tests/integration/test_together.py compares them."""

import json
from pathlib import Path
from typing import Any

from tests.masked_fixtures import pretrained
from tests.training_fixtures import model_folder, recording, settings, task_folder, world_folder

from finetrace.config.models import AdaptSettings, PretrainSettings
from finetrace.config.training import MethodSettings

RECORD = {"evaluate": {"every": 3}, "probe": "log2", "checkpoints": {"every": 5}, "resume_seconds": 0}
ROWS = {"train": 57, "validation": 24, "test": 10}  # the last batch of an epoch has one row, so that a process has none
FINETUNED: dict[str, tuple[Any, MethodSettings]] = {
    "plain": (settings(dropout=0.0, weight_decay=0.01, max_grad_norm=0.5), MethodSettings()),
    "accumulated": (settings(dropout=0.0, accumulate=4), MethodSettings()),
    "lora": (settings(dropout=0.0, accumulate=2), MethodSettings(kind="lora")),
    "lp-ft": (settings(dropout=0.0, learning_rate=1e-3), MethodSettings(kind="lp-ft")),
    "bf16": (settings(dropout=0.0, precision="bf16"), MethodSettings()),
    "drill": (settings(epochs=10.0), MethodSettings()),
    "stopped": (settings(learning_rate=0.03, epochs=4.0, keep="best", early_stopping=2), MethodSettings()),
}
SMALL = {"steps": 8, "batch_size": 8, "width": 16, "layers": 2, "heads": 2, "feedforward": 32, "learning_rate": 1e-3,
         "precision": "fp32"}
PRETRAINED = {"masked": PretrainSettings(**SMALL, accumulate=2), "sparse": PretrainSettings(**SMALL, whole_words=True)}
ADAPTED = AdaptSettings(start="toy/pretrain", corpus="world", from_steps=[0, 4], steps=4, batch_size=6, accumulate=2,
                        learning_rate=1e-3, dropout=0.0, precision="fp32")
JOBS = (*FINETUNED, *PRETRAINED, "adapted")


def inputs(root: Path) -> None:
    """What the trainings read."""
    model_folder(root / "model")
    task_folder(root / "task", ROWS)
    world_folder(root / "world")
    pretrained(root)


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

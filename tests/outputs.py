"""A synthetic project: params.yaml and finished outputs as the stages write them, without any training."""

import atexit
import functools
import json
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from finetrace.layout import Layout
from finetrace.store.files import sha256_file, sha256_value, write_json, write_text, write_yaml
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import fixed_lists, write_table
from finetrace.study import Study, load_study
from tests.stages import ask

STARTED_MS = 1_790_000_000_000
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
                    "53de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082")


def make_project(folder: Path, *, name: str = "demo", models: tuple[str, ...] = ("micro-a",),
                 tasks: tuple[str, ...] = ("micro-sentiment",), methods: tuple[str, ...] = ("ft",),
                 seeds: tuple[int, ...] = (1, 2), steps: int = 40, lenses: tuple[str, ...] = ("infodynamics",),
                 tuned: bool = True, atlas: bool = True, points: int = 400, examples: int = 2000,
                 uri: str | None = None, outputs: bool = True) -> tuple[Layout, Study]:
    """Write a project into `folder`; with `outputs`, everything that its study asks for is there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(folder / "params.yaml", {
        "study": {"name": name, "seed": 0},
        "pretrain": {model: {"steps": 100} for model in models},
        "tasks": {task: {"source": "micro"} for task in tasks},
        "methods": {method: {"settings": "tuned" if tuned else "fixed"} for method in methods},
        "tune": {"space": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}},
        "runs": [{"model": list(models), "task": list(tasks), "method": list(methods), "seed": list(seeds)}],
        "look": {"infodynamics": "all"},
        "tracking": {"points": points, "uri": uri},
    })
    ask(folder, "publish")
    layout, study = Layout(folder, folder), load_study(folder / "params.yaml")
    if outputs:
        for task in tasks:
            make_data(layout, task)
        for model in models:
            make_training(layout.pretrain(model), "pretrain", model, steps, {f"models/{model}": "m" * 64}, probe=False)
        for key, cell in study.cells.items():
            if tuned:
                make_tune(layout.tune(cell.model, cell.task, cell.method), key)
        for key, one in study.trajectories.items():
            run = layout.run(one.model, one.task, one.method, one.seed)
            make_training(run / "trajectory", "train", key, steps,
                          {f"data/{one.task}": sha256_value(one.task), f"models/{one.model}": sha256_value(one.model)})
            for lens in lenses:
                make_lens(run / lens, lens, key, examples)
        if atlas:
            make_atlas(layout)
    return layout, study


def manifest(kind: str, stage: str, name: str, inputs: dict[str, str] | None = None, **settings: object) -> Manifest:
    settings = settings or {"train": {"learning_rate": 5e-5, "betas": [0.9, 0.999]}, "note": "x"}
    order = int(sha256_value([stage, name])[:6], 16)
    return Manifest(kind=kind, stage=stage, name=name, key=sha256_value([kind, stage, name, settings]),
                    settings=settings, inputs=inputs or {}, seeds={"order": 1}, facts={"rows": {"train": 100}},
                    started_at_ms=STARTED_MS + order, wall_seconds=12.5, peak_memory_bytes=300 << 20,
                    versions={"finetrace": "0.1.0"}, code="c" * 64)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def figure(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PNG)


def make_data(layout: Layout, task: str) -> None:
    folder = fresh(layout.task(task))
    write_table(folder / "train.parquet", {"text": ["a", "b"], "label": [0, 1]})
    complete(folder, manifest("data", "data", task))


def history(steps: int, seed: int = 0, every: int = 10) -> pa.Table:
    """`steps` optimiser steps and an evaluation every `every` steps, with the columns that a training writes."""
    random = np.random.default_rng(seed)
    rows = []
    for step in range(steps + 1):
        common = {"step": step, "examples": 16 * step, "epoch": step / 100, "tokens": 512 * step}
        if step:
            rows.append(common | {"kind": "train", "loss": math.exp(-step / steps) + 0.1 * random.random(),
                                  "learning_rate": 5e-5 * (1 - step / steps), "gradient_norm": random.random() + 0.5,
                                  "head_norm": 1 + step / steps})
        if step % every == 0 or step == steps:
            rows.append(common | {"kind": "eval", "split": "validation", "loss": math.exp(-step / steps),
                                  "accuracy": 0.5 + 0.4 * step / steps})
    schema = pa.schema([("step", pa.int64()), ("kind", pa.string()), ("split", pa.string()), ("examples", pa.int64()),
                        ("epoch", pa.float64()), ("loss", pa.float64()), ("learning_rate", pa.float64()),
                        ("gradient_norm", pa.float64()), ("head_norm", pa.float64()), ("tokens", pa.int64()),
                        ("accuracy", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)


def make_training(folder: Path, stage: str, name: str, steps: int, inputs: dict[str, str], *, probe: bool = True,
                  version: int = 1) -> Manifest:
    """A finished trajectory; another `version` is another training of the same name."""
    fresh(folder)
    write_table(folder / "history.parquet", history(steps, seed=version + len(name), every=max(1, steps // 20)))
    write_table(folder / "timing.parquet", {"step": list(range(1, steps + 1)),
                                            "seconds": [0.1 * s for s in range(1, steps + 1)],
                                            "tokens_per_second": [5000.0 + s for s in range(1, steps + 1)]})
    logits = fixed_lists(np.random.default_rng(version).normal(size=(16, 2)))
    write_table(folder / "signals.parquet", pa.table({"step": pa.array(range(16)), "logits": logits}))
    if probe:
        write_table(folder / "probe.parquet", pa.table({"step": pa.array(range(16)), "logits": logits}))
    write_json(folder / "metrics.json", {"train/steps": steps, "validation/accuracy": 0.91, "test/accuracy": 0.9,
                                         "test/loss": float("nan")})
    for step in (0, steps):
        checkpoint = folder / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        write_text(checkpoint / "config.json", "{}")
        (checkpoint / "model.safetensors").write_bytes(b"weights" * step)
    made = manifest("trajectory", stage, name, inputs, train={"learning_rate": 5e-5, "version": version}, seed=1)
    complete(folder, made)
    return made


def make_lens(folder: Path, lens: str, name: str, examples: int) -> Manifest:
    fresh(folder)
    axis = np.arange(0, examples, 2)
    lines = ["example,novelty,resonance,label", *(f"{x},{math.sin(x / 50):.6f},{math.cos(x / 50):.6f},a" for x in axis)]
    write_text(folder / "curves.csv", "\n".join(lines) + "\n")
    write_table(folder / "table.parquet", {"example": axis.tolist(), "novelty": np.sin(axis / 50).tolist()})
    write_json(folder / "metrics.json", {"slope": 0.5, "novelty": 0.25})
    write_json(folder / "results.json", {"change_points": [1, 2]})
    figure(folder / "figures" / "main.png")
    complete(folder / "figures", manifest("figures", lens, name))
    made = manifest("lens", lens, name, {"outputs/x": "1" * 64}, window=160)
    complete(folder, made)
    return made


def trial_times(count: int = 5) -> list[dict[str, object]]:
    """When they ran."""
    return [{"number": n, "started_at_ms": STARTED_MS + 1000 * n,
             "finished_at_ms": STARTED_MS + 1000 * n + 900 if n % 5 < 3 else None} for n in range(count)]


def trial_rows(count: int = 5) -> list[dict[str, object]]:
    """Trials of every state."""
    states = ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
    return [{"number": n, "state": states[n % 5], "value": 0.7 + n / 100 if states[n % 5] == "COMPLETE" else None,
             "params_json": json.dumps({"learning_rate": 1e-4 * (n + 1)}),
             "intermediate_json": json.dumps({str(10 * (k + 1)): 0.5 + k / 10 for k in range(3)} if n % 5 < 2 else {})}
            for n in range(count)]


def make_tune(folder: Path, name: str, trials: int = 5) -> Manifest:
    fresh(folder)
    write_text(folder / "best.yaml", yaml.safe_dump({"train": {"learning_rate": 1e-4}}))
    write_json(folder / "metrics.json", {"best_value": 0.7})
    schema = pa.schema([("number", pa.int64()), ("state", pa.string()), ("value", pa.float64()),
                        ("params_json", pa.string()), ("intermediate_json", pa.string())])
    times = pa.schema([("number", pa.int64()), ("started_at_ms", pa.int64()), ("finished_at_ms", pa.int64())])
    write_table(folder / "trials.parquet", pa.Table.from_pylist(trial_rows(trials), schema=schema))
    write_table(folder / "timing.parquet", pa.Table.from_pylist(trial_times(trials), schema=times))
    figure(folder / "figures" / "history.png")
    complete(folder / "figures", manifest("figures", "tune", name))
    made = manifest("settings", "tune", name)
    complete(folder, made)
    return made


def make_atlas(layout: Layout) -> None:
    folder = fresh(layout.atlas)
    write_text(folder / "index.html", "<html>atlas</html>")
    write_table(folder / "table.parquet", {"run": ["a"], "value": [1.0]})
    write_json(folder / "metrics" / "a.json", {"accuracy": 0.5})
    figure(folder / "figures" / "all.png")
    complete(folder, manifest("atlas", "atlas", ""))


def weights_sha(layout: Layout, model: str, task: str, method: str, seed: int, step: int) -> str:
    """Hash of a checkpoint's weights."""
    folder = layout.run(model, task, method, seed) / "trajectory" / "checkpoints" / f"step-{step:08d}"
    return sha256_file(folder / "model.safetensors")


@functools.cache
def _template() -> Path:
    """An empty store, made once per test process: MLflow needs seconds for its schema."""
    from finetrace.tracking.store import opened

    folder = Path(tempfile.mkdtemp(prefix="finetrace-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with opened(f"sqlite:///{folder / 'mlflow.db'}", folder):
        return folder / "mlflow.db"


def empty_store(home: Path) -> Path:
    """Put an empty mlflow.db into a project."""
    return Path(shutil.copyfile(_template(), home / "mlflow.db"))

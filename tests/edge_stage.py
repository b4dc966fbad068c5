"""A tiny trajectory with three checkpoints and tiny tasks of words, and the stage edges on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.hidden_outputs import load_script
from tests.outputs import manifest
from tests.training_fixtures import bert_config
from tests.word_tasks import piece_tokenizer, word_task_folder

from finetrace.config.base import parse
from finetrace.config.dynamics import EdgeProbeSettings
from finetrace.config.edges import EdgesSettings
from finetrace.layout import Layout
from finetrace.stage import Stage
from finetrace.store.checkpoints import mark
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete, read_manifest, write_content
from finetrace.store.tables import read_table, write_table

PLACE, NAME, STEPS = "toy/pretrain", "toy-edges", (0, 8, 64)
ROWS = {"train": 30, "validation": 12, "test": 8}
QUICK = {"max_steps": 20, "validate_every": 10, "hidden": 8, "batch_sentences": 8}


def make_trajectory(root: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """models/toy with a tokenizer of pieces, and outputs/toy/pretrain/trajectory of BERTs with random weights."""
    import torch
    from transformers import AutoModel

    (root / "models/toy").mkdir(parents=True)
    piece_tokenizer().save_pretrained(root / "models/toy")
    folder = root / "outputs" / PLACE / "trajectory"
    for step, seed in zip(STEPS, seeds, strict=True):
        target = folder / "checkpoints" / f"step-{step:08d}"
        torch.manual_seed(seed)
        AutoModel.from_config(bert_config()).save_pretrained(target)
        mark(target, step)
    complete(folder, manifest("trajectory", "pretrain", "toy", model="toy"))
    return folder


def make_task(root: Path, name: str, *, spans: int = 1, sets: bool = False, rows: dict[str, int] | None = None) -> Path:
    """data/NAME; sets: any number of classes per target, of three, instead of one."""
    folder = word_task_folder(root / "data" / name, rows or ROWS, spans=spans)
    facts = read_manifest(folder).facts
    if sets:
        tables = {split: read_table(folder / f"{split}.parquet") for split in rows or ROWS}
        facts |= {"label_names": ["a", "b", "c"], "multi_label": True}
        with atomic_folder(folder) as out:
            for split, table in tables.items():
                lists = [[[], [0], [0, 2]][k % 3] for k in table["label"].to_pylist()]
                table = table.set_column(table.column_names.index("label"), "label", pa.array([-1] * len(lists), pa.int32()))
                write_table(out / f"{split}.parquet", table.append_column("labels", pa.array(lists, pa.list_(pa.int32()))))
            done = Manifest("data", "data", name, "tests", "0", {}, {}, {}, facts)
            write_content(out, done)
            complete(out, done, started=0.0)
    return folder


def edges_stage(root: Path, tasks: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Stage:
    """The stage edges@toy-edges; tasks: name -> keywords of `make_task`, made where they are not there yet."""
    if not (root / "models").exists():
        make_trajectory(root)
    tasks = tasks or {"pos": {}}
    for name, how in tasks.items():
        if not (root / "data" / name).exists():
            make_task(root, name, **how)
    changes = QUICK | settings.pop("changes", {})
    parsed = parse(EdgesSettings, {"tasks": list(tasks), "changes": changes, **settings}, "params.yaml: edges")
    study = SimpleNamespace(study=SimpleNamespace(name="demo", seed=0), edges=parsed, tasks=dict.fromkeys(tasks), task_files={},
                            edge_probes={NAME: EdgeProbeSettings(trajectory=PLACE)})
    return Stage("edges", NAME, study, Layout(root, root))  # type: ignore[arg-type]


def run_stage(stage: Stage, figures: bool = False) -> Path:
    """Run it, by default without the figures, which take longer than all else; the folder of its output."""
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            patch.setattr(SCRIPT, "_figures", lambda *_: {})
        SCRIPT.main(stage)
    return stage.layout.place(PLACE) / "edges"


def rows_of(out: Path, **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in read_table(out / "table.parquet").to_pylist() if all(r[k] == v for k, v in wanted.items())]


def values_of(out: Path, **wanted: Any) -> np.ndarray:
    return np.array([r["value"] for r in rows_of(out, **wanted)])


SCRIPT = load_script("edges")

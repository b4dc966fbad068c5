"""A tiny trajectory with three checkpoints and tiny tasks of words, and the stage edges on them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.config.base import as_dict, parse
from finetrace.layout import Layout
from finetrace.lenses.edges.settings import EdgesSettings
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.checkpoints import mark
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table, write_table
from tests.hidden_outputs import finished, run_main
from tests.stages import ask
from tests.training_fixtures import bert_config
from tests.word_tasks import piece_tokenizer, word_task_folder

PLACE, NAME, STEPS = "toy/pretrain", "toy_pretrain", (0, 8, 64)
ROWS = {"train": 30, "validation": 12, "test": 8}
QUICK = {"max_steps": 20, "validate_every": 10, "hidden": 8, "batch_sentences": 8}


def make_trajectory(root: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """models/toy with a tokenizer of pieces, and outputs/toy/pretrain/trajectory of BERTs with random weights."""
    import torch
    from transformers import AutoModel

    (root / "models/toy").mkdir(parents=True)
    piece_tokenizer().save_pretrained(root / "models/toy")
    complete(root / "models/toy", finished("model"))
    folder = root / "outputs" / PLACE / "trajectory"
    for step, seed in zip(STEPS, seeds, strict=True):
        target = folder / "checkpoints" / f"step-{step:08d}"
        torch.manual_seed(seed)
        AutoModel.from_config(bert_config()).save_pretrained(target)
        mark(target, step)
    complete(folder, finished("trajectory", model="toy"))
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
                table = table.set_column(table.column_names.index("label"), "label",
                                         pa.array([-1] * len(lists), pa.int32()))
                write_table(out / f"{split}.parquet",
                            table.append_column("labels", pa.array(lists, pa.list_(pa.int32()))))
            made = finished("data")
            made.facts = facts
            complete(out, made)
    return folder


def edges_stage(root: Path, tasks: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Stage:
    """The stage edges@toy_pretrain; tasks: name -> keywords of `make_task`, made where they are not there yet."""
    ask_edges(root, tasks, **settings)
    return open_stage("edges", NAME, Layout(root, root))


def ask_edges(root: Path, tasks: dict[str, dict[str, Any]] | None = None, **settings: Any) -> None:
    """Write its settings, and the trajectory and tasks that it looks at where they are not there yet."""
    if not (root / "models").exists():
        make_trajectory(root)
    tasks = tasks or {"pos": {}}
    for name, how in tasks.items():
        if not (root / "data" / name).exists():
            make_task(root, name, **how)
    changes = QUICK | settings.pop("changes", {})
    parsed = parse(EdgesSettings, {"tasks": list(tasks), "changes": changes, **settings}, "params.yaml: edges")
    ask(root, "edges", NAME, place=PLACE, edges=as_dict(parsed), classes=None)


def run_stage(stage: Stage, figures: bool = False) -> Path:
    """Run it as DVC does, which removes outputs beforehand, and without a kept measurement; by default without the
    figures, which take longer than all else. Returns the folder of its output."""
    out = stage.folder / "edges"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(stage.layout.measured("edges", NAME), ignore_errors=True)
    run_main(stage, figures=figures)
    return out


def rows_of(out: Path, **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in read_table(out / "table.parquet").to_pylist() if all(r[k] == v for k, v in wanted.items())]


def values_of(out: Path, **wanted: Any) -> np.ndarray:
    return np.array([r["value"] for r in rows_of(out, **wanted)])

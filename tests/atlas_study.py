"""A small made study with its atlas, in which everything occurs that the page has to cope with, without any training.

Three seeds of ft and one run of lp, all on micro-sentiment, and a pre-training. Geometry has seen two of the seeds
(layers, intervals, NaN, names that would be HTML), calibration one (keys); all have predictions, on sets that differ.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from finetrace.atlas.stage import main
from finetrace.layout import Layout
from finetrace.store.arrays import write_array
from finetrace.store.files import write_json
from finetrace.store.hidden import step_name
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import write_table
from finetrace.study import load_study
from finetrace.study.plan import last_settings
from tests.outputs import fresh, make_lens, make_project, make_training, manifest
from tests.stages import ask, stage_of

HOSTILE = "<script>alert(1)</script>"
LABELS = ("négatif", f"{HOSTILE} | 100 %")
TASK = "micro-sentiment"
FT = tuple(f"micro-a/{TASK}/ft/s{seed}" for seed in (1, 2, 3))
LP = f"micro-a/{TASK}/lp/s1"
PRETRAIN = "micro-a/pretrain"
STEPS = (0, 10, 20, 40)
SETS = {"validation": 60, "far": 20}
"""Examples of each set; lp was asked about fewer, and not about far."""


def make_study(folder: Path) -> Layout:
    """Write the study into `folder`, and its atlas by the real stage."""
    layout, _ = make_project(folder, name="größer", seeds=(1, 2, 3), tuned=False, atlas=False, examples=600)
    content = yaml.safe_load(layout.params.read_text("utf-8"))
    runs = [*content["runs"], {"model": "micro-a", "task": TASK, "method": "lp", "seed": 1}]
    look = {"infodynamics": "all", "geometry": "micro-a/*/ft/s{1,2}", "calibration": FT[0], "edges": PRETRAIN,
            "influence": FT[0]}
    layout.params.write_text(yaml.safe_dump(content | {
        "methods": {"ft": {}, "lp": {}}, "runs": runs, "look": look,
        "tasks": {TASK: {"source": "micro"}, "micro-pos": {"source": "micro"}}, "edges": {"tasks": ["micro-pos"]}}))
    make_training(layout.place(LP) / "trajectory", "train", "lp", 40, {})
    make_lens(layout.place(LP) / "infodynamics", "infodynamics", "lp", 600)
    make_lens(layout.place(PRETRAIN) / "edges", "edges", PRETRAIN, 100)
    _texts(layout)
    for number, place in enumerate((*FT, LP)):
        accuracy = 0.9 - 0.1 * number
        settings = {"learning_rate": 1e-4 * (1 + number), "note": HOSTILE}
        _change(layout.place(place) / "trajectory", {"metric": "accuracy", "steps": 40, "parameters": 1234,
                                                     "train": settings}, {"validation/accuracy": accuracy, "steps": 40})
        _change(layout.place(place) / "infodynamics", {}, {"slope": 0.5 + 0.01 * number, "examples": 600})
        make_answers(layout, place, number, {"validation": 50} if place == LP else SETS)
    _change(layout.task(TASK), {"rows": {"validation": 60}, "majority_accuracy": 0.5, "bag_of_words_accuracy": 0.8})
    for number, place in enumerate(FT[:2]):
        make_geometry(layout, place, number)
    make_calibration(layout, FT[0])
    make_influence(layout, FT[0])
    ask(folder, "atlas", **last_settings(load_study(layout.params))["atlas"])
    make_atlas(layout)
    return layout


def make_atlas(layout: Layout) -> None:
    """Run the stage."""
    main(stage_of(layout.root, "atlas"))


def make_answers(layout: Layout, place: str, seed: int, sets: dict[str, int], labels: tuple[str, ...] = LABELS) -> None:
    """Predictions of a place: answers that change from checkpoint to checkpoint."""
    random, count = np.random.default_rng(seed), sum(sets.values())
    folder = fresh(layout.place(place) / "predictions")
    ids = np.concatenate([np.arange(n) for n in sets.values()])
    for number, step in enumerate(STEPS):
        right = random.random(count) < 0.5 + 0.1 * number
        answers = np.where(right, ids % 2, 1 - ids % 2)
        write_array(folder / step_name(step) / "logits.npy", np.eye(2, dtype=np.float32)[answers])
    sentences = np.where(np.repeat(list(sets), list(sets.values())) == "far", ids // 2, ids)  # of far, two a sentence
    write_table(folder / "index.parquet", {
        "set": np.repeat(list(sets), list(sets.values())).tolist(), "example_id": ids, "label": ids % 2,
        "sentence": sentences, "feature_row": np.full(count, -1)})
    write_json(folder / "metrics.json", {"validation/accuracy": 0.5})
    facts = {"kept_step": STEPS[-1], "label_names": list(labels), "steps": list(STEPS)}
    complete(folder, replace(manifest("predictions", "predictions", place), facts=facts))


def make_geometry(layout: Layout, place: str, seed: int) -> None:
    """A table over steps, layers, splits and labels, with intervals and a number that is none."""
    random = np.random.default_rng(seed)
    rows = [{"step": step, "layer": layer, "split": split, "label": label, "statistic": statistic,
             "value": (value := float(100 * random.random())), "low": value - 1, "high": value + 1, "n": 40}
            for statistic in ("effective_rank", "cosine_mean") for step in STEPS for layer in range(3)
            for split in ("validation", "test") for label in ("", *LABELS)]
    rows[3] |= {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    folder = fresh(layout.place(place) / "geometry")
    write_table(folder / "table.parquet", pa.Table.from_pylist(rows))
    metrics = {f"effective_rank/layer-02/{end}": rows[at]["value"] for end, at in (("first", 12), ("last", -1))}
    write_json(folder / "metrics.json", metrics | {"cosine_mean/layer-02/last": None})
    complete(folder, manifest("lens", "geometry", place))


def make_calibration(layout: Layout, place: str) -> None:
    """A table with keys of its own and without layers."""
    rows = [{"step": step, "split": "validation", "statistic": "ece", "bins": bins, "note": HOSTILE,
             "value": step / 1000 + bins, "low": float("nan"), "high": float("nan"), "n": 60}
            for step in STEPS for bins in (5, 10)]
    folder = fresh(layout.place(place) / "calibration")
    write_table(folder / "table.parquet", pa.Table.from_pylist(rows))
    write_json(folder / "metrics.json", {"test/ece": 0.0625})
    complete(folder, manifest("lens", "calibration", place))


def make_influence(layout: Layout, place: str) -> None:
    """Of two evaluation examples the two first training examples of each kind; nothing raised the loss of 7."""
    folder = fresh(layout.place(place) / "influence")
    rows = [{"eval_example_id": number, "kind": kind, "rank": rank, "train_example_id": 10 * number + rank,
             "influence": (sign if number == 3 else 1) * 0.5 / rank, "cosine": sign * 0.25 / rank,
             "eval_label": LABELS[0], "train_label": LABELS[1],
             "eval_text": f"{HOSTILE} asked {number}",
             "train_text": f"<b>taught</b> {kind} {number}.{rank} " + 300 * "x ",
             **{f"step_{step}": sign * 0.125 / rank for step in STEPS}, "group_head": 0.0}
            for number in (7, 3) for kind, sign in (("helpful", 1), ("harmful", -1), ("alike", 1), ("opposed", -1))
            for rank in (1, 2)]
    write_table(folder / "pairs.parquet", pa.Table.from_pylist(rows))
    write_json(folder / "metrics.json", {"agreement": 0.5})
    complete(folder, manifest("lens", "influence", place))


def _texts(layout: Layout) -> None:
    texts = [f"naïve film {i}, „gut“ — 好" for i in range(60)]
    texts[:2] = [f"{HOSTILE}, \"quoted\"\nline", "</script><img src=x onerror=alert(1)>"]
    folder = layout.task(TASK)
    write_table(folder / "validation.parquet", {"example_id": list(range(60)), "text_a": texts, "text_b": [None] * 60})


def _change(folder: Path, facts: dict[str, object], metrics: dict[str, float] | None = None) -> None:
    changed = replace(read_manifest(folder, verify=False), facts=facts)
    if metrics is not None:
        write_json(folder / "metrics.json", metrics)
    complete(folder, changed)

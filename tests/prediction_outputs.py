"""A synthetic `predictions` folder: what the stage predictions writes for one trajectory, without any model."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.layout import Layout
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.arrays import write_array
from finetrace.store.hidden import step_name
from finetrace.store.manifest import complete
from finetrace.store.predictions import Predictions, read_predictions
from finetrace.store.tables import write_table
from tests.hidden_outputs import NAME, PLACE, TRAJECTORY, finished
from tests.stages import ask, of_run

SETS = {"train": 40, "validation": 60, "test": 50, "far": 70}


def make_predictions(folder: Path, *, sets: dict[str, int] | None = None, steps: tuple[int, ...] = (0, 8, 64),
                     kept: int | None = None, classes: int = 2, dim: int = 16, feature_rows: int = 30, seed: int = 0,
                     size: float = 3.0, spans: int = 0, labels: np.ndarray | None = None,
                     damage: dict[tuple[str, int], Any] | None = None) -> Predictions:
    """Write the folder (an old one is replaced) and open it.

    sets: name -> examples;  kept: by default the last step;  feature_rows: the first ones of each set;  size: of the
    logits at the end, 0 at the start: large ones are overconfident;  spans: 2 examples of a set share a sentence;
    labels: (example,) instead of random ones;  damage: {(kind, step): function} that changes logits, features, weight
    or bias in place.

    Features: noise plus the class's direction, which grows with the step, less so in sets that are no split; the head
    points to the classes and grows. Logits of the rows with features are those of the head; in truth a fifth of the
    labels is noise.
    """
    sets = sets or SETS
    random = np.random.default_rng(seed)
    count = sum(sets.values())
    names = np.repeat(list(sets), list(sets.values()))
    ids = np.concatenate([np.arange(n) for n in sets.values()])
    labels = random.integers(0, classes, count) if labels is None else np.asarray(labels)
    shown = np.where(random.random(count) < 0.2, random.integers(0, classes, count), labels)
    chosen = ids < feature_rows
    place = np.where(chosen, np.cumsum(chosen) - 1, -1)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_table(folder / "index.parquet", {"set": names.tolist(), "example_id": ids, "label": labels.astype(np.int32),
                                           "sentence": ids // 2 if spans else ids, "feature_row": place})
    directions = random.normal(size=(classes, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    noise, common = random.normal(size=(count, dim)), 2 * random.normal(size=dim)
    strength = np.where(np.isin(names, ("train", "validation", "test")), 1.0, 0.5)[:, None]
    for number, step in enumerate(steps):
        time = number / max(1, len(steps) - 1)
        features = noise + common + 4 * time * strength * directions[shown]
        weight = (0.02 + size * time) * directions
        weight = weight - weight.mean(axis=0)
        bias = -weight @ features.mean(axis=0)
        arrays = {"logits": features @ weight.T + bias, "features": features[chosen], "weight": weight, "bias": bias}
        for kind, values in arrays.items():
            values = values.astype(np.float32)
            if damage and (kind, step) in damage:
                damage[kind, step](values)
            write_array(folder / step_name(step) / f"{kind}.npy", values)
    complete(folder, finished("predictions", steps=list(steps), kept_step=steps[-1] if kept is None else kept, dim=dim,
                              task=TRAJECTORY["task"], label_names=[f"class-{c}" for c in range(classes)],
                              method_kind="ft", metric="accuracy"))
    return read_predictions(folder)


def prediction_stage(root: Path, lens: str, settings: Any, **predictions: Any) -> Stage:
    """A stage `lens@NAME` in a project whose one trajectory has predictions; call the script's `main` with it."""
    layout = Layout(root, root)
    make_predictions(layout.place(PLACE) / "predictions", **predictions)
    ask(root, lens, NAME, **of_run(PLACE), **{lens: asdict(settings)})
    return open_stage(lens, NAME, layout)

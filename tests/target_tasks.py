"""Tiny tasks whose examples have a number, several labels, or tagged words, as the stage data writes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import write_table
from tests.training_fixtures import WORDS

GOOD = [w for w in WORDS if w.startswith("good")]
BAD = [w for w in WORDS if w.startswith("bad")]
TAGS = ["B-x", "I-x", "O"]


def task(path: Path, target: str, rows: tuple[int, int, int] = (96, 32, 24)) -> Path:
    """How many good words a text of six has; which kinds of words it has; runs of good words as entities."""
    facts: dict[str, Any] = {"kind": "token" if target == "tags" else "sequence", "spans": int(target == "tags"),
             "rows": dict(zip(("train", "validation", "test"), rows, strict=True))}
    facts |= {"regression": {"label_names": ["score"], "metric": "pearson", "target": target},
              "multi-label": {"label_names": ["good", "bad"], "metric": "micro_f1", "target": target,
                              "multi_label": True},
              "tags": {"label_names": TAGS, "metric": "entity_f1", "tags": "bio"}}[target]
    with atomic_folder(path) as out:
        for number, (split, count) in enumerate(facts["rows"].items()):
            rng = np.random.default_rng(number)
            good = rng.random((count, 6)) < rng.choice([0.0, 0.3, 0.7, 1.0], size=(count, 1))
            words = np.where(good, rng.choice(GOOD, (count, 6)), rng.choice(BAD, (count, 6)))
            table = {"example_id": pa.array(range(count), pa.int64()),
                     "text_a": pa.array([" ".join(row) for row in words]), "text_b": pa.nulls(count, pa.string()),
                     "label": pa.array(good.mean(axis=1) * 5, pa.float64())}
            if target == "multi-label":
                table["label"] = pa.array([-1] * count, pa.int32())
                table["labels"] = pa.array([[0] * int(row.any()) + [1] * int((~row).any()) for row in good],
                                           pa.list_(pa.int32()))
            if target == "tags":
                tags = [2 if not one else 1 if i % 6 and before else 0
                        for i, (one, before) in enumerate(zip(good.ravel(), [False, *good.ravel()], strict=False))]
                table = {"example_id": pa.array(range(6 * count), pa.int64()),
                         **{k: pa.array(np.repeat(table[k].to_numpy(zero_copy_only=False), 6)) for k in ("text_a",)},
                         "text_b": pa.nulls(6 * count, pa.string()), "label": pa.array(tags, pa.int32()),
                         "sentence": pa.array(np.repeat(np.arange(count), 6)),
                         "words": pa.array([list(row) for row in words for _ in range(6)]),
                         "spans": pa.array([[i, i + 1] for i in range(6)] * count, pa.list_(pa.int32(), 2))}
            write_table(out / f"{split}.parquet", pa.table(table))
        complete(out, Manifest("data", "data", target, "0", {}, {}, {}, facts), started=0.0)
    return path

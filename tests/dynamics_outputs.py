"""Synthetic outputs of edges, cloze, pairs and downstream along trajectories: what learning dynamics reads, without any
model."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from finetrace.config.base import as_dict
from finetrace.layout import Layout
from finetrace.lenses.dynamics.settings import DynamicsSettings
from finetrace.lenses.pairs import summary
from finetrace.lenses.pairs.scores import Pairs
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.arrays import write_array
from finetrace.store.manifest import complete
from finetrace.store.tables import write_table
from tests.hidden_outputs import finished
from tests.stages import ask

STEPS = (0, 10, 20, 40, 80, 160)
LAYERS = 3
"""Layers 0, 1 and 2."""
TASKS = ("pos", "dep")
NAME = "life"
READOUTS = [("layer", 0), ("layer", 1), ("layer", 2), ("mix", 0), ("mix", 1), ("mix", 2), ("full", 2)]
RELATIONS = {"capital": "1-1", "speaks": "N-1", "borders": "N-M"}


def make_place(layout: Layout, place: str, axis: str | None = None) -> None:
    """The manifest of a trajectory."""
    complete(fresh(layout.place(place) / "trajectory"), finished("trajectory", **({"axis": axis} if axis else {})))


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def chance(step: int, layer: int, top: float, late: float, floor: float = 0.0) -> float:
    """Probability of a right answer: rises around step `late`, less and later in lower layers."""
    rise = 1 / (1 + (late * (1 + 0.5 * (LAYERS - 1 - layer)) / max(step, 1e-9)) ** 3)
    return floor + (top * (0.7 + 0.15 * layer) - floor) * rise


def make_edges(layout: Layout, place: str, *, steps: tuple[int, ...] = STEPS, tasks: tuple[str, ...] = TASKS,
               seed: int = 1, top: float = 1.0, targets: int = 60, readouts: list[tuple[str, int]] = READOUTS) -> Path:
    """outputs/PLACE/edges: two targets per sentence; the tasks are learned one after the other."""
    folder = fresh(layout.place(place) / "edges")
    (folder / "hits").mkdir()
    rows = []
    for number, task in enumerate(tasks):
        need = np.random.default_rng(number).random(targets)  # what a target needs, the same for all seeds
        noise = 0.1 * np.random.default_rng([seed, number]).normal(size=(len(steps), len(readouts), targets))
        level = np.array([[chance(s, layer, top, 15 * (1 + number), 0.3) for _, layer in readouts] for s in steps])
        right = need + noise < level[..., None]
        hits = np.stack([right, ~right & (need < 0.7), ~right], axis=-1).astype(np.uint8)
        write_array(folder / "hits" / f"{task}.npy", hits)
        write_table(folder / "hits" / f"{task}.parquet",
                    {"example_id": np.arange(targets), "sentence": np.arange(targets) // 2})
        for i, step in enumerate(steps):
            for r, (readout, layer) in enumerate(readouts):
                tp, fp, fn = hits[i, r].sum(axis=0, dtype=int)
                for split, less in (("validation", 0.01), ("test", 0.0)):
                    f1 = 2 * tp / (2 * tp + fp + fn) - less
                    rows.append((task, step, readout, layer, split, "f1", f1, f1 - 0.05, f1 + 0.05, targets))
            cog = 0.5 + 0.1 * number + 0.25 * top * np.log10(1 + step) + 0.01 * seed
            for statistic, value in (("cog", cog), ("kl_bits", 0.2), ("majority", 0.25)):
                rows.append((task, step, "full", LAYERS - 1, "test", statistic, value, value - 0.02, value + 0.02,
                             targets))
            rows.append((task, step, "mix", 2, "test", "expected_layer", 1 + 0.01 * i, None, None, targets))
            rows += [(task, step, "full", layer, "validation", "weight", (1 + layer) / 6, None, None, targets)
                     for layer in range(3)]
    names = ("task", "step", "readout", "layer", "split", "statistic", "value", "low", "high", "n")
    write_table(folder / "table.parquet", pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]))
    complete(folder, finished("edges", steps=list(steps), readouts=[list(one) for one in readouts]))
    return folder


def make_cloze(layout: Layout, place: str, *, steps: tuple[int, ...] = STEPS, seed: int = 1, top: float = 1.0,
               facts: int = 30,
               readouts: tuple[str, ...] = ("own", "trained"), held_out: int = 10, shuffle: bool = True) -> Path:
    """outputs/PLACE/cloze: the world's facts of three relations, learned late; held-out ones stay at chance."""
    folder = fresh(layout.place(place) / "cloze")
    count = facts + held_out
    names = list(RELATIONS)
    relations = [names[0] if i < 5 else names[1 + i % 2] for i in range(count)]
    secret = np.arange(count) >= facts
    write_table(folder / "facts" / "index.parquet", {
        "fact": pa.array(range(count), pa.int32()), "fact_id": [f"world-{i}" for i in range(count)],
        "corpus": ["world"] * count,
        "relation": relations, "relation_type": [RELATIONS[r] for r in relations], "subject": ["x"] * count,
        "object": ["y"] * count, "held_out": secret.tolist()})
    need = np.random.default_rng(99).random(count)
    for number, step in enumerate(steps):
        rows = {name: [] for name in ("fact", "layer", "readout", "rank", "log_prob")}
        for readout in readouts:
            noise = 0.05 * np.random.default_rng([seed, number, len(readout)]).normal(size=(LAYERS, count))
            for layer in range(LAYERS):
                level = chance(step, layer, top, 30 if readout == "own" else 15)
                miss = np.where(secret, 1.0, np.maximum(need + noise[layer] - level, 0))
                rank = 1 + np.round(60 * miss * (0.5 + need)).astype(int)
                rows["fact"] += range(count)
                rows["layer"] += [layer] * count
                rows["readout"] += [readout] * count
                rows["rank"] += rank.tolist()
                rows["log_prob"] += (-np.log(rank) - 0.1 + 0.01 * noise[layer]).tolist()
        order = (
            np.random.default_rng(number).permutation(len(rows["fact"])) if shuffle else np.arange(len(rows["fact"]))
        )
        types = {"fact": pa.int32(), "layer": pa.int8(), "rank": pa.int32(), "log_prob": pa.float32()}
        table = pa.table({name: pa.array(values, types.get(name)) for name, values in rows.items()}).take(order)
        write_table(folder / "facts" / f"step-{step:08d}.parquet", table)
    complete(folder, finished("cloze"))
    return folder


def make_pairs(layout: Layout, place: str, *, steps: tuple[int, ...] = STEPS, seed: int = 1, top: float = 1.0,
               each: int = 20, name: str = "blimp", scoring: str = "word_l2r") -> Path:
    """outputs/PLACE/pairs, its table made by the lens: agreement of two paradigms, word order, and a control that
    stays at chance."""
    folder = fresh(layout.place(place) / "pairs")
    kinds = [("agreement", "gender", False), ("agreement", "number", False), ("order", "swapped", False),
             ("unknown", "unknown", True)]
    kinds = [kind for kind in kinds for _ in range(each)]
    rows = [{"pair": i, "pair_id": f"{paradigm}:{i}", "field": "", "phenomenon": phenomenon, "paradigm": paradigm,
             "good": f"good {i}", "bad": f"bad {i}", "control": control, "good_tokens": 3, "bad_tokens": 3}
            for i, (phenomenon, paradigm, control) in enumerate(kinds)]
    write_table(folder / "scores" / "index.parquet", pa.Table.from_pylist(rows))
    need = np.random.default_rng(5).random(len(rows))
    late = np.array([{"agreement": 60.0, "order": 10.0}.get(kind[0], np.inf) for kind in kinds])
    scores = np.zeros((len(steps), len(rows), 2))
    for number, step in enumerate(steps):
        noise = 0.05 * np.random.default_rng([seed, number]).normal(size=len(rows))
        level = 0.5 + (0.5 * top) / (1 + (late / max(step, 1e-9)) ** 3)
        scores[number, :, 0] = level - need + noise
        write_table(folder / "scores" / f"step-{step:08d}.parquet",
                    {"pair": np.arange(len(rows)), "good": scores[number, :, 0], "bad": scores[number, :, 1]})
    pairs = Pairs(*([row[key] for row in rows] for key in ("field", "phenomenon", "paradigm")),
                  np.array([row["control"] for row in rows]), np.full((len(rows), 2), 3))
    table, _ = summary.table(steps, scores, pairs, draws=100, seed=seed)
    write_table(folder / "table.parquet", table.columns())
    complete(folder, finished("pairs", steps=list(steps), set=name, scoring=scoring))
    return folder


def make_downstream(layout: Layout, name: str, *, steps: tuple[int, ...] = STEPS, seeds: tuple[int, ...] = (1, 2),
                    top: float = 0.9, examples: int = 50, shift: int = 0) -> Path:
    """outputs/downstream/NAME: a task that is learned better from later checkpoints."""
    folder = fresh(layout.downstream(name))
    need = np.random.default_rng(7).random(examples)
    noise = 0.1 * np.random.default_rng([shift, 8]).normal(size=(len(steps), len(seeds), examples))
    level = np.array([chance(step, 2, top, 20, 0.5) for step in steps])
    hits = (need + noise < level[:, None, None]).astype(np.uint8)
    write_array(folder / "hits.npy", hits)
    rows = []
    for i, step in enumerate(steps):
        for s, one in enumerate(seeds):
            for statistic, value in (("accuracy", hits[i, s].mean()), ("macro_f1", hits[i, s].mean() - 0.02),
                                     ("majority", 0.4)):
                rows.append({"step": step, "seed": one, "split": "test", "statistic": statistic, "value": float(value),
                             "low": None, "high": None, "n": examples})
    write_table(folder / "table.parquet", pa.Table.from_pylist(rows))
    complete(folder, finished("downstream"))
    return folder


def dynamics_stage(root: Path, entry: DynamicsSettings, *, downstream: dict[str, tuple[str, str]] | None = None,
                   tasks: tuple[str, ...] = TASKS, named: tuple[str, ...] = (), paired: tuple[str, ...] = ()) -> Stage:
    """A stage dynamics@life in a project whose outputs are made apart; call the script's `main` with it.

    downstream: entry -> trajectory, task;  named: trajectories that edges and cloze are asked to look at;  paired:
    those of pairs.
    """
    known = {name: {"trajectory": place, "task": task} for name, (place, task) in (downstream or {}).items()}
    ask(root, "dynamics", NAME, dynamics=as_dict(entry), downstream=known, edge_tasks=list(tasks),
        looked={"edges": list(named), "cloze": list(named), "pairs": list(paired)})
    return open_stage("dynamics", NAME, Layout(root, root))

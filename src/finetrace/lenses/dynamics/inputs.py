"""What learning dynamics reads: finished folders of the lenses edges, cloze and pairs and of the stage downstream.

    edges/table.parquet                task, step, readout, layer, split, statistic, value, low, high, n
    edges/hits/TASK.npy                (step, readout, target, 3) uint8: true and false positives, false negatives
    edges/hits/TASK.parquet            one row per target: example_id, sentence
    cloze/facts/index.parquet          one row per fact: fact, fact_id, corpus, relation, relation_type, held_out
    cloze/facts/step-00000128.parquet  fact, layer, readout, rank, log_prob, ...
    pairs/table.parquet                step, field, phenomenon, paradigm, control, statistic, value, low, high, n
    pairs/scores/index.parquet         one row per pair: pair_id, phenomenon, paradigm, good, bad, control
    pairs/scores/step-00000128.parquet good, bad: scores in nats
    downstream/NAME/table.parquet      step, seed, split, statistic, value, low, high, n
    downstream/NAME/hits.npy           (step, seed, example) uint8
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.store.arrays import read_array
from finetrace.store.manifest import Manifest, read_manifest
from finetrace.store.tables import read_table

Numbers = dict[tuple[str, int, str], dict[int, tuple[float, float, float, int]]]
"""(readout, layer, statistic) -> step -> value, low, high, n."""
STEP = "step-*.parquet"


@dataclass(frozen=True)
class EdgesOutput:
    """The results of edge probing along one trajectory."""

    folder: Path
    manifest: Manifest

    @cached_property
    def steps(self) -> list[int]:
        """Checkpoints, ascending; the first axis of hits."""
        return [int(step) for step in _fact(self.folder, self.manifest, "steps")]

    @cached_property
    def readouts(self) -> list[tuple[str, int]]:
        """The second axis of hits: layer | mix | full, and the number of the (last) layer."""
        return [(str(name), int(layer)) for name, layer in _fact(self.folder, self.manifest, "readouts")]

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks with hits, by name."""
        return sorted(path.stem for path in (self.folder / "hits").glob("*.npy"))

    def hits(self, task: str) -> np.ndarray:
        """(step, readout, target, 3) uint8, memory-mapped."""
        path = self.folder / "hits" / f"{task}.npy"
        return _shaped(path, (len(self.steps), len(self.readouts), len(self.targets(task)), 3))

    def targets(self, task: str) -> np.ndarray:
        """(target, 2) int64: example_id and sentence of each target."""
        path = self.folder / "hits" / f"{task}.parquet"
        table = _table(path, ("example_id", "sentence"))
        return np.stack([table[name].to_numpy() for name in ("example_id", "sentence")], axis=1).astype(np.int64)

    def numbers(self, task: str) -> Numbers:
        """The lens's own statistics of a task, on the split of the hits where it has them."""
        return _numbers([row for row in self._rows if row["task"] == task])

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        columns = ("task", "split", "step", "readout", "layer", "statistic", "value", "low", "high", "n")
        return _table(self.folder / "table.parquet", columns).to_pylist()


@dataclass(frozen=True)
class ClozeOutput:
    """The results of cloze probing along one trajectory."""

    folder: Path
    manifest: Manifest
    scratch: Path
    """Where arrays of its facts are kept while they are used."""
    _layers: dict[int, dict[str, list[int]]] = field(default_factory=dict)
    _arrays: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @cached_property
    def steps(self) -> list[int]:
        """Checkpoints, ascending."""
        steps = sorted(int(path.stem.removeprefix("step-")) for path in (self.folder / "facts").glob(STEP))
        if not steps:
            raise FinetraceError(f"{self.folder}: has no facts/{STEP}; run the stage cloze again")
        return steps

    @cached_property
    def index(self) -> dict[str, np.ndarray]:
        """The facts, (fact,) each: fact, fact_id, corpus, relation, relation_type, held_out."""
        names = ("fact", "fact_id", "corpus", "relation", "relation_type", "held_out")
        table = _table(self.folder / "facts" / "index.parquet", names)
        plain = ("fact", "held_out")
        return {name: np.array(table[name].to_pylist(), dtype=None if name in plain else np.str_) for name in names}

    def layers(self, step: int) -> dict[str, list[int]]:
        """Readout -> the layers that it read at a checkpoint, ascending; trained ones may be missing at some
        checkpoints."""
        if step not in self._layers:
            table = _table(self._path(step), ("readout", "layer"))
            readouts, layers = table["readout"].to_numpy(), table["layer"].to_numpy()
            self._layers[step] = {name: np.unique(layers[readouts == name]).tolist()
                                  for name in dict.fromkeys(readouts.tolist())}
        return self._layers[step]

    def steps_of(self, readout: str) -> list[int]:
        """The checkpoints that a readout read, ascending."""
        return [step for step in self.steps if readout in self.layers(step)]

    def answers(self, step: int, readout: str) -> tuple[np.ndarray, np.ndarray]:
        """Ranks and log probabilities (nats) of the right objects: (layer, fact) int32 and float32, memory-mapped,
        facts as in the index."""
        if (step, readout) not in self._arrays:
            folder = self.scratch / f"step-{step:08d}"
            if not (folder / "done").is_file():
                self._unfold(step, folder)
            rank, log_prob = (read_array(folder / f"{readout}-{name}.npy") for name in ("rank", "log_prob"))
            self._arrays[step, readout] = rank, log_prob
        return self._arrays[step, readout]

    def _unfold(self, step: int, folder: Path) -> None:
        """Write the arrays of one checkpoint; not synced to the disk, because they are made again after a crash."""
        path = self._path(step)
        table = _table(path, ("fact", "layer", "readout", "rank", "log_prob"))
        columns = {name: table[name].to_numpy() for name in ("fact", "layer", "rank", "log_prob")}
        readouts = table["readout"].to_numpy()
        facts = self.index["fact"]
        folder.mkdir(parents=True, exist_ok=True)
        for readout, layers in self.layers(step).items():
            rows = np.flatnonzero(readouts == readout)
            order = rows[np.lexsort((columns["fact"][rows], columns["layer"][rows]))]
            expected = {"layer": np.repeat(layers, len(facts)), "fact": np.tile(np.sort(facts), len(layers))}
            if any(not np.array_equal(columns[name][order], column) for name, column in expected.items()):
                raise FinetraceError(f"{path}: readout {readout!r} does not have one row for each of {len(facts):,} "
                                     f"facts and {len(layers)} layers; delete {self.folder} and run the stage cloze "
                                     "again")
            place = np.argsort(np.argsort(facts))  # rows of the index, which need not be sorted
            for name, dtype in (("rank", np.int32), ("log_prob", np.float32)):
                values = columns[name][order].reshape(len(layers), len(facts))[:, place]
                np.save(folder / f"{readout}-{name}.npy", values.astype(dtype), allow_pickle=False)
        (folder / "done").touch()

    def _path(self, step: int) -> Path:
        return self.folder / "facts" / f"step-{step:08d}.parquet"


@dataclass(frozen=True)
class PairsOutput:
    """The results of the lens pairs along one trajectory."""

    folder: Path
    manifest: Manifest

    @cached_property
    def steps(self) -> list[int]:
        """Checkpoints, ascending."""
        return [int(step) for step in _fact(self.folder, self.manifest, "steps")]

    @property
    def set_and_scoring(self) -> tuple[str, str]:
        """The set of pairs, and how they were scored."""
        return str(_fact(self.folder, self.manifest, "set")), str(_fact(self.folder, self.manifest, "scoring"))

    @cached_property
    def index(self) -> list[dict[str, Any]]:
        """The pairs: pair_id, phenomenon, paradigm, good, bad, control."""
        columns = ("pair_id", "phenomenon", "paradigm", "good", "bad", "control")
        return _table(self.folder / "scores" / "index.parquet", columns).to_pylist()

    @cached_property
    def pairs(self) -> list[tuple[str, str, str]]:
        """What tells a pair from all others: its id and its sentences."""
        return [(row["pair_id"], row["good"], row["bad"]) for row in self.index]

    def scores(self, step: int) -> np.ndarray:
        """(pair, 2) float64 nats of the good and of the bad sentence, pairs as in the index."""
        path = self.folder / "scores" / f"step-{step:08d}.parquet"
        table = _table(path, ("good", "bad"))
        if table.num_rows != len(self.index):
            raise FinetraceError(f"{path}: has {table.num_rows} pairs instead of {len(self.index)}; delete "
                                 f"{self.folder} and run the stage pairs again")
        return np.stack([table[name].to_numpy() for name in ("good", "bad")], axis=1)

    @cached_property
    def numbers(self) -> dict[tuple[str, bool], Numbers]:
        """The lens's own statistics by phenomenon and control; the phenomenon of the whole set is empty."""
        columns = ("step", "field", "phenomenon", "paradigm", "control", "statistic", "value", "low", "high", "n")
        by_group: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        for row in _table(self.folder / "table.parquet", columns).to_pylist():
            if not row["field"] and not row["paradigm"]:
                entry = row | {"readout": "", "layer": 0, "split": "test"}
                by_group.setdefault((row["phenomenon"], row["control"]), []).append(entry)
        return {key: _numbers(rows) for key, rows in by_group.items()}


@dataclass(frozen=True)
class DownstreamOutput:
    """A task learned from the checkpoints of one trajectory."""

    folder: Path
    manifest: Manifest

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        columns = ("step", "seed", "split", "statistic", "value", "low", "high", "n")
        return _table(self.folder / "table.parquet", columns).to_pylist()

    @cached_property
    def steps(self) -> list[int]:
        """Checkpoints, ascending; the first axis of hits."""
        return sorted({int(row["step"]) for row in self._rows})

    @cached_property
    def seeds(self) -> list[int]:
        """Trainings per checkpoint; the second axis of hits."""
        return sorted({int(row["seed"]) for row in self._rows})

    @cached_property
    def hits(self) -> np.ndarray:
        """(step, seed, example) uint8, memory-mapped: which test examples were right."""
        return _shaped(self.folder / "hits.npy", (len(self.steps), len(self.seeds), -1))

    def numbers(self, seed: int) -> Numbers:
        """The stage's own statistics of one training per checkpoint."""
        return _numbers([row | {"readout": "", "layer": 0} for row in self._rows if row["seed"] == seed])


def read_edges(folder: Path) -> EdgesOutput:
    """Open a finished folder `outputs/PLACE/edges`. Raises FinetraceError when it is absent, unfinished or damaged."""
    return EdgesOutput(folder, read_manifest(folder))


def read_cloze(folder: Path, scratch: Path) -> ClozeOutput:
    """Open a finished folder `outputs/PLACE/cloze`; scratch: folder for arrays, safe to delete afterwards."""
    return ClozeOutput(folder, read_manifest(folder), scratch)


def read_pairs(folder: Path) -> PairsOutput:
    """Open a finished folder `outputs/PLACE/pairs`."""
    return PairsOutput(folder, read_manifest(folder))


def read_downstream(folder: Path) -> DownstreamOutput:
    """Open a finished folder `outputs/downstream/NAME`."""
    return DownstreamOutput(folder, read_manifest(folder))


def _numbers(rows: Sequence[dict[str, Any]]) -> Numbers:
    """Rows of a lens's table by readout, layer and statistic; test where a statistic has it, else what it has."""
    numbers: Numbers = {}
    splits: dict[tuple[str, int, str, int], str] = {}
    for row in rows:
        key, step = (row["readout"], int(row["layer"]), row["statistic"]), int(row["step"])
        if splits.get((*key, step)) == "test":
            continue
        splits[*key, step] = row["split"]
        value, low, high = (np.nan if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
        numbers.setdefault(key, {})[step] = value, low, high, int(row["n"] or 0)
    return numbers


def _fact(folder: Path, manifest: Manifest, name: str) -> Any:
    if name not in manifest.facts:
        raise FinetraceError(f"{folder}/manifest.json: has no fact {name!r}; run its stage again with this version of "
                             "finetrace")
    return manifest.facts[name]


def _table(path: Path, columns: Sequence[str]) -> Any:
    table = read_table(path)
    if missing := [name for name in columns if name not in table.column_names]:
        raise FinetraceError(f"{path}: has no column {', '.join(missing)}; run its stage again with this version of "
                             "finetrace")
    return table.select(list(columns))


def _shaped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    values = read_array(path)
    if values.ndim != len(shape) or any(size not in (-1, have) for have, size in zip(values.shape, shape, strict=True)):
        raise FinetraceError(f"{path}: has shape {values.shape} instead of {shape}; delete its folder and run its "
                             "stage again")
    return values

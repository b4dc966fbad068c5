"""What the sources of learning dynamics share: the entry, its trajectories and their time axes, the table that they
fill."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.lenses.dynamics.inputs import read_cloze, read_downstream, read_edges, read_pairs
from finetrace.lenses.dynamics.settings import DynamicsSettings
from finetrace.pipeline.stage import Stage
from finetrace.store.manifest import read_manifest

if TYPE_CHECKING:
    from finetrace.lenses.dynamics.arms import Arm
    from finetrace.lenses.dynamics.facts import Answers

Places = Mapping[str, Sequence[str]]
"""Arm -> its trajectories, one per seed."""
Load = Callable[[int, int], Any]
"""Seed and step -> raw results."""


class Work:
    """What the sources share: the entry, its trajectories, the table that they fill, and what a reader must be told."""

    def __init__(self, stage: Stage, entry: DynamicsSettings, seed: int):
        from finetrace.lenses.dynamics.table import Table

        self.stage, self.entry, self.seed, self.table = stage, entry, seed, Table()
        self.places: Places = entry.arms
        self.axes = {arm: _axis(stage, arm, places) for arm, places in self.places.items()}
        self.steps: dict[str, dict[str, list[int]]] = {}  # source -> arm -> steps
        self.left_out: list[str] = []
        self.identical: list[str] = []
        self.resampled: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._units: dict[str, float] = {}

    def arm(self, name: str, source: str, steps: Sequence[Sequence[int]], load: Load) -> "Arm":
        """The lens's Arm of one source: steps that all of its seeds have, others told. steps: of each seed."""
        from finetrace.lenses.dynamics.arms import Arm

        common = sorted(set.intersection(*map(set, steps)))
        for place, seed_steps in zip(self.places[name], steps, strict=True):
            if unshared := sorted(set(seed_steps) - set(common)):
                text = f"{source}: {place}: steps {', '.join(map(str, unshared))} (not in all of {name})"
                self.left_out += [text] if text not in self.left_out else []
        if not common:
            raise FinetraceError(f"params.yaml: dynamics.{self.stage.item}.{name}: its trajectories have no common "
                                 f"step in {source}; look at the same checkpoints (checkpoints: [...])")
        self.steps.setdefault(source, {})[name] = common
        return Arm(tuple(common), self.axes[name], self.unit(name), load)

    def unit(self, arm: str) -> float:
        """The unit of an arm's time axis: as set, else the first step after 0 of any trajectory on that axis."""
        axis = self.axes[arm]
        if self.entry.step_unit and axis == self.axes["original"]:
            return float(self.entry.step_unit)
        if axis not in self._units:
            steps = [s for name, places in self.places.items() if self.axes[name] == axis for place in places
                     for s in _recorded(self.stage, self.entry, place)]
            self._units[axis] = float(min((s for s in steps if s > 0), default=1))
        return self._units[axis]

    def settings(self, *purpose: str | int) -> dict[str, int]:
        """Keywords of the lens's functions."""
        return {"seeds": len(self.entry.original), "draws": self.entry.draws, "seed": seeds.derive(self.seed, *purpose)}

    def check_copies(self, what: str, arms: "Mapping[str, Arm]") -> None:
        """Note seeds whose raw results are the same at a step; results that are one constant are no sign of a copy."""
        from finetrace.lenses.dynamics.forgetting import repeated

        for name, arm in arms.items():
            if len(self.places[name]) < 2:
                continue
            for step in arm.steps:
                digests = {place: _digest(arm.load(s, step)) for s, place in enumerate(self.places[name])}
                for first, second in repeated({place: digest for place, digest in digests.items() if digest}):
                    self.identical.append(f"{what}, step {step}: {first} and {second}")

    def note(self) -> str:
        """What figures must say about their intervals."""
        trajectories = len(self.entry.original)
        resampled = "examples" if set(self.resampled.values()) == {"examples"} else "seeds and examples"
        text = f"{trajectories} trajectories per arm" if trajectories > 1 else "one trajectory per arm"
        return f"{self.entry.draws:,} resamplings of {resampled}; {text}"


def compared(stage: Stage, entry: DynamicsSettings, source: str) -> Places:
    """Arm -> its trajectories, as far as a source compares them."""
    return entry.compared(source, stage.asked["looked"][source])


def in_all(work: Work, source: str, what: str, lists: Mapping[Path, Sequence[Any]]) -> list[Any]:
    """What stands in all lists, in the order of the first; the rest is told."""
    values = list(lists.values())
    shared = set.intersection(*(set(entries) for entries in values))
    common = [entry for entry in values[0] if entry in shared]
    unshared = list(dict.fromkeys(entry for entries in values for entry in entries if entry not in shared))
    if unshared:
        shown = ", ".join(" ".join(map(str, entry)) if isinstance(entry, tuple) else str(entry)
                          for entry in unshared[:5])
        work.left_out.append(f"{source}: {len(unshared):,} {what}{'s' if len(unshared) > 1 else ''} not in all "
                             f"trajectories: {shown}{', ...' if len(unshared) > 5 else ''}")
    if not common:
        raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}: the trajectories have no {what} of {source} in "
                             f"common ({', '.join(str(folder) for folder in lists)}); look at the same")
    return common


def _axis(stage: Stage, arm: str, places: Sequence[str]) -> str:
    """What the steps of an arm count."""
    from finetrace.models.timeline import AXES, FINE_TUNING

    axes = {}
    for place in places:
        facts = read_manifest(stage.layout.place(place) / "trajectory", verify=False).facts
        axes[place] = str(facts.get("axis") or AXES.get(place.split("/")[1], FINE_TUNING))
    if len(set(axes.values())) > 1:
        raise FinetraceError(f"params.yaml: dynamics.{stage.item}.{arm}: its trajectories have different time axes ("
                             f"{'; '.join(f'{place}: {axis}' for place, axis in axes.items())}); compare one kind "
                             "at a time")
    return next(iter(axes.values()))


def _recorded(stage: Stage, entry: DynamicsSettings, place: str) -> list[int]:
    """The checkpoints of a trajectory that any source looked at."""
    folder = stage.layout.place(place)
    steps: list[int] = []
    if "edges" in entry.sources:
        steps += read_edges(folder / "edges").steps
    if "cloze" in entry.sources:
        steps += read_cloze(folder / "cloze", folder).steps
    if "pairs" in entry.sources and place in {other_place for places in compared(stage, entry, "pairs").values()
                                              for other_place in places}:
        steps += read_pairs(folder / "pairs").steps
    for name in entry.downstream:
        if stage.asked["downstream"][name]["trajectory"] == place:
            steps += read_downstream(stage.layout.downstream(name)).steps
    return steps


def _digest(raw: "np.ndarray | Answers") -> str | None:
    """SHA-256 of raw results, or None where every example has the same."""
    parts = [raw] if isinstance(raw, np.ndarray) else [raw.ranks, raw.log_probs]
    axis = -2 if isinstance(raw, np.ndarray) else -1
    if all((part == np.take(part, [0], axis=axis)).all() for part in parts):
        return None
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()

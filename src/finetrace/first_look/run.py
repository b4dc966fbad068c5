"""A first look from the command to the page: what it costs is said before, how long it still takes meanwhile."""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.first_look import measure
from finetrace.first_look.asked import LENSES, NEEDS, Asked, check
from finetrace.first_look.measure import Found
from finetrace.first_look.sources import Source, find_models
from finetrace.first_look.states import Answers, Prepared, answers, hidden_states, prepare
from finetrace.first_look.tasks import Task, find_task, require_rows
from finetrace.layout import slug
from finetrace.progress import Progress, duration
from finetrace.store.hidden import HiddenStates

log = logging.getLogger("finetrace")
REACHED = 0.5
"""Of what large matrix products reach, by a model's passes: for the time that is told beforehand."""
SECONDS_PER_LAYER = {"geometry": 0.7, "hulls": 0.7, "probes": 0.15, "similarity": 0.45, "convergence": 0.02,
                     "calibration": 0.02}
"""Rough time of a lens for 200 rows of 384 dimensions, on one core of 2020."""
TENTHS = 10
SECONDS_BESIDE = 6.0
"""Of packages that are loaded, and of figures."""


@dataclass
class Look:
    """What was found.

    rows: split -> number of rows;  tokens: of all of them, by model;  cut: rows that were cut, by model;
    of_model: model -> lens -> what it says;  of_pair: (model, model) -> what similarity says;
    notes: what a reader has to know, line by line;  seconds: it took.
    """

    asked: Asked
    sources: list[Source]
    task: Task
    rows: dict[str, int] = field(default_factory=dict)
    facts: dict[str, dict[str, int]] = field(default_factory=dict)
    of_model: dict[str, dict[str, Found]] = field(default_factory=dict)
    of_pair: dict[tuple[str, str], Found] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def lenses(self) -> list[str]:
        """Those that found something."""
        there = {lens for found in self.of_model.values() for lens in found} | (
            {"similarity"} if self.of_pair else set())
        return [lens for lens in LENSES if lens in there]


def look(asked: Asked) -> Look:
    """Look at the models. Raises FinetraceError naming model, task, file or option, and the fix."""
    begun = time.perf_counter()
    check(asked)
    with tempfile.TemporaryDirectory(prefix="finetrace-look-") as folder:
        scratch = Path(folder)
        sources = find_models(asked.models, scratch)
        task = find_task(asked.task, asked.text, asked.label, asked.seed, scratch)
        found = Look(asked, sources, task)
        prepared = [_prepare(source, task, asked) for source in sources]
        require_rows(task, prepared[0].splits, prepared[0].rows.labels, asked.rows)
        found.rows = {split: int((prepared[0].splits == split).sum()) for split in ("train", "validation")}
        lenses = _lenses(asked.lenses)
        costs = _costs(prepared, lenses)
        rows = " + ".join(f"{count} of {split}" for split, count in found.rows.items())
        log.info("%d model%s x %s rows of %s through %s: about %s", len(sources), "s" if len(sources) > 1 else "", rows,
                 task.name, ", ".join(asked.lenses), duration(sum(costs.values()) / TENTHS + SECONDS_BESIDE))
        _measure_all(found, prepared, lenses, costs, scratch)
        if "convergence" in asked.lenses and any(part["convergence"].facts["few"] for part in found.of_model.values()):
            found.notes.append("Convergence: a correlation over layers wants four of them at least.")
        for parts in found.of_model.values():
            for lens in set(parts) - set(asked.lenses):
                del parts[lens]  # only built on
    if not found.lenses:
        raise FinetraceError(f"--lens {','.join(asked.lenses)}: there is nothing to say: {' '.join(found.notes)}")
    found.seconds = time.perf_counter() - begun
    return found


def _lenses(wanted: Sequence[str]) -> list[str]:
    """The lenses in their order, with those on which some build."""
    needed = {*wanted, *(below for lens in wanted for below in NEEDS.get(lens, ()))}
    return [lens for lens in LENSES if lens in needed]


def _prepare(source: Source, task: Task, asked: Asked) -> Prepared:
    """A model with the rows; messages name the model as the user did."""
    try:
        return prepare(source, task, asked.rows, asked.seed)
    except FinetraceError as error:
        text = str(error).replace(str(source.folder), source.asked).replace(str(source.base), source.asked)
        raise FinetraceError(text) from error


def _costs(prepared: Sequence[Prepared], lenses: Sequence[str]) -> dict[str, float]:
    """Rough tenths of seconds of each piece of work: `MODEL: LENS`, `MODEL: states`, `similarity`."""
    from finetrace.models.device import operations_per_second

    speed, costs = REACHED * operations_per_second(), {}
    for one in prepared:
        examples, name = len(one.splits), one.source.name
        size = one.layers * (examples / 400) * (one.encoder.config.hidden_size / 384)
        costs[f"{name}: states"] = TENTHS * one.operations / speed
        costs |= {f"{name}: {lens}": TENTHS * SECONDS_PER_LAYER[lens] * size for lens in lenses if lens != "similarity"}
    if "similarity" in lenses:
        pairs = max(1, len(prepared) * (len(prepared) - 1) // 2)
        costs["similarity"] = TENTHS * SECONDS_PER_LAYER["similarity"] * pairs * max(one.layers for one in prepared)
    return costs


class _Told:
    """One bar for all work: pieces count by their expected time."""

    def __init__(self, costs: dict[str, float]):
        self.costs = {name: max(1, round(cost)) for name, cost in costs.items()}
        self.done = 0
        self.bar = Progress(sum(self.costs.values()), "look", unit="part")

    def share(self, piece: str, done: int, of: int = 1) -> None:
        """So much of a piece is done."""
        self.bar.update(self.done + int(done / of * self.costs.get(piece, 0)), f"({piece})")

    def end(self, piece: str) -> None:
        """A piece is done."""
        self.done += self.costs.get(piece, 0)
        self.bar.update(self.done, f"({piece})")


def _measure_all(found: Look, prepared: Sequence[Prepared], lenses: Sequence[str], costs: dict[str, float],
                 scratch: Path) -> None:
    """Every model through every lens, then pairs of models; fills `found`."""
    told = _Told(costs)
    states: list[HiddenStates] = []
    for number, one in enumerate(prepared):
        piece = f"{one.source.name}: states"
        states.append(hidden_states(one, scratch / f"states-{number}", partial(told.share, piece, of=len(one.rows))))
        told.end(piece)
        found.facts[one.source.name] = _facts(one)
        found.of_model[one.source.name] = _of_model(found, one, states[-1], lenses, told)
        one.encoder.to("meta")  # its memory is free for the next one
    if "similarity" in lenses:
        _similarity(found, states)
        told.end("similarity")
    told.bar.close()


def _facts(one: Prepared) -> dict[str, int]:
    cut = 0 if one.rows.cut is None else int((one.rows.cut > 0).sum())
    return {"layers": one.layers, "dim": int(one.encoder.config.hidden_size),
            "parameters": int(one.encoder.num_parameters()), "tokens": int(one.rows.lengths.sum()), "cut": cut,
            "max_length": one.max_length}


def _of_model(found: Look, one: Prepared, hidden: HiddenStates, lenses: Sequence[str], told: _Told
              ) -> dict[str, Found]:
    """All lenses of one model but similarity."""
    task, seed, name = found.task.name, found.asked.seed, one.source.name
    parts: dict[str, Found] = {}
    for lens in (lens for lens in lenses if lens != "similarity"):
        told.share(f"{name}: {lens}", 0)
        if lens == "convergence":
            parts[lens] = measure.convergence(parts["geometry"], parts["probes"], task, seed)
        elif lens == "calibration":
            said = answers(one)
            if isinstance(said, Answers):
                parts[lens] = measure.calibration(said, task, seed)
                found.notes += [f"Calibration of {name}: {said.note}."] if said.note else []
            else:
                found.notes.append(f"Calibration: {name} is left out: {said}.")
        else:
            parts[lens] = {"geometry": measure.geometry, "hulls": measure.hulls, "probes": measure.probes}[lens](
                hidden, task, seed)
        told.end(f"{name}: {lens}")
    if "hulls" in parts and parts["hulls"].facts["trivial"]:
        facts = parts["hulls"].facts
        note = (f"Hulls: {facts['points']} points in {facts['dim']} dimensions: planes separate almost any classes of "
                "so few points, so that the number of clusters says little; distances and new rows do, and more rows.")
        found.notes += [note] if note not in found.notes else []
    return parts


def _similarity(found: Look, states: Sequence[HiddenStates]) -> None:
    """Between all pairs of models; of one model alone, between its layers."""
    task, seed = found.task.name, found.asked.seed
    named = list(zip((source.name for source in found.sources), states, strict=True))
    if len(named) == 1:
        found.of_model[named[0][0]]["similarity"] = measure.similarity_within(named[0][1], task, seed)
        return
    for (first, of_first), (second, of_second) in combinations(named, 2):
        pair = measure.similarity_between(of_first, of_second, comparison_name(first, second), seed)
        found.of_pair[first, second] = pair
        if "tokens" not in pair.facts["kinds"] and not of_first.spans:
            found.notes.append(f"Similarity of {first} and {second}: of sentences only; they cut texts into different "
                               "tokens.")


def comparison_name(first: str, second: str) -> str:
    """The name of the comparison of two models in a study."""
    return slug(f"{first}-{second}")


def long_table(found: Look) -> dict[str, np.ndarray]:
    """All numbers of all lenses as columns of one table: model, other, lens, and the columns of the lenses."""
    import pandas as pd

    parts = [part.table.frame.assign(model=name, other_model="", lens=lens)
             for name, lenses in found.of_model.items() for lens, part in lenses.items()]
    parts += [part.table.frame.assign(model=second, other_model=first, lens="similarity")
              for (first, second), part in found.of_pair.items()]
    whole = pd.concat(parts, ignore_index=True)
    front = ["model", "other_model", "lens", "layer", "statistic", "value", "low", "high", "n"]
    whole = whole.drop(columns=["step", "change", "change_low", "change_high", "other_step"], errors="ignore")
    whole = whole.assign(layer=whole.get("layer", pd.Series(-1, whole.index)).fillna(-1).astype(np.int32))
    whole = whole[[*front, *(name for name in whole if name not in front)]]
    texts = {name: whole[name].astype(object).where(whole[name].notna(), "").astype(str).to_numpy(dtype=object)
             for name in whole if not pd.api.types.is_numeric_dtype(whole[name])}
    return {name: texts.get(name, whole[name].to_numpy()) for name in whole}

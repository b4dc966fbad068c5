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
from finetrace.first_look.measure import Measured
from finetrace.first_look.request import LENSES, NEEDS, Request, check
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

    request: Request
    sources: list[Source]
    task: Task
    rows: dict[str, int] = field(default_factory=dict)
    facts: dict[str, dict[str, int]] = field(default_factory=dict)
    of_model: dict[str, dict[str, Measured]] = field(default_factory=dict)
    of_pair: dict[tuple[str, str], Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def lenses(self) -> list[str]:
        """Those that found something."""
        lenses = {lens for parts in self.of_model.values() for lens in parts} | (
            {"similarity"} if self.of_pair else set())
        return [lens for lens in LENSES if lens in lenses]


def look(request: Request) -> Look:
    """Look at the models. Raises FinetraceError naming model, task, file or option, and the fix."""
    begun = time.perf_counter()
    check(request)
    with tempfile.TemporaryDirectory(prefix="finetrace-look-") as folder:
        scratch = Path(folder)
        sources = find_models(request.models, scratch)
        task = find_task(request.task, request.text, request.label, request.seed, scratch,
                         dict(request.keys))
        result = Look(request, sources, task)
        prepared = [_prepare(source, task, request) for source in sources]
        require_rows(task, prepared[0].splits, prepared[0].rows.labels, request.rows)
        result.rows = {split: int((prepared[0].splits == split).sum()) for split in ("train", "validation")}
        lenses = _lenses(request.lenses)
        costs = _costs(prepared, lenses)
        rows = " + ".join(f"{count} of {split}" for split, count in result.rows.items())
        log.info("%d model%s x %s rows of %s through %s: about %s", len(sources), "s" if len(sources) > 1 else "", rows,
                 task.name, ", ".join(request.lenses), duration(sum(costs.values()) / TENTHS + SECONDS_BESIDE))
        _measure_all(result, prepared, lenses, costs, scratch)
        if "convergence" in request.lenses and any(part["convergence"].facts["few"]
                                                   for part in result.of_model.values()):
            result.notes.append("Convergence: a correlation over layers wants four of them at least.")
        for parts in result.of_model.values():
            for lens in set(parts) - set(request.lenses):
                del parts[lens]  # only built on
    if not result.lenses:
        raise FinetraceError(f"--lens {','.join(request.lenses)}: there is nothing to say: {' '.join(result.notes)}")
    result.seconds = time.perf_counter() - begun
    return result


def _lenses(wanted: Sequence[str]) -> list[str]:
    """The lenses in their order, with those on which some build."""
    needed = {*wanted, *(below for lens in wanted for below in NEEDS.get(lens, ()))}
    return [lens for lens in LENSES if lens in needed]


def _prepare(source: Source, task: Task, request: Request) -> Prepared:
    """A model with the rows; messages name the model as the user did."""
    try:
        return prepare(source, task, request.rows, request.seed)
    except FinetraceError as error:
        text = str(error).replace(str(source.folder), source.named).replace(str(source.base), source.named)
        raise FinetraceError(text) from error


def _costs(prepared: Sequence[Prepared], lenses: Sequence[str]) -> dict[str, float]:
    """Rough tenths of seconds of each piece of work: `MODEL: LENS`, `MODEL: states`, `similarity`."""
    from finetrace.models.device import operations_per_second

    speed, costs = REACHED * operations_per_second(), {}
    for model in prepared:
        examples, name = len(model.splits), model.source.name
        size = model.layers * (examples / 400) * (model.encoder.config.hidden_size / 384)
        costs[f"{name}: states"] = TENTHS * model.operations / speed
        costs |= {f"{name}: {lens}": TENTHS * SECONDS_PER_LAYER[lens] * size for lens in lenses if lens != "similarity"}
    if "similarity" in lenses:
        pairs = max(1, len(prepared) * (len(prepared) - 1) // 2)
        costs["similarity"] = TENTHS * SECONDS_PER_LAYER["similarity"] * pairs * max(model.layers for model in prepared)
    return costs


class _Progress:
    """One bar for all work: pieces count by their expected time."""

    def __init__(self, costs: dict[str, float]):
        self.costs = {name: max(1, round(cost)) for name, cost in costs.items()}
        self.done = 0
        self.bar = Progress(sum(self.costs.values()), "look", unit="part")

    def share(self, piece: str, done: int, total: int = 1) -> None:
        """So much of a piece is done."""
        self.bar.update(self.done + int(done / total * self.costs.get(piece, 0)), f"({piece})")

    def end(self, piece: str) -> None:
        """A piece is done."""
        self.done += self.costs.get(piece, 0)
        self.bar.update(self.done, f"({piece})")


def _measure_all(result: Look, prepared: Sequence[Prepared], lenses: Sequence[str], costs: dict[str, float],
                 scratch: Path) -> None:
    """Every model through every lens, then pairs of models; fills `result`."""
    progress = _Progress(costs)
    states: list[HiddenStates] = []
    for number, model in enumerate(prepared):
        piece = f"{model.source.name}: states"
        states.append(hidden_states(model, scratch / f"states-{number}",
                                    partial(progress.share, piece, total=len(model.rows))))
        progress.end(piece)
        result.facts[model.source.name] = _facts(model)
        result.of_model[model.source.name] = _measure_model(result, model, states[-1], lenses, progress)
        model.encoder.to("meta")  # its memory is free for the next one
    if "similarity" in lenses:
        _measure_similarity(result, states)
        progress.end("similarity")
    progress.bar.close()


def _facts(model: Prepared) -> dict[str, int]:
    cut = 0 if model.rows.cut is None else int((model.rows.cut > 0).sum())
    return {"layers": model.layers, "dim": int(model.encoder.config.hidden_size),
            "parameters": int(model.encoder.num_parameters()), "tokens": int(model.rows.lengths.sum()), "cut": cut,
            "max_length": model.max_length}


def _measure_model(result: Look, model: Prepared, hidden: HiddenStates, lenses: Sequence[str], progress: _Progress
                   ) -> dict[str, Measured]:
    """All lenses of one model but similarity."""
    task, seed, name = result.task.name, result.request.seed, model.source.name
    parts: dict[str, Measured] = {}
    for lens in (lens for lens in lenses if lens != "similarity"):
        progress.share(f"{name}: {lens}", 0)
        if lens == "convergence":
            parts[lens] = measure.convergence(parts["geometry"], parts["probes"], task, seed)
        elif lens == "calibration":
            answered = answers(model)
            if isinstance(answered, Answers):
                parts[lens] = measure.calibration(answered, task, seed)
                result.notes += [f"Calibration of {name}: {answered.note}."] if answered.note else []
            else:
                result.notes.append(f"Calibration: {name} is left out: {answered}.")
        else:
            parts[lens] = {"geometry": measure.geometry, "hulls": measure.hulls, "probes": measure.probes}[lens](
                hidden, task, seed)
        progress.end(f"{name}: {lens}")
    if "hulls" in parts and parts["hulls"].facts["trivial"]:
        facts = parts["hulls"].facts
        note = (f"Hulls: {facts['points']} points in {facts['dim']} dimensions: planes separate almost any classes of "
                "so few points, so that the number of clusters says little; distances and new rows do, and more rows.")
        result.notes += [note] if note not in result.notes else []
    return parts


def _measure_similarity(result: Look, states: Sequence[HiddenStates]) -> None:
    """Between all pairs of models; of one model alone, between its layers."""
    task, seed = result.task.name, result.request.seed
    named = list(zip((source.name for source in result.sources), states, strict=True))
    if len(named) == 1:
        result.of_model[named[0][0]]["similarity"] = measure.similarity_within(named[0][1], task, seed)
        return
    for (first, first_states), (second, second_states) in combinations(named, 2):
        pair = measure.similarity_between(first_states, second_states, comparison_name(first, second), seed)
        result.of_pair[first, second] = pair
        if "tokens" not in pair.facts["kinds"] and not first_states.spans:
            result.notes.append(f"Similarity of {first} and {second}: of sentences only; they cut texts into different "
                                "tokens.")


def comparison_name(first: str, second: str) -> str:
    """The name of the comparison of two models in a study."""
    return slug(f"{first}-{second}", "comparison")


def long_table(result: Look) -> dict[str, np.ndarray]:
    """All numbers of all lenses as columns of one table: model, other, lens, and the columns of the lenses."""
    import pandas as pd

    parts = [part.table.frame.assign(model=name, other_model="", lens=lens)
             for name, lenses in result.of_model.items() for lens, part in lenses.items()]
    parts += [part.table.frame.assign(model=second, other_model=first, lens="similarity")
              for (first, second), part in result.of_pair.items()]
    table = pd.concat(parts, ignore_index=True)
    front = ["model", "other_model", "lens", "layer", "statistic", "value", "low", "high", "n"]
    table = table.drop(columns=["step", "change", "change_low", "change_high", "other_step"], errors="ignore")
    table = table.assign(layer=table.get("layer", pd.Series(-1, table.index)).fillna(-1).astype(np.int32))
    table = table[[*front, *(name for name in table if name not in front)]]
    texts = {name: table[name].astype(object).where(table[name].notna(), "").astype(str).to_numpy(dtype=object)
             for name in table if not pd.api.types.is_numeric_dtype(table[name])}
    return {name: texts.get(name, table[name].to_numpy()) for name in table}

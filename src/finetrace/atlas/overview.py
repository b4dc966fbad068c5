"""The headline numbers of a study by cell - model x task x method -, with mean and spread over its seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.atlas.collect import Entry, collect
from finetrace.atlas.columns import FINE_TUNINGS, MASKED_WORDS, TASK_METRIC, Column, number_of
from finetrace.atlas.places import Place, collect_places
from finetrace.layout import Layout
from finetrace.store.manifest import NAME


@dataclass(frozen=True)
class Number:
    """A metric of a cell. values: seed -> value."""

    values: dict[int, float]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))

    @property
    def sd(self) -> float:
        """Standard deviation over seeds, of the sample; NaN for one."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else float("nan")


@dataclass(frozen=True)
class Cell:
    """model x task x method. numbers: column -> number, without those that it lacks."""

    model: str
    task: str
    method: str
    seeds: tuple[int, ...]
    numbers: dict[Column, Number]


@dataclass(frozen=True)
class Overview:
    """What of a study is finished. missing: places whose training is not."""

    cells: list[Cell]
    masked: list[Place]
    missing: list[str]


def overview(asked: Mapping[str, Any], layout: Layout) -> Overview:
    """The finished trainings of a study, each with the lenses that have looked at it.

    asked: what the stage atlas is asked. Raises FinetraceError when something is damaged.
    """
    runs = {"{model}/{task}/{method}/s{seed}".format(**run): run for run in asked["trajectories"]}
    done = {place for place in (*runs, *asked["masked"]) if is_there(layout, place, "trajectory")}
    looked = {lens: [place for place in places if place in done and is_there(layout, place, lens)]
              for lens, places in asked["looked"].items()}
    entries = collect([run for place, run in runs.items() if place in done], looked, layout)
    cells: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        cells.setdefault((entry.model, entry.task, entry.method), []).append(entry)
    return Overview([_cell(found) for found in cells.values()],
                    collect_places([place for place in asked["masked"] if place in done], looked, layout),
                    [place for place in (*runs, *asked["masked"]) if place not in done])


def columns_of(lens: str, kind: str = "fine-tunings") -> list[Column]:
    """The columns of one lens, or of the trainings ("trajectory")."""
    return [column for column in (FINE_TUNINGS if kind == "fine-tunings" else MASKED_WORDS) if column.part == lens]


def as_json(study: Overview) -> dict[str, Any]:
    """Everything of an overview as plain data."""
    return {
        "cells": [{"model": cell.model, "task": cell.task, "method": cell.method, "seeds": list(cell.seeds),
                   "metrics": {name_of(column): {"mean": number.mean, "sd": number.sd, "n": len(number.values),
                                                 "values": {str(k): v for k, v in number.values.items()}}
                               for column, number in cell.numbers.items()}} for cell in study.cells],
        "masked_words": [{"place": place.name, "metrics": dict(_numbers(place, MASKED_WORDS))}
                         for place in study.masked],
        "missing": study.missing,
    }


def name_of(column: Column) -> str:
    """LENS/METRIC, by which a headline metric is known."""
    return f"{column.part}/{column.headline.metric.replace(TASK_METRIC, 'metric')}"


def settings_of(each: Entry | Place) -> dict[str, Any]:
    """What a training was asked, flat: model, task, method, seed, and the settings of its manifest."""
    named = {key: getattr(each, key) for key in ("model", "task", "method", "seed")} if isinstance(each, Entry) else {}
    return named | _flat({key: value for key, value in each.manifest.facts.items()
                          if key in ("train", "model", "steps", "parameters", "trained_parameters", "kept_step")})


def is_there(layout: Layout, place: str, part: str) -> bool:
    """Whether a training ("trajectory") or a lens is finished at a place."""
    return (layout.place(place) / part / NAME).is_file()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _numbers(each: Entry | Place, columns: Iterable[Column]) -> Iterable[tuple[str, float]]:
    for column in columns:
        if (value := number_of(each, column)) is not None:
            yield name_of(column), value


def _cell(entries: Sequence[Entry]) -> Cell:
    numbers = {}
    for column in FINE_TUNINGS:
        values = {e.seed: value for e in entries if (value := number_of(e, column)) is not None}
        if values:
            numbers[column] = Number(values)
    first = entries[0]
    return Cell(first.model, first.task, first.method, tuple(e.seed for e in entries), numbers)

"""Leads and training maps of a whole study -> atlas/courses/ (docs/leads-and-maps.md)

    import pandas as pd
    t = pd.read_parquet("atlas/courses/leads.parquet")
    t[t.verdict == "first leads"].query("lag == best_lag")[["cell", "first", "second", "lag", "correlation", "p_cell"]]

What it costs: a cell has at most `MOST_SIGNALS` signals at `MOST_TIMES` checkpoints; leads take time by the pairs of
signals times seeds times the orders of seeds (1,000 at most), maps by the folds (8 at most) times the states (6).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.atlas.lead_lag import LeadLag, leads
from finetrace.atlas.side_by_side import MANY, side_by_side
from finetrace.atlas.signals import Cell
from finetrace.atlas.training_maps import TrainingMap, training_map

Leads = dict[tuple[int, int], LeadLag]
"""Positions of two signals of a cell -> which leads."""
VERSION = 1
"""Of the columns; in the metadata of each file as finetrace_leads_and_maps."""
_TEXT = pa.dictionary(pa.int32(), pa.string())
_CELL = {"cell": (_TEXT, "MODEL/TASK/METHOD, of masked-word trainings the place")}
_RUN = {**_CELL, "place": (_TEXT, "of the run"), "seed": (pa.int32(), "of the run, -1 where there is none")}
_SIGNAL = {"signal": (_TEXT, "LENS/NAME"), "lens": (_TEXT, "whose it is; trajectory: of the training itself")}
Columns = Mapping[str, tuple[pa.DataType, str]]
SIGNALS: Columns = {
    **_RUN, **_SIGNAL,
    "heading": (_TEXT, "a few words"),
    "unit": (_TEXT, "e.g. nats, share; empty where there is none"),
    "direction": (_TEXT, "which way is better: up, down, or empty"),
    "step": (pa.int64(), "optimiser steps done, of the axis that the cell's signals share"),
    "value": (pa.float64(), "in the signal's unit"),
}
LEADS: Columns = {
    **_CELL,
    "first": (_TEXT, "signal"),
    "second": (_TEXT, "signal"),
    "lag": (pa.int32(), "checkpoints by which the second's change is later than the first's"),
    "correlation": (pa.float64(), "of changes at this lag, in -1 .. 1"),
    "low": (pa.float64(), "lower end of its 95 % band over resampled seeds; NaN with one seed"),
    "high": (pa.float64(), "upper end"),
    "null_low": (pa.float64(), "2.5 % of the correlations of shuffled seeds; NaN with one seed"),
    "null_high": (pa.float64(), "97.5 %"),
    "best_lag": (pa.int32(), "lag that stands out most from shuffled seeds"),
    "best_low": (pa.int32(), "least best lag when any one seed is left out"),
    "best_high": (pa.int32(), "greatest"),
    "p": (pa.float64(), "share of shuffled seeds whose best lag stands out as much; NaN with one seed"),
    "p_cell": (pa.float64(), "the same, of the best pair of the cell"),
    "verdict": (_TEXT, "first leads, second leads, together, none, undecided"),
    "reason": (_TEXT, "in words"),
    "seeds": (pa.int32(), "how many"),
    "changes": (pa.int32(), "checkpoints less one"),
    "step_unit": (_TEXT, "what lags count: checkpoints"),
}
MAPS: Columns = {
    **_RUN,
    "step": (pa.int64(), "optimiser steps done"),
    "state": (pa.int32(), "phase, 0-based, in the order of time"),
    "probability": (pa.float64(), "of this state"),
    "states": (pa.int32(), "how many the cell has; 1: no phases"),
    "other_way": (pa.bool_(), "whether the run's path of states is not that of most"),
    "criterion": (_TEXT, "what was held out to tell how many states there are"),
    "verdict": (_TEXT, "phases, none, undecided"),
    "reason": (_TEXT, "in words"),
}
PHASES: Columns = {
    **_CELL,
    "state": (pa.int32(), "phase"),
    "first_step": (pa.int64(), "first checkpoint, median over the runs that visit it"),
    "last_step": (pa.int64(), "last checkpoint, median"),
    "runs": (pa.int32(), "how many visit it"),
    **_SIGNAL,
    "mean": (pa.float64(), "of the signal, in its unit"),
    "standardised": (pa.float64(), "the same in standard deviations of the cell, from its mean"),
}
TURNS: Columns = {
    **_CELL,
    "turn": (pa.int32(), "change of phase, 0-based, on the way of most runs"),
    "before": (pa.int32(), "phase"),
    "after": (pa.int32(), "phase"),
    "step_before": (pa.int64(), "last checkpoint of the one, median over runs"),
    "step_after": (pa.int64(), "first checkpoint of the other, median"),
    **_SIGNAL,
    "change": (pa.float64(), "in standard deviations of the cell"),
    "largest": (pa.bool_(), "whether no other signal changes more"),
    "halfway": (pa.float64(), "step at which the mean course passes the middle; NaN where it hardly changes"),
    "moves": (_TEXT, "lens whose signal does so first, or together"),
}


def courses(cells: Sequence[Cell], seed: int) -> dict[str, pa.Table]:
    """Name of the file -> table, of all five. seed: the study's. Many cells go side by side on all cores that the item
    has; the tables are the same."""
    of_cells = list(side_by_side(_of_cell, [(cell, seed) for cell in cells], many=len(cells) >= MANY))
    of_leads, of_maps = [pairs for pairs, _ in of_cells], [of for _, of in of_cells]
    return {"signals": signals_table(cells), "leads": leads_table(cells, of_leads), **maps_tables(cells, of_maps)}


def _of_cell(cell: Cell, seed: int) -> tuple[Leads, TrainingMap]:
    return (leads(cell.values, seed=seed),
            training_map(cell.values, cell.steps, [signal.lens for signal in cell.signals]))


def signals_table(cells: Sequence[Cell]) -> pa.Table:
    """The courses from which leads and maps are made, with the columns of `SIGNALS`."""
    rows = [({**run, **_of(signal), "heading": signal.heading, "unit": signal.unit, "direction": signal.direction},
             {"step": cell.steps, "value": values})
            for cell in cells for i, run in _runs(cell)
            for signal, values in zip(cell.signals, cell.values[i], strict=True)]
    return _table(SIGNALS, rows)


def leads_table(cells: Sequence[Cell], leads_of: Sequence[Leads]) -> pa.Table:
    """Every pair of signals of every cell, a row per lag, with the columns of `LEADS`."""
    courses = ("correlation", "low", "high", "null_low", "null_high")
    said = ("best_lag", "best_low", "best_high", "p", "p_cell", "verdict", "reason", "seeds", "changes")
    rows = [({"cell": cell.name, "first": cell.signals[i].name, "second": cell.signals[j].name,
              "step_unit": "checkpoints", **{name: getattr(lead, name) for name in said}},
             {"lag": lead.lags, **{name: getattr(lead, name) for name in courses}})
            for cell, pairs in zip(cells, leads_of, strict=True) for (i, j), lead in pairs.items()]
    return _table(LEADS, rows)


def maps_tables(cells: Sequence[Cell], maps: Sequence[TrainingMap]) -> dict[str, pa.Table]:
    """Name of the file -> maps: the phase of every run and step; phases: what they are like; turns: what changes."""
    mapped = list(zip(cells, maps, strict=True))
    rows = [({**run, "states": of.count, "other_way": bool(of.other_way[i]), "criterion": of.criterion,
              "verdict": of.verdict, "reason": of.reason},
             {"step": cell.steps, "state": of.states[i], "probability": of.probability[i]})
            for cell, of in mapped for i, run in _runs(cell)]
    return {"maps": _table(MAPS, rows),
            "phases": _table(PHASES, [row for cell, of in mapped for row in _phase_rows(cell, of)]),
            "turns": _table(TURNS, [row for cell, of in mapped for row in _turn_rows(cell, of)])}


Row = tuple[dict[str, Any], dict[str, Any]]
"""What several rows of a table share, and columns of equal length in which they differ."""


def _phase_rows(cell: Cell, of: TrainingMap) -> Iterator[Row]:
    for phase in of.phases:
        said = {name: getattr(phase, name) for name in ("state", "first_step", "last_step", "runs")}
        yield ({"cell": cell.name, **said},
               {**_all(cell), "mean": phase.means, "standardised": phase.standardised})


def _turn_rows(cell: Cell, of: TrainingMap) -> Iterator[Row]:
    for number, turn in enumerate(of.turns):
        said = {name: getattr(turn, name) for name in ("before", "after", "step_before", "step_after", "moves")}
        yield ({"cell": cell.name, "turn": number, **said},
               {**_all(cell), "change": turn.change, "halfway": turn.halfway,
                "largest": np.arange(len(turn.change)) == turn.largest})


def _runs(cell: Cell) -> Iterator[tuple[int, dict[str, Any]]]:
    for i, (place, seed) in enumerate(zip(cell.places, cell.seeds, strict=True)):
        yield i, {"cell": cell.name, "place": place, "seed": seed}


def _of(signal: Any) -> dict[str, str]:
    return {"signal": signal.name, "lens": signal.lens}


def _all(cell: Cell) -> dict[str, list[str]]:
    return {name: [_of(signal)[name] for signal in cell.signals] for name in _SIGNAL}


def _table(columns: Columns, rows: Sequence[Row]) -> pa.Table:
    """The table of groups of rows, those that share texts and numbers one group."""
    counts = [len(next(iter(differ.values()))) for _, differ in rows]
    group = pa.array(np.repeat(np.arange(len(rows)), counts))
    made = {}
    for name, (kind, _) in columns.items():
        if rows and name in rows[0][1]:
            plain = pa.concat_arrays([pa.array(differ[name]) for _, differ in rows])
        else:
            plain = pa.array([same[name] for same, _ in rows], pa.string() if kind == _TEXT else kind).take(group)
        made[name] = plain.dictionary_encode() if kind == _TEXT else plain.cast(kind)
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()],
                       metadata={"finetrace_leads_and_maps": str(VERSION)})
    return pa.table(made).cast(schema)

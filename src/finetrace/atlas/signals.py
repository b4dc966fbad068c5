"""The signals of a training: what its lenses say over the steps, and those of a cell on one axis of steps.

A signal is the course behind a metric by which trajectories are compared: every headline metric of every lens and of
the training itself, and those that lenses declare as `COURSES`. Names of metrics say which rows of the one table are
meant:

    effective_rank/layer-*/last      quantity effective_rank; first, last and the layer are of the metric: last layer
    test/ece_scaled                  quantity ece; test is a split, or the value of a key; scaled is a key: scaled=True
    mean_novelty, best_accuracy/*    what is before or after the quantity and no key: how one number was made of many
    */p_at_1 (of `mean_of`)          quantity p_at_1, mean over the first of its keys (corpus, task)

What a name leaves open is what comes first in the lens's table: lenses write the whole before its parts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from finetrace.atlas.columns import FINE_TUNING, MASKED_WORD_TRAINING, TASK_METRIC
from finetrace.atlas.headlines import COURSES, OF_FINE_TUNINGS, OF_MASKED_WORDS
from finetrace.lenses.headline import Headline

LOSSES = (Headline("train/loss", "loss", "nats", 3, "down", "loss of the training batches"),
          Headline("validation/loss", "loss", "nats", 3, "down", "loss on validation"))
"""Of the training itself: metrics that head no column, and whose courses are signals all the same."""
MADE = ("mean", "best")
"""Before a quantity: how one number was made of a lens's many."""
EVERY_STEP = ("infodynamics/", "trajectory/train/")
"""Signals that are recorded at every step, and noisy: averaged between checkpoints."""
LEAST_TIMES, MOST_TIMES = 5, 64
MOST_SIGNALS = 30
Course = tuple[np.ndarray, np.ndarray]
"""Steps (time,) int64, ascending, and values (time,) float64."""


@dataclass(frozen=True)
class Signal:
    """A course of the one table.

    name: LENS/WORDS;  lens: trajectory is the training itself;  quantity and what follows choose the rows: words are
    the split or values of keys, flags are keys that are True;  mean: over the first key;  best: of the layers, not the
    last.  unit, direction: as of the metric.
    """

    name: str
    lens: str
    quantity: str
    words: tuple[str, ...]
    flags: tuple[str, ...]
    mean: bool
    best: bool
    unit: str
    direction: str

    @property
    def heading(self) -> str:
        """A few words, for the head of a chart."""
        return self.name.partition("/")[2].replace("/", " ").replace("_", " ")


@dataclass(frozen=True)
class Cell:
    """The runs of a cell - a fine-tuning's seeds, or one masked-word training - and their signals on one axis.

    steps: (time,) int64, ascending;  values: (run, signal, time) float64, finite;  left_out: name of a signal -> why it
    has no values here.
    """

    name: str
    places: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: np.ndarray
    signals: tuple[Signal, ...]
    values: np.ndarray
    left_out: Mapping[str, str]


def cells_of(table: pd.DataFrame) -> list[Cell]:
    """The cells of a study's one table with at least two signals at `LEAST_TIMES` common steps, in its order.

    table: as `atlas.table.one_table` makes it, its texts as categories.
    """
    rows = table[(table["step"] >= 0) & (table["model"] != "") & (table["label"] == "")].dropna(subset="value")
    signal_courses: dict[str, tuple[Signal, dict[str, Course]]] = {}
    for found in courses_by_metric(rows).values():
        for signal, courses in found:
            signal_courses.setdefault(signal.name, (signal, courses))
    runs = rows[["place", "model", "task", "method", "seed"]].drop_duplicates("place")
    by_cell: dict[str, list[tuple[str, int]]] = {}
    for run in runs.itertuples():
        name = f"{run.model}/{run.task}/{run.method}" if run.task else run.place
        by_cell.setdefault(name, []).append((run.place, int(run.seed)))
    cells = [cell_of(name, runs, [(signal, [courses.get(place) for place, _ in runs])
                                  for signal, courses in signal_courses.values()])
             for name, runs in by_cell.items()]
    return [cell for cell in cells if cell is not None]


def signals_by_metric(rows: pd.DataFrame) -> dict[tuple[str, str], list[Signal]]:
    """Lens and metric of a headline -> the signals that it means, one for each of its alternatives `a|b` of which a
    table has the quantity; in the order of the tables."""
    parts = {"trajectory": (*FINE_TUNING, *MASKED_WORD_TRAINING, *LOSSES), **OF_FINE_TUNINGS, **OF_MASKED_WORDS}
    known = rows[["lens", "quantity", "keys"]].drop_duplicates()
    by_metric: dict[tuple[str, str], list[Signal]] = {}
    for lens, headlines in parts.items():
        of_lens = known[known["lens"] == lens]
        quantities = set(of_lens["quantity"])
        keys = {name for text in of_lens["keys"].unique() for name in _parsed(text)}
        for headline in (*headlines, *COURSES.get(lens, ())):
            metrics = [metric for metric in (headline.mean_of or headline.metric).split("|")
                       if TASK_METRIC not in metric]
            meant = [_meant(lens, metric, headline, quantities, keys) for metric in metrics]
            by_metric.setdefault((lens, headline.metric), []).extend(signal for signal in meant if signal is not None)
    return by_metric


def courses_by_metric(rows: pd.DataFrame) -> dict[tuple[str, str], list[tuple[Signal, dict[str, Course]]]]:
    """Lens and metric of a headline -> its signals with their courses by place. Of alternatives `a|b` a place has the
    first that is there, as in the tables."""
    by_metric: dict[tuple[str, str], list[tuple[Signal, dict[str, Course]]]] = {}
    by_name: dict[str, dict[str, Course]] = {}  # before and after a training mean the same course
    for metric, signals in signals_by_metric(rows).items():
        there: set[str] = set()
        by_metric[metric] = []
        for signal in signals:
            if signal.name not in by_name:
                by_name[signal.name] = courses_of(rows, signal)
            courses = {place: course for place, course in by_name[signal.name].items() if place not in there}
            there |= courses.keys()
            by_metric[metric].append((signal, courses))
    return by_metric


def courses_of(rows: pd.DataFrame, signal: Signal) -> dict[str, Course]:
    """Place -> the signal's course there. rows: of the one table, over steps, finite, of no label."""
    rows = rows[(rows["lens"] == signal.lens) & (rows["quantity"] == signal.quantity)]
    which = _which(rows, signal)
    rows = rows.assign(which=which)[which >= 0]
    place = rows["place"].cat.remove_unused_categories()
    if not signal.best:
        last = rows.groupby(place, observed=True)["layer"].transform("max")
        rows, place = rows[rows["layer"] == last], place[rows["layer"] == last]
    first = rows.groupby(place, observed=True)["which"].transform("first")
    kept = rows[rows["which"] == first]
    means = kept.groupby(["place", "step", "layer"], observed=True)["value"].mean()
    course = means.groupby(["place", "step"], observed=True).max().reset_index()
    return {str(name): (part["step"].to_numpy(np.int64), part["value"].to_numpy(np.float64))
            for name, part in course.groupby("place", observed=True)}


def cell_of(name: str, runs: Sequence[tuple[str, int]],
            signal_courses: Sequence[tuple[Signal, Sequence[Course | None]]]) -> Cell | None:
    """The signals of a cell on one axis of steps; None without two of them.

    runs: place and seed of each;  signal_courses: each signal, and its course in each run.

    The axis is that of the checkpoints, of one of the lenses, on which most can be compared: pairs of lenses times
    changes, then signals times changes. A signal is there by its value at each step of the axis, or, if it has as many
    steps of its own and reaches from end to end, between its neighbours on a line; signals recorded at `EVERY_STEP` by
    the mean of all steps that are nearest to the axis's. Signals that some run lacks, that have fewer steps than the
    axis, or that do not move, are left out.
    """
    left_out, complete = {}, []
    for signal, courses in signal_courses:
        there = [course for course in courses if course is not None]
        if there and len(there) < len(runs):
            left_out[signal.name] = f"looked at in {len(there)} of {len(runs)} runs"
        elif there and min(len(steps) for steps, _ in there) < LEAST_TIMES:
            left_out[signal.name] = f"fewer than {LEAST_TIMES} steps"
        elif there:
            complete.append((signal, there))
    axis = _axis(complete)
    kept: list[Signal] = []
    values: list[np.ndarray] = []
    for signal, courses in complete:
        on_axis = _all_on(axis, signal, courses)
        if on_axis is None:
            left_out[signal.name] = f"not at the {len(axis)} steps that most signals share"
        elif (np.ptp(on_axis, axis=1) <= 1e-12 * np.abs(on_axis).max()).all():
            left_out[signal.name] = "does not move"
        elif len(kept) == MOST_SIGNALS:
            left_out[signal.name] = f"the cell has {MOST_SIGNALS} signals before it"
        else:
            kept.append(signal)
            values.append(on_axis)
    if len(kept) < 2:
        return None
    return Cell(name, tuple(place for place, _ in runs), tuple(seed for _, seed in runs), axis, tuple(kept),
                np.stack(values, axis=1), left_out)


def _meant(lens: str, metric: str, headline: Headline, quantities: set[str], keys: set[str]) -> Signal | None:
    """The signal whose course a metric's name means; None where no word of it is a quantity with a course."""
    words = [word for word in metric.split("/") if word not in ("first", "last", "*", "layer-*")]
    for word in words:
        for quantity in sorted(quantities, key=lambda name: (-len(name), name)):
            affix = _affix(word, quantity)
            if affix is None or (word.endswith(f"_{quantity}") and affix not in MADE and affix not in keys):
                continue
            rest = tuple(other for other in words if other != word)
            flags = (affix,) if affix in keys else ()
            split = (headline.split,) if headline.split else ()
            name = "/".join([lens, *rest, "_".join([quantity, *flags])])
            return Signal(name, lens, quantity, (*rest, *split), flags, bool(headline.mean_of), affix == "best",
                          headline.unit, headline.direction)
    return None


def _affix(word: str, quantity: str) -> str | None:
    """What stands before or after the quantity in a word of a metric's name; None where the word does not hold it."""
    if word == quantity:
        return ""
    if word.endswith(f"_{quantity}"):
        return word.removesuffix(f"_{quantity}")
    return word.removeprefix(f"{quantity}_") if word.startswith(f"{quantity}_") else None


def _parsed(text: str) -> dict[str, str]:
    """"head=mlp seed=0" -> names and values; a value may hold spaces or =."""
    values: dict[str, str] = {}
    for part in str(text).split(" "):
        name, sign, value = part.partition("=")
        if sign:
            values[name] = value
    return values


def _which(rows: pd.DataFrame, signal: Signal) -> np.ndarray:
    """(row,) int64: rows of one course, or of courses over which the mean goes, have the same number; -1: not meant."""
    splits, keys = rows["split"].cat, rows["keys"].cat
    sides = splits.codes.to_numpy(np.int64) * len(keys.categories) + keys.codes.to_numpy()
    distinct, at = np.unique(sides, return_inverse=True)
    groups = [_group(signal, splits.categories[side // len(keys.categories)],
                     _parsed(keys.categories[side % len(keys.categories)])) for side in distinct]
    names = {group: i for i, group in enumerate(sorted({group for group in groups if group is not None}))}
    return np.array([-1 if group is None else names[group] for group in groups], dtype=np.int64)[at]


def _group(signal: Signal, split: str, keys: Mapping[str, str]) -> tuple[str, ...] | None:
    """What rows of the signal have in common: their split and keys, without the key over which the mean goes; None if
    they are not the signal's."""
    if any(word != split and word not in keys.values() for word in signal.words):
        return None
    if any(keys.get(flag) != "True" for flag in signal.flags):
        return None
    named = list(keys.items())[1 if signal.mean else 0:]
    return (split, *(f"{name}={value}" for name, value in named))


def _axis(signal_courses: Sequence[tuple[Signal, Sequence[Course]]]) -> np.ndarray:
    """(time,) int64: the common steps of one of the signals on which most can be compared; empty where none fits."""
    best, chosen = (0.0, 0.0), np.zeros(0, np.int64)
    for axis in _candidates(signal_courses):
        there = [signal for signal, courses in signal_courses if _all_on(axis, signal, courses) is not None]
        lenses, changes = len({signal.lens for signal in there}), len(axis) - 1
        score = (lenses * (lenses - 1) / 2 * changes, float(len(there) * changes))
        if score > best:
            best, chosen = score, axis
    return chosen


def _candidates(signal_courses: Sequence[tuple[Signal, Sequence[Course]]]) -> Iterator[np.ndarray]:
    seen = set()
    for signal, courses in signal_courses:
        axis = courses[0][0]
        for steps, _ in courses[1:]:
            axis = np.intersect1d(axis, steps)
        if len(axis) > MOST_TIMES:
            axis = axis[np.unique(np.linspace(0, len(axis) - 1, MOST_TIMES).round().astype(int))]
        if not signal.name.startswith(EVERY_STEP) and len(axis) >= LEAST_TIMES and tuple(axis) not in seen:
            seen.add(tuple(axis))
            yield axis


def _all_on(axis: np.ndarray, signal: Signal, courses: Sequence[Course]) -> np.ndarray | None:
    """(run, time) float64: the courses of all runs at the steps of an axis; None where one does not fit it."""
    on_axis = [_on(axis, signal, course) for course in courses]
    there = [each for each in on_axis if each is not None]
    return np.stack(there) if len(there) == len(on_axis) else None


def _on(axis: np.ndarray, signal: Signal, course: Course) -> np.ndarray | None:
    """(time,) float64: a course at the steps of an axis; None where it does not reach so far or is coarser."""
    steps, values = course
    if len(axis) < LEAST_TIMES or len(steps) < len(axis):
        return None
    if signal.name.startswith(EVERY_STEP):
        if steps[0] > axis[1] or steps[-1] < axis[-2]:
            return None
        nearest = np.searchsorted((axis[1:] + axis[:-1]) / 2, steps)
        counts = np.bincount(nearest, minlength=len(axis))
        sums = np.bincount(nearest, values, minlength=len(axis))
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.interp(axis, steps, values))
    inside = ((steps >= axis[0]) & (steps <= axis[-1])).sum()
    if steps[0] > axis[0] or steps[-1] < axis[-1] or inside < len(axis):
        return None
    return np.interp(axis, steps, values)

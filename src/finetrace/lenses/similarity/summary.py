"""What the lens similarity says about one trajectory, or about two: rows of a table, grids, headline numbers, curves. Pure.

A row compares (step, layer) with its reference (other_step, other_layer). Within a trajectory the reference is an earlier
checkpoint; between two, the reference is the first trajectory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from finetrace.lenses.intervals import groups_of
from finetrace.lenses.similarity.measures import Representation, Similarity, compare

Load = Callable[[int, int], Representation]  # step, layer -> the representation of the chosen examples
Row = tuple[int, int, int, int, str, float, float, float, int]
FIELDS = ("step", "layer", "other_step", "other_layer", "statistic", "value", "low", "high", "n")


def main_measure(measures: Sequence[str]) -> str:
    """The measure that heat maps and curves show: cka where it is computed."""
    return "cka" if "cka" in measures else measures[0]


def within(load: Load, steps: Sequence[int], layers: int, measures: Sequence[str], variance: float) -> Iterator[Row]:
    """Every checkpoint against every one before, at each layer: by all measures against the first and the neighbour, by the main
    measure against the others; then each layer of the last checkpoint against each layer of the first by the main measure.

    Holds one layer of all checkpoints at a time.
    """
    first_step, last_step, main = steps[0], steps[-1], [main_measure(measures)]
    for layer in range(layers):
        held = [load(first_step, layer)]
        yield from _rows(compare(held[0], held[0], measures, variance), first_step, layer, first_step, layer, held[0])
        for number, step in enumerate(steps[1:], start=1):
            now = load(step, layer)
            for earlier, then in enumerate(held):
                by = measures if earlier in (0, number - 1) else main
                yield from _rows(compare(then, now, by, variance), step, layer, steps[earlier], layer, now)
            held.append(now)
    yield from _across(load, load, (first_step, last_step), layers, layers, [(i, i) for i in range(layers)], measures, variance)


def between(load_first: Load, load_second: Load, step_pairs: Sequence[tuple[int, int]], layers_first: int, layers_second: int,
            measures: Sequence[str], variance: float) -> Iterator[Row]:
    """Two trajectories at pairs of checkpoints (step of the first, of the second): `matched_layers` by all measures, and at the
    first and last pair each layer against each by the main measure."""
    matched = matched_layers(layers_first, layers_second)
    for number, (step_first, step_second) in enumerate(step_pairs):
        for i, j in matched:
            a, b = load_first(step_first, i), load_second(step_second, j)
            yield from _rows(compare(a, b, measures, variance), step_second, j, step_first, i, b)
        if number in (0, len(step_pairs) - 1):
            yield from _across(load_first, load_second, (step_first, step_second), layers_first, layers_second, matched, measures,
                               variance)


def matched_layers(first: int, second: int) -> list[tuple[int, int]]:
    """For each layer of the second model, the layer of the first at the same share of the depth: pairs (first, second).

    first, second: counts of hidden states, embeddings included. Equal counts give (0, 0), (1, 1), ...
    """
    return [(round(j * (first - 1) / max(1, second - 1)), j) for j in range(second)]


def choose(sentences: np.ndarray, rows: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `rows` of the examples, at random: their positions (chosen,) int64, ascending, and their groups (chosen,) int64.

    sentences: (example,) int64 sentence of each example; a group holds whole sentences.
    """
    random = np.random.default_rng(seed)
    count = len(sentences)
    chosen = np.sort(random.choice(count, rows, replace=False)) if count > rows else np.arange(count)
    _, sentence = np.unique(sentences[chosen], return_inverse=True)
    return chosen, groups_of(int(sentence.max()) + 1, groups, seed)[sentence]


def table(rows: Mapping[str, Iterable[Row]]) -> dict[str, np.ndarray]:
    """Rows by representation as the columns of table.parquet."""
    found = [(name, *row) for name, part in rows.items() for row in part]
    columns = dict(zip(("representation", *FIELDS), zip(*found, strict=True), strict=True))
    types = {"layer": np.int32, "other_layer": np.int32, "step": np.int64, "other_step": np.int64, "n": np.int64,
             "value": np.float64, "low": np.float64, "high": np.float64}
    order = ("step", "layer", "other_step", "other_layer", "representation", *FIELDS[4:])
    return {name: np.array(columns[name], dtype=types.get(name)) for name in order}


def select(columns: dict[str, np.ndarray], **where: Any) -> dict[str, np.ndarray]:
    """The rows of a table whose columns have these values, e.g. `select(t, statistic="cka", other_step=0)`."""
    keep = np.ones(len(columns["value"]), dtype=bool)
    for name, value in where.items():
        keep &= columns[name] == value
    return {name: values[keep] for name, values in columns.items()}


def grid(columns: dict[str, np.ndarray], down: str, across: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of selected rows as labels (down,), labels (across,) and values (down, across); NaN where there is no row."""
    rows, at_row = np.unique(columns[down], return_inverse=True)
    places, at_place = np.unique(columns[across], return_inverse=True)
    values = np.full((len(rows), len(places)), np.nan)
    values[at_row, at_place] = columns["value"]
    return rows, places, values


def at_layers(columns: dict[str, np.ndarray], **where: Any) -> dict[str, np.ndarray]:
    """The selected rows between matched layers, by ascending layer of the second side."""
    matched = matched_layers(int(columns["other_layer"].max()) + 1, int(columns["layer"].max()) + 1)
    part = select(columns, **where)
    keep = np.array([(i, j) in matched for i, j in zip(part["other_layer"], part["layer"], strict=True)], dtype=bool)
    order = np.argsort(part["layer"][keep], kind="stable")
    return {name: values[keep][order] for name, values in part.items()}


def metrics(columns: dict[str, np.ndarray], measures: Sequence[str], step: int, other_step: int,
            when: str = "last") -> dict[str, float]:
    """The main measure at each layer, the others at the last layer, e.g. `cka/cls/layer-04/last`; undefined ones are left out."""
    found: dict[str, float] = {}
    for representation in dict.fromkeys(columns["representation"].tolist()):
        for measure in measures:
            part = at_layers(columns, step=step, other_step=other_step, representation=representation, statistic=measure)
            for layer, value in zip(part["layer"].tolist(), part["value"].tolist(), strict=True):
                if np.isfinite(value) and (measure == main_measure(measures) or layer == columns["layer"].max()):
                    found[f"{measure}/{representation}/layer-{layer:02d}/{when}"] = value
    return found


def curves(columns: dict[str, np.ndarray], measures: Sequence[str], pairs: Sequence[tuple[int, int]]) -> dict[str, np.ndarray]:
    """The main measure at each layer over pairs of checkpoints (step, other_step): column step, then e.g. cka_cls_layer_04.

    Layers without any defined value are left out.
    """
    measure = main_measure(measures)
    found = {"step": np.array([step for step, _ in pairs], dtype=np.int64)}
    for representation in dict.fromkeys(columns["representation"].tolist()):
        parts = [at_layers(columns, statistic=measure, representation=representation, step=step, other_step=other)
                 for step, other in pairs]
        values = np.array([part["value"] for part in parts])  # (pair, layer)
        for layer, curve in zip(parts[0]["layer"].tolist(), values.T, strict=True):
            if np.isfinite(curve).any():
                found[f"{measure}_{representation}_layer_{layer:02d}"] = curve
    return found


def _rows(found: dict[str, Similarity], step: int, layer: int, other_step: int, other_layer: int,
          examples: Representation) -> Iterator[Row]:
    count = len(examples.centred)
    for name, one in found.items():
        yield step, layer, other_step, other_layer, name, one.value, one.low, one.high, count


def _across(load_first: Load, load_second: Load, steps: tuple[int, int], layers_first: int, layers_second: int,
            done: Sequence[tuple[int, int]], measures: Sequence[str], variance: float) -> Iterator[Row]:
    """Each layer against each, but for the pairs that are done."""
    for i in range(layers_first):
        a = load_first(steps[0], i)
        for j in range(layers_second):
            if (i, j) not in done:
                b = load_second(steps[1], j)
                yield from _rows(compare(a, b, [main_measure(measures)], variance), steps[1], j, steps[0], i, b)

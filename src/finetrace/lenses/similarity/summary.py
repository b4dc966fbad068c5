"""What the lens similarity says about one trajectory, or about two: a table, headline numbers, curves. Pure.

A row compares (step, layer) with its reference (other_step, other_layer). Within a trajectory the reference is an
earlier checkpoint; between two, the reference is the first trajectory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from finetrace.lenses.intervals import groups_of
from finetrace.lenses.similarity.measures import Representation, compare
from finetrace.longtable import LongTable, known

Load = Callable[[int, int], Representation]  # step, layer -> the representation of the chosen examples
Row = dict[str, Any]
COLUMNS: dict[str, type] = {
    "step": np.int64, "layer": np.int32, "other_step": np.int64, "other_layer": np.int32, "representation": str,
    "statistic": str, "value": np.float64, "low": np.float64, "high": np.float64, "n": np.int64}


def main_measure(measures: Sequence[str]) -> str:
    """The measure that heat maps and curves show: cka where it is computed."""
    return "cka" if "cka" in measures else measures[0]


def within(load: Load, steps: Sequence[int], layers: int, measures: Sequence[str], variance: float
           ) -> Iterator[list[Row]]:
    """Every checkpoint against every one before, at each layer: by all measures against the first and the neighbour,
    by the main measure against the others; then each layer of the last checkpoint against each layer of the first by
    the main measure. Rows by comparison, of which there are layers * (steps * (steps - 1) / 2 + layers).

    Holds one layer of all checkpoints at a time.
    """
    first_step, last_step, main = steps[0], steps[-1], [main_measure(measures)]
    for layer in range(layers):
        held = [load(first_step, layer)]
        yield _rows(held[0], held[0], measures, variance, (first_step, layer), (first_step, layer))
        for number, step in enumerate(steps[1:], start=1):
            states = load(step, layer)
            for earlier, earlier_states in enumerate(held):
                by = measures if earlier in (0, number - 1) else main
                yield _rows(earlier_states, states, by, variance, (steps[earlier], layer), (step, layer))
            held.append(states)
    yield from _across_layers(load, load, (first_step, last_step), layers, [(i, i) for i in range(layers)], main,
                              variance)


def between(load_first: Load, load_second: Load, step_pairs: Sequence[tuple[int, int]], layers_first: int,
            layers_second: int, measures: Sequence[str], variance: float) -> Iterator[list[Row]]:
    """Two trajectories at pairs of checkpoints (step of the first, of the second): `matched_layers` by all measures,
    and at the first and last pair each layer against each by the main measure. Rows by comparison, of which there are
    layers_second at each pair, and layers_first * layers_second at the first and last one."""
    matched, main = matched_layers(layers_first, layers_second), [main_measure(measures)]
    for number, steps in enumerate(step_pairs):
        for i, j in matched:
            yield _rows(load_first(steps[0], i), load_second(steps[1], j), measures, variance, (steps[0], i),
                        (steps[1], j))
        if number in (0, len(step_pairs) - 1):
            yield from _across_layers(load_first, load_second, steps, layers_first, matched, main, variance)


def matched_layers(first: int, second: int) -> list[tuple[int, int]]:
    """For each layer of the second model, the layer of the first at the same share of the depth: pairs (first, second).

    first, second: counts of hidden states, embeddings included. Equal counts give (0, 0), (1, 1), ...
    """
    return [(round(j * (first - 1) / max(1, second - 1)), j) for j in range(second)]


def choose(sentences: np.ndarray, rows: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `rows` of the examples, at random: their positions (chosen,) int64, ascending, and their groups
    (chosen,) int64.

    sentences: (example,) int64 sentence of each example; a group holds whole sentences.
    """
    random = np.random.default_rng(seed)
    count = len(sentences)
    chosen = np.sort(random.choice(count, rows, replace=False)) if count > rows else np.arange(count)
    _, sentence = np.unique(sentences[chosen], return_inverse=True)
    return chosen, groups_of(int(sentence.max()) + 1, groups, seed)[sentence]


def table(rows: Mapping[str, Iterable[Row]]) -> LongTable:
    """Rows by representation as one table."""
    return LongTable.of_rows((row | {"representation": kind} for kind, part in rows.items() for row in part), COLUMNS)


def at_layers(table: LongTable, **where: Any) -> LongTable:
    """The selected rows between matched layers, by ascending layer of the second side."""
    matched = matched_layers(int(table.frame["other_layer"].max()) + 1, int(table.frame["layer"].max()) + 1)
    rows = table.select(**where).frame
    return LongTable(rows[rows["other_layer"] == rows["layer"].map({j: i for i, j in matched})]).sorted("layer")


def metrics(table: LongTable, measures: Sequence[str], step: int, other_step: int, when: str = "last"
            ) -> dict[str, float]:
    """The main measure at each layer, the others at the last layer, e.g. `cka/cls/layer-04/last`; undefined ones are
    left out."""
    numbers: dict[str, float] = {}
    top = table.frame["layer"].max()
    for kind in table.distinct("representation"):
        for measure in measures:
            part = at_layers(table, step=step, other_step=other_step, representation=kind, statistic=measure).frame
            numbers |= {f"{measure}/{kind}/layer-{layer:02d}/{when}": value
                        for layer, value in zip(part["layer"], part["value"], strict=True)
                        if measure == main_measure(measures) or layer == top}
    return known(numbers)


def curves(table: LongTable, measures: Sequence[str], pairs: Sequence[tuple[int, int]]) -> dict[str, np.ndarray]:
    """The main measure at each layer over pairs of checkpoints (step, other_step): column step, then e.g.
    cka_cls_layer_04.

    Layers without any defined value are left out.
    """
    measure = main_measure(measures)
    columns = {"step": np.array([step for step, _ in pairs], dtype=np.int64)}
    for kind in table.distinct("representation"):
        parts = [at_layers(table, statistic=measure, representation=kind, step=step, other_step=other).frame
                 for step, other in pairs]
        values = np.array([part["value"] for part in parts])  # (pair, layer)
        columns |= {f"{measure}_{kind}_layer_{layer:02d}": curve
                    for layer, curve in zip(parts[0]["layer"], values.T, strict=True) if np.isfinite(curve).any()}
    return columns


def recorded(table: LongTable) -> dict[str, np.ndarray]:
    """The columns that the figures need, as arrays."""
    return {name: np.asarray(values) for name, values in table.columns().items() if name != "n"}


def _rows(first: Representation, second: Representation, measures: Sequence[str], variance: float,
          first_place: tuple[int, int], second_place: tuple[int, int]) -> list[Row]:
    """One comparison; first_place, second_place: step and layer."""
    place = dict(zip(("other_step", "other_layer", "step", "layer"), (*first_place, *second_place), strict=True))
    return [place | {"statistic": measure, "value": likeness.value, "low": likeness.low, "high": likeness.high,
                     "n": len(second.centred)}
            for measure, likeness in compare(first, second, measures, variance).items()]


def _across_layers(load_first: Load, load_second: Load, steps: tuple[int, int], layers_first: int,
                   matched: Sequence[tuple[int, int]], measures: Sequence[str], variance: float) -> Iterator[list[Row]]:
    """Each layer against each, but for the matched ones, which are done."""
    for i in range(layers_first):
        first = load_first(steps[0], i)
        for _, j in matched:
            if (i, j) not in matched:
                yield _rows(first, load_second(steps[1], j), measures, variance, (steps[0], i), (steps[1], j))

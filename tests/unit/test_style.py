"""The house style of figures: infinite numbers are gaps, and what holds none is given to the figure as it is."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from finetrace.figures.style import new_figure, styled


@dataclass(frozen=True)
class Point:
    values: np.ndarray
    high: float


def test_infinite_numbers_are_gaps_wherever_they_stand() -> None:
    seen = {}

    @styled
    def draw(points: dict[str, list[Point]], *, floor: float) -> Figure:
        seen.update(points=points, floor=floor)
        return new_figure()[0]

    draw({"a": [Point(np.array([1.0, np.inf]), 2.0), Point(np.array([3.0]), -np.inf)]}, floor=float("inf"))
    first, second = seen["points"]["a"]
    np.testing.assert_array_equal(first.values, [1.0, np.nan])
    assert first.high == 2.0 and np.isnan(second.high) and np.isnan(seen["floor"])


def test_what_holds_none_is_given_as_it_is() -> None:
    @styled
    def draw(notes: list[str], known: dict[str, list[float]]) -> Figure:
        notes.append("drawn")
        known["more"] = [1.0]
        return new_figure()[0]

    notes: list[str] = []
    known = {"some": [0.5]}
    draw(notes, known)
    assert notes == ["drawn"] and set(known) == {"some", "more"}

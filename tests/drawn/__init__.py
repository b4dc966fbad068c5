"""Values, ordinary and extreme, for figures, and what must be true of every figure: nothing is cut off."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

SLACK = 3.0  # pixels: half a line's width
LONG = "Ein_sehr-langer.Name für «größere» Mengen, Nº "


@dataclass(frozen=True)
class Given:
    """What a figure is given. count: of steps, layers, classes, sets and seeds;  scale: of numbers without a unit;
    broken: whether every third number is NaN, every seventh infinite."""

    count: int
    scale: float = 1.0
    broken: bool = False
    long: bool = False

    @property
    def steps(self) -> list[int]:
        return [0, *(7 * 2**min(i, 20) + i for i in range(self.count - 1))][:self.count]

    @property
    def layers(self) -> list[int]:
        return list(range(self.count))

    @property
    def title(self) -> str:
        return f"What is drawn: {LONG * 4 if self.long else 'name'}"

    @property
    def note(self) -> str:
        return LONG * 6 if self.long else "note"

    def names(self, most: int = 1000) -> list[str]:
        return [f"{LONG if self.long else 'name '}{i}" for i in range(min(self.count, most))]

    def _torn(self, values: np.ndarray) -> np.ndarray:
        if self.broken:
            values.flat[::3], values.flat[5::7] = np.nan, np.inf
        return values

    def share(self, *shape: int) -> np.ndarray:
        """From 0 to 1."""
        return self._torn(np.random.default_rng(0).random(shape))

    def number(self, *shape: int) -> np.ndarray:
        """Of any sign."""
        return self._torn(self.scale * np.random.default_rng(1).normal(size=shape))

    def size(self, *shape: int) -> np.ndarray:
        """From 0 on."""
        return self._torn(self.scale * np.random.default_rng(2).random(shape))

    def ends(self, values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> np.ndarray:
        """(..., 3) value, low, high."""
        spread = 0.1 * np.nanmax(np.where(np.isfinite(values), np.abs(values), 0), initial=0)
        return np.stack([values, np.clip(values - spread, *bounds), np.clip(values + spread, *bounds)], axis=-1)

    def shares(self, *shape: int) -> np.ndarray:
        """(..., 3) shares with intervals."""
        return self.ends(self.share(*shape), (0, 1))

    def sizes(self, *shape: int) -> np.ndarray:
        return self.ends(self.size(*shape), (0, np.inf))

    def numbers(self, *shape: int) -> np.ndarray:
        return self.ends(self.number(*shape))


GIVEN = {"one": Given(1), "one tiny": Given(1, 1e-12), "many, huge": Given(50, 1e12, long=True),
         "some, tiny": Given(4, 1e-12), "broken": Given(5, 1e12, broken=True, long=True)}


def assert_whole(figure: Figure) -> None:
    """It is laid out without a warning; data lie within their axes, everything else within the figure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    renderer = figure._get_renderer()  # type: ignore[attr-defined]
    page = figure.bbox
    outside = [f"{kind} {text!r}" for kind, text, box in _parts(figure, renderer)
               if box.x0 < page.x0 - SLACK or box.x1 > page.x1 + SLACK or box.y0 < page.y0 - SLACK
               or box.y1 > page.y1 + SLACK]
    assert not outside, f"reach beyond the figure: {outside}"
    for panel in figure.axes:
        box = panel.get_window_extent(renderer)
        assert not panel.get_visible() or (box.width > 4 and box.height > 4), (
            f"{panel.get_title(loc='left')!r} is {box.width:.0f} x {box.height:.0f} pixels")
    assert_inside(figure)


def assert_inside(figure: Figure) -> None:
    """Data lie within their axes, however these are laid out."""
    for panel in figure.axes:
        if panel.get_visible():
            _ = panel.viewLim  # brings the limits up to date
            cut = [kind for kind, points in _data(panel) if _beyond(panel, points)]
            assert not cut, f"{panel.get_title(loc='left')!r}: beyond its axes: {cut[:5]}"


def _parts(figure: Figure, renderer: Any) -> Iterator[tuple[str, str, Any]]:
    for panel in figure.axes:
        if panel.get_visible() and (box := panel.get_tightbbox(renderer)) is not None:
            yield "panel", panel.get_title(loc="left"), box
    for text in [*figure.texts, figure._suptitle, figure._supxlabel,  # type: ignore[attr-defined]
                 figure._supylabel]:  # type: ignore[attr-defined]
        if text is not None and text.get_text():
            yield "text", text.get_text()[:40], text.get_window_extent(renderer)
    for legend in figure.legends:
        yield "legend", "", legend.get_window_extent(renderer)


def _data(panel: Axes) -> Iterator[tuple[str, np.ndarray]]:
    """Kind and points (point, 2), in the units of the data, of what is drawn in a panel."""
    for line in panel.lines:
        if line.get_transform() == panel.transData and len(line.get_xdata()):
            yield f"line {line.get_label()}", np.asarray(line.get_xydata(), dtype=np.float64)
    for one in panel.collections:
        if isinstance(one, PathCollection) and one.get_offset_transform() == panel.transData:
            yield "dots", np.ma.filled(np.ma.asarray(one.get_offsets(), np.float64), np.nan)
        elif isinstance(one, LineCollection | PolyCollection) and one.get_transform() == panel.transData:
            yield type(one).__name__, np.array(list(itertools.chain(*(p.vertices for p in one.get_paths())))).reshape(
                -1, 2)
    for patch in panel.patches:
        if isinstance(patch, Rectangle) and patch.get_data_transform() == panel.transData:
            yield "bar", np.asarray(patch.get_corners(), dtype=np.float64)


def _beyond(panel: Axes, points: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        at = panel.transData.transform(points[np.isfinite(points).all(axis=1)])
    at, box = at[np.isfinite(at).all(axis=1)], panel.get_window_extent()
    return bool(len(at) and ((at < [box.x0 - SLACK, box.y0 - SLACK]) | (at > [box.x1 + SLACK, box.y1 + SLACK])).any())


FIGURES: dict[str, Callable[[Given], Figure]] = {}
"""Module and name of a figure function -> how it is made of what is given; filled by the modules beside this one."""


def figure_of(function: Callable[..., Figure]) -> Callable[[Callable[[Given], Figure]], Callable[[Given], Figure]]:
    """Say how a figure is made of what is given."""
    def remember(make: Callable[[Given], Figure]) -> Callable[[Given], Figure]:
        FIGURES[f"{function.__module__}.{function.__name__}"] = make
        return make
    return remember


def named(g: Given, values: Callable[..., np.ndarray], *shape: int, most: int = 1000) -> dict[str, np.ndarray]:
    return {name: values(*shape) for name in g.names(most)}


def said(g: Given) -> dict[str, Any]:
    return {"title": g.title, "note": g.note}

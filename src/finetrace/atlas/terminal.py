"""`finetrace show` and `finetrace compare`: a study's headline numbers in the terminal, or as JSON."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finetrace.atlas.collect import Entry, collect
from finetrace.atlas.columns import FINE_TUNINGS, MASKED_WORDS, explanation, number_of
from finetrace.atlas.overview import Cell, Overview, as_json, columns_of, is_there, name_of, overview, settings_of
from finetrace.atlas.paired import Example, Paired, paired
from finetrace.atlas.places import Place, collect_places
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.files import json_text


def show(asked: Mapping[str, Any], layout: Layout, *, lens: str = "trajectory", as_data: bool = False) -> None:
    """Print every cell of the study with mean and standard deviation over seeds. lens: whose metrics are shown."""
    study = overview(asked, layout)
    if as_data:
        return _json(as_json(study))
    console = _console()
    cells = [cell for cell in study.cells if any(column.part == lens for column in cell.numbers)]
    places = [place for place in study.masked if place.metrics.get(lens)]
    if not cells and not places:
        had = sorted({c.part for cell in study.cells for c in cell.numbers}
                     | {part for place in study.masked for part in place.metrics})
        raise FinetraceError(f"lens {lens}: no headline metrics of it are finished here; there are those of "
                             f"{', '.join(had) or 'nothing: run finetrace repro'}")
    if cells:
        console.print(_cells(cells, lens, study))
    if places:
        console.print(_places(places, lens))
    if study.missing:
        console.print(f"not finished: {', '.join(study.missing)} (finetrace repro)", style="yellow", highlight=False)


def show_place(asked: Mapping[str, Any], layout: Layout, place: str, *, lens: str | None = None,
               as_data: bool = False) -> None:
    """Print the headline metrics of every lens, or of one, at one place. Raises FinetraceError when it is not of the
    study."""
    each = _find(asked, layout, place)
    columns = [column for column in (FINE_TUNINGS if isinstance(each, Entry) else MASKED_WORDS)
               if lens in (None, column.part)]
    if lens is not None and all(number_of(each, column) is None for column in columns):
        raise FinetraceError(f"{place}: no headline metrics of the lens {lens} are there; without --lens those of all "
                             "lenses are shown")
    if as_data:
        metrics = each.metrics if lens is None else {lens: each.metrics[lens]}
        return _json({"place": place, "metrics": metrics, "settings": each.manifest.facts.get("train", {})})
    table = Table(title=escape(f"{place}: headline metrics"), title_justify="left")
    for heading in ("lens", "metric", "value", "says"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for column in columns:
        if (value := number_of(each, column)) is not None:
            table.add_row(column.part, column.headline.heading, f"{value:.{column.headline.digits}f}",
                          explanation(column.headline, [each.manifest.facts]))
    console = _console()
    console.print(table)
    console.print(f"figures and tables: {layout.relative(each.folder)}/LENS; page: atlas/runs/{each.key}.html",
                  highlight=False, markup=False)


def compare(asked: Mapping[str, Any], layout: Layout, first: str, second: str, *, name: str | None = None,
            examples: int = 5, as_data: bool = False) -> None:
    """Print what differs between two places: settings, headline metrics, and which examples of a set changed.

    name: the set; by default validation, without which the rest is printed all the same. Raises FinetraceError for a
    set that is asked for and not there.
    """
    if examples < 0:
        raise FinetraceError(f"--examples: {examples} is below 0; 0 prints none")
    one, other = (_find(asked, layout, place) for place in (first, second))
    settings = different(settings_of(one), settings_of(other))
    columns = FINE_TUNINGS if isinstance(one, Entry) else MASKED_WORDS
    if type(one) is not type(other):  # what their trainings say is not the same; what lenses say is
        columns = [column for column in (*FINE_TUNINGS, *MASKED_WORDS) if column.part != "trajectory"]
    numbers = [(column, a, b) for column in columns
               if (a := number_of(one, column)) is not None and (b := number_of(other, column)) is not None]
    changed, why = _changed(layout, one, other, name or "validation")
    if changed is None and name is not None:
        raise FinetraceError(f"--set {name}: {why}")
    if as_data:
        return _json({"first": first, "second": second, "settings": settings,
                      "metrics": {name_of(c): {"first": a, "second": b} for c, a, b in numbers},
                      "examples": None if changed is None else asdict(changed), "why_no_examples": why})
    console = _console()
    table = Table(title=escape(f"{first} (A) and {second} (B)"), title_justify="left")
    for heading in ("", "A", "B", "B - A"):
        table.add_column(heading, justify="right" if heading else "left")
    for key, (a, b) in settings.items():
        table.add_row(escape(key), escape(str(a)), escape(str(b)), "")
    table.add_section()
    for column, a, b in numbers:
        digits = column.headline.digits
        table.add_row(f"{column.part}: {column.headline.heading}", f"{a:.{digits}f}", f"{b:.{digits}f}",
                      f"{b - a:+.{digits}f}")
    console.print(table)
    if changed is None:
        console.print(f"which examples changed is not known: {why}", style="yellow", highlight=False, markup=False)
        return None
    _print_changed(console, changed, examples)


def different(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> both values where they differ; "-" where one has none."""
    return {key: (first.get(key, "-"), second.get(key, "-")) for key in {**first, **second}
            if first.get(key, "-") != second.get(key, "-")}


def _find(asked: Mapping[str, Any], layout: Layout, place: str) -> Entry | Place:
    place = place.strip("/").removeprefix("outputs/")
    runs = {"{model}/{task}/{method}/s{seed}".format(**run): run for run in asked["trajectories"]}
    names = [*runs, *asked["masked"]]
    if place not in names:
        near = get_close_matches(place, names, 3, 0.4) or names[:3]
        raise FinetraceError(f"{place}: is no place of the study {asked['study']}; near: {', '.join(near)} (finetrace "
                             "show lists them)")
    if not is_there(layout, place, "trajectory"):
        raise FinetraceError(f"{place}: its training is not finished; run finetrace repro")
    looked = {lens: [place] for lens, places in asked["looked"].items()
              if place in places and is_there(layout, place, lens)}
    return collect([runs[place]], looked, layout)[0] if place in runs else collect_places([place], looked, layout)[0]


def _changed(layout: Layout, one: Entry | Place, other: Entry | Place, name: str) -> tuple[Paired | None, str]:
    if not isinstance(one, Entry) or not isinstance(other, Entry) or one.task != other.task:
        return None, "they are not fine-tunings on one task"
    if one.manifest.facts.get("target", "class") != "class":
        return None, f"answers are compared where a task has classes, and {one.task} has none"
    try:
        places = [layout.relative(each.folder).removeprefix("outputs/") for each in (one, other)]
        return paired(layout, places[0], places[1], one.task, name), ""
    except FinetraceError as error:  # the rest of the comparison stands without
        return None, str(error)


def _print_changed(console: Console, both: Paired, examples: int) -> None:
    test = "" if np.isnan(both.p) else f"; McNemar p = {both.p:.3g}"
    console.print(f"{both.set}, {both.n} examples: accuracy {both.first:.3f} -> {both.second:.3f}, "
                  f"difference {both.difference:+.3f} ({both.low:+.3f} .. {both.high:+.3f}){test}", highlight=False)
    for heading, changed in (("right in A, wrong in B", both.lost), ("wrong in A, right in B", both.won)):
        if not changed:
            console.print(f"{heading}: none")
            continue
        table = Table(title=f"{heading}: {len(changed)}, first {min(examples, len(changed))}", title_justify="left")
        for name in ("example", "text", "label", "A", "B", "B since step"):
            table.add_column(name)
        for example in changed[:examples]:
            table.add_row(*_row(example))
        console.print(table)


def _row(example: Example) -> tuple[str, ...]:
    return (str(example.example_id), escape(example.text), escape(example.label), escape(example.first),
            escape(example.second), str(example.flipped))


def _cells(cells: list[Cell], lens: str, study: Overview) -> Table:
    columns = [column for column in columns_of(lens) if any(column in cell.numbers for cell in cells)]
    several = any(len(cell.seeds) > 1 for cell in cells)
    table = Table(title=f"Fine-tunings: {lens}" + (", mean ± standard deviation over seeds" if several else ""),
                  title_justify="left")
    for heading in ("model", "task", "method", "seeds"):
        table.add_column(heading)
    for column in columns:
        table.add_column(column.headline.heading, justify="right")
    for cell in cells:
        table.add_row(escape(cell.model), escape(cell.task), escape(cell.method), ", ".join(map(str, cell.seeds)),
                      *(_mean(cell, column) for column in columns))
    return table


def _mean(cell: Cell, column: Any) -> str:
    if (number := cell.numbers.get(column)) is None:
        return "-"
    text = f"{number.mean:.{column.headline.digits}f}"
    return text if np.isnan(number.sd) else f"{text} ± {number.sd:.{column.headline.digits}f}"


def _places(places: list[Place], lens: str) -> Table:
    columns = columns_of(lens, "masked words")
    table = Table(title=f"Masked-word trainings: {lens}", title_justify="left")
    table.add_column("place")
    for column in columns:
        table.add_column(column.headline.heading, justify="right")
    for place in places:
        values = [number_of(place, column) for column in columns]
        table.add_row(escape(place.name), *("-" if value is None else f"{value:.{column.headline.digits}f}"
                                            for column, value in zip(columns, values, strict=True)))
    return table


def _console() -> Console:
    """A terminal as wide as it is; a file or a pipe is as wide as the table needs."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)


def _json(content: Any) -> None:
    """Print as JSON; what is not finite is null."""
    sys.stdout.write(json_text(content))

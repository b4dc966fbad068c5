"""What the page index.html knows: the study in one JSON text, and the one table in packed parts, one per lens."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.atlas.collect import Entry
from finetrace.atlas.columns import FINE_TUNINGS, MASKED_WORDS, Column, explanation, names_behind, number_of
from finetrace.atlas.overview import name_of, settings_of
from finetrace.atlas.packing import pack_table
from finetrace.atlas.places import Place

INLINE = 6_000_000
"""Characters of packed parts that the page itself carries; what is more lies in files beside it, read when needed."""
_LEFT_OUT = ["place", "model", "task", "method", "seed", "lens"]  # what the place says of every row of a slice


@dataclass(frozen=True)
class Part:
    """Packed columns by a name: table/LENS or answers/TASK."""

    name: str
    text: str


def study_json(title: str, intro: str, trainings: Sequence[Entry | Place], shared: Sequence[tuple[str, str]],
               baselines: Mapping[str, Mapping[str, float]], table: pa.Table | None = None, **more: Any) -> str:
    """The study without its table: places with settings and headline numbers, the headlines, baselines of tasks.

    table: the one table, whose rows the headline numbers name;  shared: lens and name of what belongs to several
    trajectories;  more: further plain values. What is not finite is null; `<` is written so that nothing in it ends a
    script.
    """
    of_whole = {} if table is None else rows_about_the_whole(table)
    places = [_place(each, of_whole) for each in trainings]
    places += [{"name": f"{folder}/{name}", "kind": "shared", "model": "", "task": "", "method": folder, "seed": -1,
                "cell": f"{folder}/{name}", "settings": {}, "numbers": {}, "rows": {}} for folder, name in shared]
    facts = [each.manifest.facts for each in trainings]
    columns_of = {"fine-tuning": FINE_TUNINGS, "masked": MASKED_WORDS}
    headlines = [_headline(column, kind, facts) for kind, columns in columns_of.items()
                 for column in columns if any(name_of(column) in place["numbers"] for place in places
                                              if (place["kind"] == "masked") == (kind == "masked"))]
    content = {"title": title, "intro": intro, "places": places, "headlines": headlines, "baselines": baselines, **more}
    return json.dumps(_finite(content), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def table_parts(table: pa.Table, places: Sequence[str]) -> Iterator[Part]:
    """The one table as a part per lens.

    table: see `finetrace.atlas.table`;  places: as the study's JSON numbers them. The head of a part has `slices`:
    [place, first row in the part, first row in the table, number of rows].
    """
    lenses, of_place = (table.column(name).combine_chunks() for name in ("lens", "place"))
    lens, place = lenses.indices.to_numpy(), of_place.indices.to_numpy()
    known = {name: i for i, name in enumerate(places)}
    number = [known[name] for name in of_place.dictionary.to_pylist()]
    rest = table.drop_columns(_LEFT_OUT)
    starts = np.flatnonzero(np.r_[True, (np.diff(lens) != 0) | (np.diff(place) != 0)][:len(lens)])
    counts = np.diff(np.r_[starts, len(lens)])
    for code, name in enumerate(lenses.dictionary.to_pylist()):
        mine = np.flatnonzero(lens[starts] == code)
        if not len(mine):
            continue
        first = np.cumsum(np.r_[0, counts[mine]])
        slices = [[number[place[starts[i]]], int(at), int(starts[i]), int(counts[i])]
                  for i, at in zip(mine, first, strict=False)]
        rows = np.concatenate([np.arange(starts[i], starts[i] + counts[i]) for i in mine])
        yield Part(f"table/{name}", pack_table(rest, rows, slices=slices))


def lenses_over_steps(table: pa.Table) -> list[dict[str, Any]]:
    """Lenses with numbers over steps, in the table's order: {name, layers: whether some are about layers}."""
    lens, step, layer = (table.column(name).combine_chunks() for name in ("lens", "step", "layer"))
    codes, over = lens.indices.to_numpy(), step.to_numpy() >= 0
    with_layers = set(codes[over & (layer.to_numpy() >= 0)].tolist())
    return [{"name": lens.dictionary[int(code)].as_py(), "layers": code in with_layers}
            for code in dict.fromkeys(codes[over].tolist())]


def inside(parts: Sequence[Part], limit: int = INLINE) -> set[str]:
    """Names of the parts that the page itself carries: the smallest ones, until `limit` characters are full."""
    ranked = sorted(parts, key=lambda part: (len(part.text), part.name))
    sizes = np.cumsum([len(part.text) for part in ranked])
    return {part.name for part, size in zip(ranked, sizes, strict=True) if size <= limit}


def rows_about_the_whole(table: pa.Table) -> dict[tuple[str, str, str], int]:
    """Place, lens and quantity -> the row of a number of metrics.json in the one table."""
    rows = np.flatnonzero(table.column("step").to_numpy() == -1)
    chosen = table.select(["place", "lens", "quantity"]).take(pa.array(rows))
    places, lenses, quantities = (column.to_pylist() for column in chosen.columns)
    row_of: dict[tuple[str, str, str], int] = {}
    for place, lens, quantity, row in zip(places, lenses, quantities, rows.tolist(), strict=True):
        row_of.setdefault((place, lens, quantity), row)
    return row_of


def _place(each: Entry | Place, of_whole: Mapping[tuple[str, str, str], int]) -> dict[str, Any]:
    columns = FINE_TUNINGS if isinstance(each, Entry) else MASKED_WORDS
    numbers = {name_of(column): value for column in columns if (value := number_of(each, column)) is not None}
    place = each.place if isinstance(each, Entry) else each.name
    keys = {name_of(column): [(place, column.part, name) for name in names_behind(each, column)] for column in columns}
    rows = {name: [of_whole[key] for key in behind if key in of_whole] for name, behind in keys.items()
            if name in numbers}
    shared = {"page": f"runs/{each.key}.html", "key": each.key, "stage": each.manifest.stage, "numbers": numbers,
              "rows": rows,
              "settings": {name: str(value) for name, value in settings_of(each).items()}}
    if isinstance(each, Entry):
        return {"name": each.place, "kind": "fine-tuning", "model": each.model, "task": each.task,
                "method": each.method, "seed": each.seed, "cell": f"{each.model}/{each.task}/{each.method}", **shared}
    model, _, method = each.name.rpartition("/")
    return {"name": each.name, "kind": "masked", "model": model, "task": "", "method": method, "seed": -1,
            "cell": each.name, **shared}


def _headline(column: Column, kind: str, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    headline = column.headline
    return {"name": name_of(column), "kind": kind, "lens": column.part, "heading": headline.heading,
            "unit": headline.unit, "digits": headline.digits, "direction": headline.direction,
            "says": explanation(headline, facts)}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

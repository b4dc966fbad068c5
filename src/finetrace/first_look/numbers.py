"""The numbers by which the models of a first look are compared: headline metrics of the lenses, at one checkpoint."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from finetrace.atlas.headlines import OF_FINE_TUNINGS
from finetrace.first_look.measure import SPLIT
from finetrace.first_look.run import Look
from finetrace.lenses.headline import Headline, value_of

OWN = {
    "probes": (Headline(f"best_layer/{SPLIT}/last", "its layer", "", 0, "", "the layer whose probe is best"),),
    "convergence": (Headline("spearman/level/last", "cosine ~ probe", "Spearman", 2, "",
                             "correlation over layers of cosine within sentences and probe accuracy"),),
    "calibration": (Headline(f"{SPLIT}/accuracy", "head, accuracy", "share", 3, "up",
                             "validation rows that the model's own head tells rightly"),),
}
"""Lens -> numbers beside its headline metrics."""
NONE = "–"


@dataclass(frozen=True)
class Row:
    """One number for every model, as text."""

    lens: str
    heading: str
    explanation: str
    cells: tuple[str, ...]


def rows_of(result: Look) -> list[Row]:
    """All rows that have a value for some model, by lens."""
    models = [source.name for source in result.sources]
    rows = []
    for lens in result.lenses:
        for headline in (*OWN.get(lens, ()), *_at_one(lens)) if lens == "calibration" else (
                *_at_one(lens), *OWN.get(lens, ())):
            values = [value_of(parts[lens].metrics, headline.metric) if lens in parts else None
                      for parts in (result.of_model[name] for name in models)]
            if any(value is not None for value in values):
                cells = tuple(NONE if value is None else f"{value:.{headline.digits}f}" for value in values)
                rows.append(Row(lens, headline.heading, headline.explanation, cells))
        if lens == "similarity":
            rows += _pairs(result, models)
    return rows


def _at_one(lens: str) -> Iterator[Headline]:
    """The lens's headline metrics, in the words of one checkpoint: nothing is before or after a training."""
    for headline in OF_FINE_TUNINGS.get(lens, ()):
        if lens == "similarity" or headline.metric.endswith("/first") or "scaled" in headline.metric:
            continue
        sentence = re.sub(r",? after training", "", headline.sentence)
        yield replace(headline, metric=headline.metric.replace("test/", f"{SPLIT}/"),
                      heading=headline.heading.removesuffix(", after"),
                      sentence=re.sub(r"\btest\b( \([^)]*\))?", SPLIT, sentence))


def _pairs(result: Look, models: list[str]) -> Iterator[Row]:
    """CKA of the last layers: a row per model with which others are compared."""
    for first in models[:-1]:
        cells = tuple(_cka(result, first, second) for second in models)
        yield Row("similarity", f"CKA with {first}", "similarity of the last layers' sentence vectors; 1: the same but "
                  "for rotation and scale (0 to 1)", cells)


def _cka(result: Look, first: str, second: str) -> str:
    if first == second:
        return "1.000"
    pair = result.of_pair.get((first, second)) or result.of_pair.get((second, first))
    value = value_of(pair.metrics, "cka/cls/layer-*/last|cka/span/layer-*/last") if pair else None
    return NONE if value is None else f"{value:.3f}"


def terminal_table(result: Look) -> str:
    """The rows as lines of text, one column per model."""
    models, rows = [source.name for source in result.sources], rows_of(result)
    lines = [("", "", *models)]
    before = ""
    for row in rows:
        lines.append((row.lens if row.lens != before else "", row.heading, *row.cells))
        before = row.lens
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width)
                               in enumerate(zip(line, widths, strict=True))).rstrip() for line in lines)

"""The comparison across trajectories -> atlas/{index.html, parts/, runs/, figures/, metrics/, table.parquet,
courses/}"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from finetrace.atlas.collect import Entry, collect, lenses_at
from finetrace.atlas.columns import FINE_TUNINGS, MASKED_WORDS, few_numbers
from finetrace.atlas.comparisons import Picture, pictures
from finetrace.atlas.leads_and_maps import courses
from finetrace.atlas.page import Section, report
from finetrace.atlas.places import Place, collect_places
from finetrace.atlas.signals import cells_of
from finetrace.atlas.site import write_index
from finetrace.atlas.table import one_table
from finetrace.layout import Layout
from finetrace.store.files import json_text
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    import pandas as pd

    from finetrace.pipeline.stage import Stage

ORDER = ("infodynamics", "geometry", "similarity", "hulls", "probes", "convergence", "edges", "cloze", "pairs",
         "calibration", "features", "kernel")
"""Lenses on a trajectory's page; others follow."""
HOME = "../index.html"


def main(stage: "Stage") -> None:
    layout, asked = stage.layout, stage.asked
    looks = lenses_at(asked["looked"])
    names = ["{model}/{task}/{method}/s{seed}".format(**run) for run in asked["trajectories"]] + asked["masked"]
    folders = [layout.place(name) / part for name in names for part in ("trajectory", *looks.get(name, ()))]
    manifest = stage.manifest("atlas", {folder: folder for folder in folders})  # verifies them all
    entries = collect(asked["trajectories"], asked["looked"], layout, verify=False)
    places = collect_places(asked["masked"], asked["looked"], layout, verify=False)
    everything: list[Entry | Place] = [*entries, *places]
    drawn = pictures(asked, layout, entries)
    with stage.output(layout.atlas, manifest) as out:
        shared = [(kind, layout.standalone(kind, name)) for kind, name, _ in asked["standalone"]]
        table = one_table(everything, shared)
        write_table(out / "table.parquet", table)
        compared = _write_figures(out / "figures", drawn)
        of_cells = courses(cells_of(_over_steps(table)), stage.seed)
        (out / "courses").mkdir()
        for name, course in of_cells.items():
            write_table(out / "courses" / f"{name}.parquet", course)
        _write_metrics(out / "metrics", everything)
        _write_pages(out / "runs", entries, places, layout)
        shown = [*compared, *_standalone_figures(stage)]
        intro = _study_intro(stage, entries, places)
        write_index(out, stage, entries, places, intro, table, of_cells, shown)


def _over_steps(table: pa.Table) -> "pd.DataFrame":
    """What is told of steps, as a data frame of the columns that courses need; with millions of rows each copy
    counts."""
    names = ["place", "model", "task", "method", "seed", "lens", "quantity", "step", "layer", "split", "label", "keys",
             "value"]
    rows = table.select(names).filter(pc.greater_equal(table["step"], 0))
    return rows.to_pandas(split_blocks=True, self_destruct=True)


def _write_metrics(out: Path, trainings: Sequence[Entry | Place]) -> None:
    """A small file of numbers per trajectory: `dvc metrics show` makes a row of each (dvc.yaml)."""
    out.mkdir()
    for each in trainings:
        columns = FINE_TUNINGS if isinstance(each, Entry) else MASKED_WORDS
        text = json_text(few_numbers(each, columns))
        (out / f"{each.key}.json").write_text(text, "utf-8")  # the whole folder reaches the disk at the end


def _write_pages(out: Path, entries: Sequence[Entry], places: Sequence[Place], layout: Layout) -> None:
    """A page per trajectory with the figures of its lenses."""
    out.mkdir()
    for entry in entries:
        text = report(entry.key, _entry_intro(entry), HOME, list(_sections(entry, layout)))
        (out / f"{entry.key}.html").write_text(text, "utf-8")
    for place in places:
        text = report(place.name, _place_intro(place), HOME, list(_sections(place, layout)))
        (out / f"{place.key}.html").write_text(text, "utf-8")


def _write_figures(out: Path, drawn: Iterable[Picture]) -> list[tuple[str, str]]:
    """The comparisons as files; address from the atlas and caption of each."""
    out.mkdir()
    shown = []
    for name, caption, png in drawn:
        (out / f"{name}.png").write_bytes(png)
        shown.append((f"figures/{name}.png", caption))
    return shown


def _standalone_figures(stage: "Stage") -> Iterator[tuple[str, str]]:
    """Address and caption of the figures that belong to several trajectories, or to none."""
    for kind, name, caption in stage.asked["standalone"]:
        for path in sorted((stage.layout.standalone(kind, name) / "figures").glob("*.png")):
            yield f"../{stage.layout.relative(path)}", caption


def _sections(each: Entry | Place, layout: Layout) -> Iterator[Section]:
    """Every lens that looked at the trajectory and has figures."""
    for lens in sorted(each.metrics, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        figures = sorted((each.folder / lens / "figures").glob("*.png"))
        if figures:
            folder = layout.relative(each.folder / lens)
            yield Section(lens, f"{folder}: table.parquet, metrics.json",
                          [f"../../{folder}/figures/{path.name}" for path in figures])


def _study_intro(stage: "Stage", entries: Sequence[Entry], places: Sequence[Place]) -> str:
    models, tasks = ({getattr(entry, kind) for entry in entries} for kind in ("model", "task"))
    counts = (f"Study {stage.asked['study']}, seed {stage.seed}: {len(entries)} trajectories of {len(models)} models "
              f"on {len(tasks)} tasks, {len(places)} masked-word trainings.")
    return counts + "".join(f" Results of {script} stand although its code has changed: {because}."
                            for script, because in stage.asked.get("accepted", {}).items())


def _entry_intro(entry: Entry) -> str:
    facts, metrics = entry.manifest.facts, entry.metrics["trajectory"]
    if entry.given:
        accuracy = metrics.get("validation/accuracy")
        return (f"{entry.model} on {entry.task}: {facts['checkpoints']} checkpoints that were made elsewhere, the last "
                f"of step {facts['steps']:,}" + (f"; validation accuracy {accuracy:.3f}." if accuracy is not None
                                                 else "."))
    shown = "accuracy" if "validation/accuracy" in metrics else facts["metric"]
    return (f"{entry.model} on {entry.task} by {entry.method}, seed {entry.seed}: {facts['steps']:,} steps, "
            f"{facts['parameters']:,} parameters; validation {shown} "
            f"{metrics[f'validation/{shown}']:.3f}.")


def _place_intro(place: Place) -> str:
    facts = place.manifest.facts
    parameters = [f"{facts['parameters']:,} parameters"] if "parameters" in facts else []
    axis = [f"time axis: {facts['axis']}"] if "axis" in facts else []
    return "; ".join([place.name, *parameters, *axis])

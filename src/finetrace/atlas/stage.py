"""The comparison across trajectories -> atlas/{index.html, runs/, figures/, metrics/, table.parquet}"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetrace.atlas.collect import Entry, collect
from finetrace.atlas.columns import FINE_TUNINGS, MASKED_WORDS, few_numbers, listing
from finetrace.atlas.comparisons import comparisons
from finetrace.atlas.page import Section, page, report
from finetrace.atlas.places import Place, collect_places
from finetrace.atlas.table import one_table
from finetrace.figures.style import to_png
from finetrace.layout import Layout
from finetrace.store.files import write_json
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.pipeline.stage import Stage

ORDER = ("infodynamics", "geometry", "similarity", "hulls", "probes", "convergence", "edges", "cloze", "pairs",
         "calibration", "features", "kernel")
"""Lenses on a trajectory's page; others follow."""
HOME = "../index.html"


def main(stage: "Stage") -> None:
    layout, asked = stage.layout, stage.asked
    entries = collect(asked["trajectories"], asked["looked"], layout)
    places = collect_places(asked["masked"], asked["looked"], layout)
    everything: list[Entry | Place] = [*entries, *places]
    folders = [each.folder / part for each in everything for part in each.metrics]
    manifest = stage.manifest("atlas", {folder: folder for folder in folders})
    with stage.output(layout.atlas, manifest) as out:
        shared = [(kind, layout.standalone(kind, name)) for kind, name, _ in asked["standalone"]]
        write_table(out / "table.parquet", one_table(everything, shared))
        _write_metrics(out / "metrics", everything)
        _write_pages(out / "runs", entries, places, layout)
        shown = [*_write_figures(out / "figures", stage, entries), *_standalone_figures(stage)]
        heading = "Fine-tunings and given checkpoints" if any(e.given for e in entries) else "Fine-tunings"
        listings = [listing(heading, "model, task, method, seed", entries, FINE_TUNINGS),
                    listing("Masked-word trainings", "model, and what it is", places, MASKED_WORDS)]
        text = page(f"finetrace atlas: {asked['study']}", _study_intro(stage, entries, places), listings, shown)
        (out / "index.html").write_text(text, "utf-8")


def _write_metrics(out: Path, found: Sequence[Entry | Place]) -> None:
    """A small file of numbers per trajectory: `dvc metrics show` makes a row of each (dvc.yaml)."""
    for each in found:
        columns = FINE_TUNINGS if isinstance(each, Entry) else MASKED_WORDS
        write_json(out / f"{each.key}.json", few_numbers(each, columns))


def _write_pages(out: Path, entries: Sequence[Entry], places: Sequence[Place], layout: Layout) -> None:
    """A page per trajectory with the figures of its lenses."""
    out.mkdir()
    for entry in entries:
        text = report(entry.key, _entry_intro(entry), HOME, list(_sections(entry, layout)))
        (out / f"{entry.key}.html").write_text(text, "utf-8")
    for place in places:
        text = report(place.name, _place_intro(place), HOME, list(_sections(place, layout)))
        (out / f"{place.key}.html").write_text(text, "utf-8")


def _write_figures(out: Path, stage: "Stage", entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Draw the comparisons; address from the atlas and caption of each."""
    out.mkdir()
    shown = []
    for name, caption, figure in comparisons(stage.asked, stage.layout, entries):
        (out / f"{name}.png").write_bytes(to_png(figure))
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

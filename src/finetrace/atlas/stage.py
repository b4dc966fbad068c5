"""The comparison across trajectories -> atlas/{index.html, parts/, runs/, figures/, metrics/, table.parquet,
metrics.json}"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from finetrace.atlas.answers import packed_answers
from finetrace.atlas.bundle import Part, inside, lenses_over_steps, study_json, table_parts
from finetrace.atlas.collect import Entry, collect
from finetrace.atlas.comparisons import comparisons
from finetrace.atlas.page import Section, index, markdown, report
from finetrace.atlas.places import Place, collect_places
from finetrace.atlas.table import one_table
from finetrace.figures.style import to_png
from finetrace.layout import Layout
from finetrace.reports import closer_look, learning_dynamics, lp_ft
from finetrace.store.files import write_json
from finetrace.store.manifest import NAME, read_manifest
from finetrace.store.tables import write_table
from finetrace.study import parse_study

if TYPE_CHECKING:
    from finetrace.pipeline.stage import Stage

ORDER = ("infodynamics", "geometry", "similarity", "hulls", "probes", "convergence", "edges", "cloze", "pairs",
         "calibration", "features", "kernel")
"""Lenses on a trajectory's page; others follow."""
COMPARED = {"accuracy": ("trajectory", "validation/accuracy"), "pearson": ("trajectory", "validation/pearson"),
            "micro_f1": ("trajectory", "validation/micro_f1"), "slope": ("infodynamics", "slope")}
"""Name in metrics.json, after the trajectory's -> part and metric."""
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
        table = one_table(everything, shared)
        write_table(out / "table.parquet", table)
        write_json(out / "metrics.json", _compared(entries))
        _write_metrics(out / "metrics", everything, layout)
        _write_pages(out / "runs", entries, places, layout)
        shown = [*_write_figures(out / "figures", stage, entries), *_standalone_figures(stage)]
        _write_index(out, stage, entries, places, table, shown)


def _write_index(out: Path, stage: "Stage", entries: Sequence[Entry], places: Sequence[Place], table: pa.Table,
                 figures: Sequence[tuple[str, str]]) -> None:
    """The interactive page, and beside it the parts that are too large to lie in it."""
    layout, found = stage.layout, [*entries, *places]
    shared = [layout.standalone(kind, name) for kind, name, _ in stage.asked["standalone"]]
    shared = [folder for folder in shared if (folder / NAME).is_file()]
    names = [each.place if isinstance(each, Entry) else each.name for each in found]
    names += [f"{folder.parent.name}/{folder.name}" for folder in shared]
    answers = [Part(f"answers/{task}", text) for task, text in packed_answers(entries, layout)]
    parts = [*table_parts(table, names), *answers]
    carried, beside = inside(parts), {}
    for part in parts:
        if part.name not in carried:
            beside[part.name] = f"parts/{part.name.replace('/', '-')}.js"
            (out / "parts").mkdir(exist_ok=True)
            (out / beside[part.name]).write_text(f"finetrace.part({json.dumps(part.name)}, {json.dumps(part.text)});\n", "utf-8")
    title, intro = f"finetrace atlas: {stage.asked['study']}", _study_intro(stage, entries, places)
    study = study_json(title, intro, found, [(folder.parent.name, folder.name) for folder in shared],
                       _baselines(entries, layout), lenses=lenses_over_steps(table), beside=beside, courses=[],
                       answers=[part.name.removeprefix("answers/") for part in answers], figures=list(figures),
                       reports=[{"heading": heading, "html": markdown(text)} for heading, text in _reports(stage)])
    pages = [(name, f"runs/{each.key}.html") for name, each in zip(names, found, strict=False)]
    text = index(title, intro, study, [part for part in parts if part.name in carried], pages)
    (out / "index.html").write_text(text, "utf-8")


def _baselines(entries: Sequence[Entry], layout: Layout) -> dict[str, dict[str, float]]:
    """Task -> what its data say of accuracy without a model: majority, bag of words; what is not known is left out."""
    named = {"majority": "majority_accuracy", "bag of words": "bag_of_words_accuracy"}
    facts = {task: read_manifest(layout.task(task)).facts for task in dict.fromkeys(entry.task for entry in entries)}
    return {task: {name: of[key] for name, key in named.items() if key in of} for task, of in facts.items()}


def _reports(stage: "Stage") -> Iterator[tuple[str, str]]:
    """Heading and Markdown of the published studies' tables of which this study has something."""
    study, layout = parse_study(stage.asked["params"], "settings/atlas/atlas.json: params"), stage.layout
    looked = study.looked
    if looked.get("hulls") or looked.get("probes"):
        yield "A closer look at how fine-tuning changes BERT (finetrace table closer-look)", closer_look.tables(layout, study)
    if looked.get("calibration") or looked.get("features") or looked.get("kernel"):
        yield "Linear probing then fine-tuning (finetrace table lp-ft)", lp_ft.tables(layout, study)
    if study.dynamics:
        yield "How does BERT learn (finetrace table learning-dynamics)", learning_dynamics.tables(layout, study, last=True)


def _compared(entries: Sequence[Entry]) -> dict[str, float]:
    """The numbers by which `dvc metrics` compares fine-tunings at a glance."""
    return {f"{entry.key}/{name}": entry.metrics[part][metric] for entry in entries
            for name, (part, metric) in COMPARED.items() if metric in entry.metrics.get(part, {})}


def _write_metrics(out: Path, found: Sequence[Entry | Place], layout: Layout) -> None:
    """The metrics of every trajectory and lens by place, as `dvc metrics show` and `diff` read them (dvc.yaml)."""
    for each in found:
        for part, values in each.metrics.items():
            target = out / each.folder.relative_to(layout.root / "outputs") / f"{part}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, values)


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

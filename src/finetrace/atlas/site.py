"""The interactive page of a study -> index.html, and parts/ beside it for what is too large to lie in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from finetrace.atlas.answers import packed_answers
from finetrace.atlas.bundle import INLINE, Part, inside, lenses_over_steps, study_json, table_parts
from finetrace.atlas.collect import Entry
from finetrace.atlas.packing import pack_table
from finetrace.atlas.page import index, markdown
from finetrace.atlas.places import Place
from finetrace.atlas.taught import packed_influence
from finetrace.layout import Layout
from finetrace.reports import closer_look, learning_dynamics, lp_ft
from finetrace.store.manifest import NAME, read_manifest
from finetrace.study import parse_study

if TYPE_CHECKING:
    from finetrace.pipeline.stage import Stage

BASELINES = {"majority": "majority_accuracy", "bag of words": "bag_of_words_accuracy"}
"""What needs no model -> the fact of a task's data that says its accuracy on validation."""


def write_index(out: Path, stage: "Stage", entries: Sequence[Entry], places: Sequence[Place], intro: str,
                table: pa.Table, courses: Mapping[str, pa.Table], figures: Sequence[tuple[str, str]]) -> None:
    """Write the page into the folder `out`.

    table: the one table;  courses: see `finetrace.atlas.leads_and_maps`;  figures: address and caption of those that
    belong to several trajectories.
    """
    layout = stage.layout
    trainings: list[Entry | Place] = [*entries, *places]
    shared = [layout.standalone(kind, name) for kind, name, _ in stage.asked["standalone"]]
    of_several = [(folder.parent.name, folder.name) for folder in shared if (folder / NAME).is_file()]
    names = [each.place if isinstance(each, Entry) else each.name for each in trainings]
    answers = [Part(f"answers/{task}", text) for task, text in packed_answers(entries, layout)]
    taught = [(entry.place, Part(f"influence/{entry.key}", text)) for entry, text in packed_influence(entries)]
    parts, beside = [*answers, *(part for _, part in taught)], {}
    for part in chain(table_parts(table, [*names, *("/".join(pair) for pair in of_several)]),
                      (Part(f"courses/{name}", pack_table(course)) for name, course in courses.items())):
        if len(part.text) > INLINE:  # not kept until all are there
            beside[part.name] = _write_part(out, part)
        else:
            parts.append(part)
    carried = inside(parts)
    beside |= {part.name: _write_part(out, part) for part in parts if part.name not in carried}
    title = f"finetrace atlas: {stage.asked['study']}"
    study = study_json(
        title, intro, trainings, of_several, _baselines(entries, layout), table,
        lenses=lenses_over_steps(table), answers=[part.name.removeprefix("answers/") for part in answers],
        influence=[[place, part.name] for place, part in taught],
        courses=pc.unique(courses["signals"].column("cell")).to_pylist(), beside=beside, figures=list(figures),
        reports=[{"heading": heading, "html": markdown(text)} for heading, text in _reports(stage)])
    pages = [(name, f"runs/{each.key}.html") for name, each in zip(names, trainings, strict=True)]
    text = index(title, intro, study, [part for part in parts if part.name in carried], pages)
    (out / "index.html").write_text(text, "utf-8")


def _write_part(out: Path, part: Part) -> str:
    """Its address from the page."""
    address = f"parts/{part.name.replace('/', '-')}.js"
    (out / "parts").mkdir(exist_ok=True)
    script = f"finetrace.part({json.dumps(part.name)}, {json.dumps(part.text)});\n"
    (out / address).write_text(script, "utf-8")
    return address


def _baselines(entries: Sequence[Entry], layout: Layout) -> dict[str, dict[str, float]]:
    """Task -> what its data say of accuracy without a model; what is not known is left out."""
    facts = {task: read_manifest(layout.task(task)).facts for task in dict.fromkeys(entry.task for entry in entries)}
    return {task: {name: of[key] for name, key in BASELINES.items() if key in of} for task, of in facts.items()}


def _reports(stage: "Stage") -> Iterator[tuple[str, str]]:
    """Heading and Markdown of the published studies' tables of which this study has something."""
    layout, study = stage.layout, parse_study(stage.asked["params"], "settings/atlas/atlas.json: params")
    trained = {run.place for run in study.trajectories.values()}  # the tables are about fine-tunings

    def has(*lenses: str) -> bool:
        return any(trained & set(study.looked.get(lens, {})) for lens in lenses)

    if has("hulls", "probes"):
        yield ("A closer look at how fine-tuning changes BERT (finetrace table closer-look)",
               closer_look.tables(layout, study))
    if has("calibration", "features", "kernel"):
        yield "Linear probing then fine-tuning (finetrace table lp-ft)", lp_ft.tables(layout, study)
    if study.dynamics:
        yield ("How does BERT learn (finetrace table learning-dynamics)",
               learning_dynamics.tables(layout, study, last=True))

"""What was learned when, and what adaptation kept and lost -> dynamics/NAME/"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.lenses.dynamics.inputs import (
    ClozeOutput,
    DownstreamOutput,
    EdgesOutput,
    Numbers,
    PairsOutput,
    read_cloze,
    read_downstream,
    read_edges,
    read_pairs,
)
from finetrace.lenses.dynamics.settings import DynamicsSettings
from finetrace.lenses.dynamics.work import Load, Work, compared, in_all
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest
from finetrace.store.tables import write_table

if TYPE_CHECKING:
    from finetrace.lenses.dynamics.arms import Arm
    from finetrace.lenses.dynamics.facts import Answers

log = logging.getLogger("finetrace")
MOST_TOLD = 20


def main(stage: Stage) -> None:
    from finetrace.lenses.dynamics.figures import draw

    entry, folder = stage.settings("dynamics", DynamicsSettings), stage.layout.dynamics(stage.item)
    inputs = _inputs(stage, entry)
    seed = seeds.derive(stage.seed, "dynamics", stage.item)
    manifest = stage.manifest("lens", {path: path for path in inputs}, {"resampling": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(Work(stage, entry, seed), manifest, out), draw)


def _measure(work: Work, manifest: Manifest, out: Path) -> Record:
    """Compare the arms in every source; write table, metrics and curves."""
    from finetrace.lenses.dynamics.report import curves, drawn, metrics

    stage, entry = work.stage, work.entry
    scratch = stage.layout.scratch("dynamics", manifest.key)
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    if "edges" in entry.sources:
        _edges(work)
    if "cloze" in entry.sources:
        _cloze(work, scratch)
    if "pairs" in entry.sources:
        _pairs(work)
    _downstream(work)
    for text in work.identical:
        log.warning("%s: the same results twice, so no second measurement: %s", stage.label, text)
    for text in work.left_out:
        log.info("%s: left out: %s", stage.label, text)
    columns, dropped = curves(work.table, work.axes)
    if dropped:
        work.left_out.append(f"curves.csv: {dropped} curves; the table has all")
    unit = work.unit("original")
    write_table(out / "table.parquet", work.table.columns())
    write_json(out / "metrics.json", metrics(work.table, unit) | {"identical_rows": len(work.identical)})
    write_curves(out / "curves.csv", columns)
    shutil.rmtree(scratch, ignore_errors=True)
    manifest.facts = {"arms": {arm: list(places) for arm, places in work.places.items()}, "axes": work.axes,
                      "steps": work.steps, "step_unit": unit, "resampled": work.resampled, "n": work.counts,
                      "left_out": work.left_out,
                      "identical_rows": len(work.identical), "identical": work.identical[:MOST_TOLD]}
    return {"name": stage.item, "table": drawn(work.table).columns(), "axes": work.axes,
            "units": {arm: work.unit(arm) for arm in work.places}, "note": work.note()}


def _inputs(stage: Stage, entry: DynamicsSettings) -> list[Path]:
    """The finished folders that are read. Raises FinetraceError for a trajectory that a lens has not looked at."""
    folders = []
    for source in entry.sources:
        for place in (place for places in compared(stage, entry, source).values() for place in places):
            folder = stage.layout.place(place) / source
            if not (folder / "manifest.json").is_file():
                fix = f"add {place} to look.{source}, or name only what there is in dynamics.{stage.item}.sources"
                if place in stage.asked["looked"][source]:
                    fix = f"run finetrace repro {source}@{place.replace('/', '_')}"
                raise FinetraceError(f"params.yaml: dynamics.{stage.item}: there are no {source} results of {place}; "
                                     f"{fix}")
            folders.append(folder)
    for name in entry.downstream:
        folder = stage.layout.downstream(name)
        if not (folder / "manifest.json").is_file():
            raise FinetraceError(f"params.yaml: dynamics.{stage.item}.downstream: {name} has no results; run "
                                 f"finetrace repro downstream@{name}")
        folders.append(folder)
    return folders


def _edges(work: Work) -> None:
    from finetrace.lenses.dynamics.sources import add_edges

    stage = work.stage
    outputs = {arm: [read_edges(stage.layout.place(place) / "edges") for place in places]
               for arm, places in work.places.items()}
    all_outputs = [output for arm_outputs in outputs.values() for output in arm_outputs]
    tasks = in_all(work, "edges", "task", {output.folder: output.tasks for output in all_outputs})
    order = list(stage.asked["edge_tasks"])
    readouts = in_all(work, "edges", "readout", {output.folder: output.readouts for output in all_outputs})
    for task in sorted(tasks, key=lambda name: (order.index(name) if name in order else len(order), name)):
        targets = all_outputs[0].targets(task)
        for output in all_outputs[1:]:
            if not np.array_equal(output.targets(task), targets):
                raise FinetraceError(f"{output.folder}: task {task}: its targets are not those of "
                                     f"{all_outputs[0].folder}, so they cannot be compared; run the stage edges again "
                                     "for both")
        arms = {name: work.arm(name, "edges", [output.steps for output in arm_outputs],
                               _hits_loader(arm_outputs, task, readouts))
                for name, arm_outputs in outputs.items()}
        log.info("%s: edges, %s: %s targets, %d read-outs, %s", stage.label, task, f"{len(targets):,}", len(readouts),
                 ", ".join(f"{name}: {len(arm.steps)} checkpoints" for name, arm in arms.items()))
        numbers = {name: [output.numbers(task) for output in arm_outputs] for name, arm_outputs in outputs.items()}
        resampling = add_edges(work.table, task, arms, readouts, targets[:, 1], numbers, **work.settings("edges", task))
        work.check_copies(f"edges, {task}", arms)
        work.resampled["edges"], work.counts[f"edges/{task}"] = resampling.resampled, len(targets)


def _hits_loader(outputs: Sequence[EdgesOutput], task: str, readouts: Sequence[tuple[str, int]]) -> Load:
    arrays = [output.hits(task) for output in outputs]
    rows = [[output.readouts.index(readout) for readout in readouts] for output in outputs]
    return lambda seed, step: np.asarray(arrays[seed][outputs[seed].steps.index(step)])[rows[seed]]


def _cloze(work: Work, scratch: Path) -> None:
    from finetrace.lenses.dynamics.facts import Facts, add_facts

    stage = work.stage
    outputs = {arm: [read_cloze(stage.layout.place(place) / "cloze", scratch / place.replace("/", "_"))
                     for place in places]
               for arm, places in work.places.items()}
    all_outputs = [output for arm_outputs in outputs.values() for output in arm_outputs]
    ids = in_all(work, "cloze", "fact", {output.folder: output.index["fact_id"].tolist() for output in all_outputs})
    first = all_outputs[0].index
    rows = np.flatnonzero(np.isin(first["fact_id"], ids))
    facts = Facts(first["corpus"][rows], first["relation"][rows], first["relation_type"][rows],
                  first["held_out"][rows].astype(bool))
    read = {output.folder: list(dict.fromkeys(name for step in output.steps for name in output.layers(step)))
            for output in all_outputs}
    for readout in in_all(work, "cloze", "readout", read):
        read_layers = [set(output.layers(step)[readout]) for output in all_outputs for step in output.steps_of(readout)]
        layers = sorted(set.intersection(*read_layers))
        arms = {name: work.arm(name, f"cloze, {readout}", [output.steps_of(readout) for output in arm_outputs],
                               _answers_loader(arm_outputs, first["fact_id"][rows], readout, layers))
                for name, arm_outputs in outputs.items()}
        for corpus, held_out in facts.groups():
            count = len(facts.rows(corpus, held_out))
            log.info("%s: cloze, %s%s: %s facts, read-out %s, %d layers", stage.label, corpus,
                     ", held out" if held_out else "", f"{count:,}", readout, len(layers))
            resampling = add_facts(work.table, corpus, held_out, readout, arms, layers, facts,
                                   **work.settings("cloze", corpus, int(held_out)))
            work.resampled["cloze"] = resampling.resampled
            work.counts[f"cloze/{corpus}{'/held_out' if held_out else ''}"] = count
        work.check_copies(f"cloze, {readout}", arms)


def _answers_loader(outputs: Sequence[ClozeOutput], ids: np.ndarray, readout: str, layers: list[int]) -> Load:
    """load(seed, step) -> Answers of the common facts and layers."""
    from finetrace.lenses.dynamics.facts import Answers

    columns: list[Any] = []
    for output in outputs:
        place = {name: row for row, name in enumerate(output.index["fact_id"].tolist())}
        rows = np.array([place[name] for name in ids.tolist()])
        columns.append(slice(None) if np.array_equal(rows, np.arange(len(place))) else rows)

    def load(seed: int, step: int) -> "Answers":
        stored = outputs[seed].layers(step)[readout]
        layer_places: Any = slice(None) if stored == layers else [stored.index(layer) for layer in layers]
        return Answers(*(values[layer_places][:, columns[seed]] for values in outputs[seed].answers(step, readout)))

    return load


def _pairs(work: Work) -> None:
    from finetrace.lenses.dynamics.pairs import CommonPairs, add_pairs

    stage = work.stage
    places = compared(stage, work.entry, "pairs")
    work.left_out += [f"pairs: {arm}, at which it has not looked" for arm in work.places if arm not in places]
    outputs = {arm: [read_pairs(stage.layout.place(place) / "pairs") for place in arm_places]
               for arm, arm_places in places.items()}
    all_outputs = [output for arm_outputs in outputs.values() for output in arm_outputs]
    (name, _), *_ = in_all(work, "pairs", "set and scoring",
                           {output.folder: [output.set_and_scoring] for output in all_outputs})
    pairs = in_all(work, "pairs", "pair", {output.folder: output.pairs for output in all_outputs})
    first = {pair: row for pair, row in zip(all_outputs[0].pairs, all_outputs[0].index, strict=True)}
    common = CommonPairs(*(np.array([first[pair][column] for pair in pairs]) for column in ("phenomenon", "paradigm",
                                                                                     "control")))
    arms = {arm: work.arm(arm, "pairs", [output.steps for output in arm_outputs], _scores_loader(arm_outputs, pairs))
            for arm, arm_outputs in outputs.items()}
    numbers = {arm: [output.numbers for output in arm_outputs] for arm, arm_outputs in outputs.items()}
    for control in sorted(set(common.control.tolist())):
        count = len(common.rows(control))
        log.info("%s: pairs, %s%s: %s pairs", stage.label, name, ", control" if control else "", f"{count:,}")
        resampling = add_pairs(work.table, name, control, arms, common, numbers,
                               **work.settings("pairs", name, int(control)))
        work.resampled["pairs"] = resampling.resampled
        work.counts[f"pairs/{name}{'/control' if control else ''}"] = count
    work.check_copies(f"pairs, {name}", arms)


def _scores_loader(outputs: Sequence[PairsOutput], pairs: Sequence[tuple[str, str, str]]) -> Load:
    """load(seed, step) -> (pair, 2) scores of the common pairs."""
    rows_of = [{pair: row for row, pair in enumerate(output.pairs)} for output in outputs]
    rows = [[row_of[pair] for pair in pairs] for row_of in rows_of]
    return lambda seed, step: outputs[seed].scores(step)[rows[seed]]


def _downstream(work: Work) -> None:
    from finetrace.lenses.dynamics.sources import add_downstream

    entries = {name: work.stage.asked["downstream"][name] for name in work.entry.downstream}
    for task in dict.fromkeys(entry["task"] for entry in entries.values()):
        outputs: dict[str, list[DownstreamOutput]] = {}
        for arm, places in work.places.items():
            by_place = {entry["trajectory"]: name for name, entry in entries.items()
                        if entry["task"] == task and entry["trajectory"] in places}
            if by_place and (missing := [place for place in places if place not in by_place]):
                raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}.downstream: {task} from "
                                     f"{', '.join(missing)} is missing; add an entry with that trajectory, or take "
                                     f"{', '.join(by_place.values())} out")
            if by_place:
                outputs[arm] = [read_downstream(work.stage.layout.downstream(by_place[place])) for place in places]
        _check_used(work, task, entries)
        examples = {output.folder: output.hits.shape[2] for arm_outputs in outputs.values() for output in arm_outputs}
        if len(set(examples.values())) > 1:
            shown = ", ".join(f"{folder.name}: {count}" for folder, count in examples.items())
            raise FinetraceError(f"downstream: {task}: different numbers of test examples ({shown}); run them again")
        arms, numbers, count = _trainings(work, task, outputs)
        resampling = add_downstream(work.table, task, arms, next(iter(examples.values())), numbers,
                                    **work.settings("downstream", task) | {"seeds": count})
        work.resampled["downstream"], work.counts[f"downstream/{task}"] = (resampling.resampled,
                                                                           next(iter(examples.values())))


def _check_used(work: Work, task: str, entries: Mapping[str, Mapping[str, str]]) -> None:
    known = {place for places in work.places.values() for place in places}
    for name, entry in entries.items():
        if entry["task"] == task and entry["trajectory"] not in known:
            raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}.downstream: {name} starts from "
                                 f"{entry['trajectory']}, which is none of original, adapted, control; add it or take "
                                 "it out")
    if not any(entry["trajectory"] in work.places["original"] for entry in entries.values() if entry["task"] == task):
        raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}.downstream: {task} is not learned from original")


def _trainings(work: Work, task: str, outputs: Mapping[str, Sequence[DownstreamOutput]]
               ) -> "tuple[dict[str, Arm], dict[str, list[Numbers]], int]":
    """Arms of a downstream task. Seeds are the pre-trainings (fine-tunings averaged within each); with one, the
    fine-tunings."""
    if len(work.entry.original) > 1:
        def load_mean(by_seed: Sequence[DownstreamOutput]) -> Load:
            return lambda seed, step: np.asarray(by_seed[seed].hits[by_seed[seed].steps.index(step)]).mean(axis=0)

        arms = {name: work.arm(name, "downstream", [output.steps for output in arm_outputs], load_mean(arm_outputs))
                for name, arm_outputs in outputs.items()}
        numbers = {name: [_mean_numbers([output.numbers(s) for s in output.seeds]) for output in arm_outputs]
                   for name, arm_outputs in outputs.items()}
        return arms, numbers, len(work.entry.original)
    common = in_all(work, f"downstream, {task}", "seed",
                    {arm_outputs[0].folder: arm_outputs[0].seeds for arm_outputs in outputs.values()})

    def load_seed(output: DownstreamOutput) -> Load:
        return lambda seed, step: np.asarray(output.hits[output.steps.index(step), output.seeds.index(common[seed])])

    arms = {name: work.arm(name, "downstream", [arm_outputs[0].steps], load_seed(arm_outputs[0]))
            for name, arm_outputs in outputs.items()}
    return arms, {name: [arm_outputs[0].numbers(s) for s in common]
                  for name, arm_outputs in outputs.items()}, len(common)


def _mean_numbers(trainings: Sequence[Numbers]) -> Numbers:
    """Means over fine-tunings; their intervals do not average, so they are unknown."""
    def mean(key: tuple[str, int, str], step: int) -> float:
        return float(np.mean([numbers[key][step][0] for numbers in trainings if step in numbers.get(key, {})]))

    return {key: {step: (mean(key, step), np.nan, np.nan, by_step[step][3]) for step in by_step}
            for key, by_step in trainings[0].items()}

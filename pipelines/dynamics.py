"""python pipelines/dynamics.py NAME -- what was learned when, and what adaptation kept and lost -> dynamics/NAME/"""

import hashlib
import logging
import shutil

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.dynamics_inputs import read_cloze, read_downstream, read_edges
from finetrace.store.files import write_json
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/dynamics", "lenses/intervals.py")
SECTIONS = {"edges": "edge_probes", "cloze": "cloze_probes"}
MOST_TOLD = 20


def main(stage: Stage) -> None:
    from finetrace.figures.dynamics_panels import figures_of
    from finetrace.lenses.dynamics.report import curves, metrics
    from finetrace.lenses.dynamics.table import Table

    entry = stage.pick("dynamics", stage.study.dynamics)
    places = {arm: getattr(entry, arm) for arm in ("original", "adapted", "control") if getattr(entry, arm)}
    inputs = _inputs(stage, entry, places)
    seed = seeds.derive(stage.study.study.seed, "dynamics", stage.item)
    manifest = stage.manifest("lens", as_dict(entry), {folder: folder for folder in inputs}, {"resampling": seed}, rooms=ROOMS)
    work = Work(stage, entry, places, seed, Table())
    scratch = stage.layout.scratch("dynamics", manifest.key)
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    if "edges" in entry.sources:
        _edges(work)
    if "cloze" in entry.sources:
        _cloze(work, scratch)
    _downstream(work)
    for text in work.identical:
        log.warning("%s: the same results twice, so no second measurement: %s", stage.label, text)
    for text in work.left_out:
        log.info("%s: left out: %s", stage.label, text)
    columns, dropped = curves(work.table, work.axes)
    if dropped:
        work.left_out.append(f"curves.csv: {dropped} curves; the table has all")
    unit = work.unit("original")
    with stage.output(stage.layout.dynamics(stage.item), manifest) as out:
        write_table(out / "table.parquet", work.table.columns())
        write_json(out / "metrics.json", metrics(work.table, unit) | {"identical_rows": len(work.identical)})
        write_curves(out / "curves.csv", columns)
        write_figures(out / "figures", figures_of(stage.item, work.table, work.axes, {arm: work.unit(arm) for arm in places},
                                                  work.note()))
        manifest.facts = {"arms": {arm: list(of) for arm, of in places.items()}, "axes": work.axes, "steps": work.steps,
                          "step_unit": unit, "resampled": work.resampled, "n": work.counts, "left_out": work.left_out,
                          "identical_rows": len(work.identical), "identical": work.identical[:MOST_TOLD]}
    shutil.rmtree(scratch, ignore_errors=True)


class Work:
    """What the sources share: the entry, its trajectories, the table that they fill, and what a reader must be told."""

    def __init__(self, stage, entry, places, seed, table):
        self.stage, self.entry, self.places, self.seed, self.table = stage, entry, places, seed, table
        self.axes = {arm: _axis(stage, arm, of) for arm, of in places.items()}
        self.steps: dict[str, dict[str, list[int]]] = {}  # source -> arm -> steps
        self.left_out: list[str] = []
        self.identical: list[str] = []
        self.resampled: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._units: dict[str, float] = {}

    def arm(self, name, source, steps, load):
        """The lens's Arm of one source: steps that all of its seeds have, others told. steps: of each seed."""
        from finetrace.lenses.dynamics.arms import Arm

        common = sorted(set.intersection(*map(set, steps)))
        for place, one in zip(self.places[name], steps, strict=True):
            if more := sorted(set(one) - set(common)):
                text = f"{source}: {place}: steps {', '.join(map(str, more))} (not in all of {name})"
                self.left_out += [text] if text not in self.left_out else []
        if not common:
            raise FinetraceError(f"params.yaml: dynamics.{self.stage.item}.{name}: its trajectories have no common step in "
                                 f"{source}; look at the same checkpoints (checkpoints: [...])")
        self.steps.setdefault(source, {})[name] = common
        return Arm(tuple(common), self.axes[name], self.unit(name), load)

    def unit(self, arm):
        """The unit of an arm's time axis: as set, else the first step after 0 of any trajectory on that axis."""
        axis = self.axes[arm]
        if self.entry.step_unit and axis == self.axes["original"]:
            return float(self.entry.step_unit)
        if axis not in self._units:
            steps = [s for name, of in self.places.items() if self.axes[name] == axis for place in of
                     for s in _recorded(self.stage, self.entry, place)]
            self._units[axis] = float(min((s for s in steps if s > 0), default=1))
        return self._units[axis]

    def settings(self, *purpose):
        """Keywords of the lens's functions."""
        return {"seeds": len(self.entry.original), "draws": self.entry.draws, "seed": seeds.derive(self.seed, *purpose)}

    def check_copies(self, what, arms):
        """Note seeds whose raw results are the same at a step; results that are one constant are no sign of a copy."""
        from finetrace.lenses.dynamics import repeated

        for name, arm in arms.items():
            if len(self.places[name]) < 2:
                continue
            for step in arm.steps:
                found = {place: _digest(arm.load(s, step)) for s, place in enumerate(self.places[name])}
                for first, second in repeated({place: digest for place, digest in found.items() if digest}):
                    self.identical.append(f"{what}, step {step}: {first} and {second}")

    def note(self):
        """What figures must say about their intervals."""
        several = len(self.entry.original)
        what = "examples" if set(self.resampled.values()) == {"examples"} else "seeds and examples"
        text = f"{several} trajectories per arm" if several > 1 else "one trajectory per arm"
        return f"{self.entry.draws:,} resamplings of {what}; {text}"


def _inputs(stage, entry, places):
    """The finished folders that are read. Raises FinetraceError for a trajectory that a lens has not looked at."""
    folders = []
    for source in entry.sources:
        section = getattr(stage.study, SECTIONS[source])
        for place in (place for of in places.values() for place in of):
            folder = stage.layout.place(place) / source
            if not (folder / "manifest.json").is_file():
                key = next((name for name, one in section.items() if one.trajectory == place), None)
                fix = f"run dvc repro {source}@{key}" if key else (
                    f"add to {SECTIONS[source]}  {place.replace('/', '-')}: {{trajectory: {place}"
                    f"{', facts: ...' if source == 'cloze' else ''}}} and run dvc repro, or name only what there is in "
                    f"dynamics.{stage.item}.sources")
                raise FinetraceError(f"params.yaml: dynamics.{stage.item}: there are no {source} results of {place}; {fix}")
            folders.append(folder)
    for name in entry.downstream:
        folder = stage.layout.downstream(name)
        if not (folder / "manifest.json").is_file():
            raise FinetraceError(f"params.yaml: dynamics.{stage.item}.downstream: {name} has no results; run dvc repro "
                                 f"downstream@{name}")
        folders.append(folder)
    return folders


def _axis(stage, arm, places):
    """What the steps of an arm count."""
    from finetrace.models.timeline import AXES, FINE_TUNING

    found = {}
    for place in places:
        facts = read_manifest(stage.layout.place(place) / "trajectory", verify=False).facts
        found[place] = str(facts.get("axis") or AXES.get(place.split("/")[1], FINE_TUNING))
    if len(set(found.values())) > 1:
        raise FinetraceError(f"params.yaml: dynamics.{stage.item}.{arm}: its trajectories have different time axes ("
                             f"{'; '.join(f'{place}: {axis}' for place, axis in found.items())}); compare one kind at a time")
    return next(iter(found.values()))


def _recorded(stage, entry, place):
    """The checkpoints of a trajectory that any source looked at."""
    folder = stage.layout.place(place)
    steps = []
    if "edges" in entry.sources:
        steps += read_edges(folder / "edges").steps
    if "cloze" in entry.sources:
        steps += read_cloze(folder / "cloze", folder).steps
    for name in entry.downstream:
        if stage.study.downstream[name].trajectory == place:
            steps += read_downstream(stage.layout.downstream(name)).steps
    return steps


def _edges(work):
    from finetrace.lenses.dynamics.sources import add_edges

    stage = work.stage
    outputs = {arm: [read_edges(stage.layout.place(place) / "edges") for place in of] for arm, of in work.places.items()}
    every = [one for of in outputs.values() for one in of]
    tasks = _in_all(work, "edges", "task", {one.folder: one.tasks for one in every})
    order = list(stage.study.edges.tasks)
    readouts = _in_all(work, "edges", "readout", {one.folder: one.readouts for one in every})
    for task in sorted(tasks, key=lambda name: (order.index(name) if name in order else len(order), name)):
        targets = every[0].targets(task)
        for one in every[1:]:
            if not np.array_equal(one.targets(task), targets):
                raise FinetraceError(f"{one.folder}: task {task}: its targets are not those of {every[0].folder}, so they cannot "
                                     "be compared; run the stage edges again for both")
        arms = {name: work.arm(name, "edges", [one.steps for one in of], _hits_loader(of, task, readouts))
                for name, of in outputs.items()}
        log.info("%s: edges, %s: %s targets, %d read-outs, %s", stage.label, task, f"{len(targets):,}", len(readouts),
                 ", ".join(f"{name}: {len(arm.steps)} checkpoints" for name, arm in arms.items()))
        numbers = {name: [one.numbers(task) for one in of] for name, of in outputs.items()}
        found = add_edges(work.table, task, arms, readouts, targets[:, 1], numbers, **work.settings("edges", task))
        work.check_copies(f"edges, {task}", arms)
        work.resampled["edges"], work.counts[f"edges/{task}"] = found.resampled, len(targets)


def _hits_loader(outputs, task, readouts):
    arrays = [one.hits(task) for one in outputs]
    rows = [[one.readouts.index(readout) for readout in readouts] for one in outputs]
    return lambda seed, step: np.asarray(arrays[seed][outputs[seed].steps.index(step)])[rows[seed]]


def _cloze(work, scratch):
    from finetrace.lenses.dynamics.facts import Facts, add_facts

    stage = work.stage
    outputs = {arm: [read_cloze(stage.layout.place(place) / "cloze", scratch / place.replace("/", "_")) for place in of]
               for arm, of in work.places.items()}
    every = [one for of in outputs.values() for one in of]
    ids = _in_all(work, "cloze", "fact", {one.folder: one.index["fact_id"].tolist() for one in every})
    first = every[0].index
    rows = np.flatnonzero(np.isin(first["fact_id"], ids))
    facts = Facts(*(first[name][rows] for name in ("corpus", "relation", "relation_type")), first["held_out"][rows].astype(bool))
    read = {one.folder: list(dict.fromkeys(name for step in one.steps for name in one.layers(step))) for one in every}
    for readout in _in_all(work, "cloze", "readout", read):
        layers = sorted(set.intersection(*(set(one.layers(step)[readout]) for one in every for step in one.steps_of(readout))))
        arms = {name: work.arm(name, f"cloze, {readout}", [one.steps_of(readout) for one in of],
                               _answers_loader(of, first["fact_id"][rows], readout, layers)) for name, of in outputs.items()}
        for corpus, held_out in facts.groups():
            count = len(facts.rows(corpus, held_out))
            log.info("%s: cloze, %s%s: %s facts, read-out %s, %d layers", stage.label, corpus, ", held out" if held_out else "",
                     f"{count:,}", readout, len(layers))
            found = add_facts(work.table, corpus, held_out, readout, arms, layers, facts,
                              **work.settings("cloze", corpus, int(held_out)))
            work.resampled["cloze"], work.counts[f"cloze/{corpus}{'/held_out' if held_out else ''}"] = found.resampled, count
        work.check_copies(f"cloze, {readout}", arms)


def _answers_loader(outputs, ids, readout, layers):
    """load(seed, step) -> Answers of the common facts and layers."""
    from finetrace.lenses.dynamics.facts import Answers

    columns = []
    for one in outputs:
        place = {name: row for row, name in enumerate(one.index["fact_id"].tolist())}
        rows = np.array([place[name] for name in ids.tolist()])
        columns.append(slice(None) if np.array_equal(rows, np.arange(len(place))) else rows)

    def load(seed, step):
        there = outputs[seed].layers(step)[readout]
        kept = slice(None) if there == layers else [there.index(layer) for layer in layers]
        return Answers(*(values[kept][:, columns[seed]] for values in outputs[seed].answers(step, readout)))

    return load


def _downstream(work):
    from finetrace.lenses.dynamics.sources import add_downstream

    entries = {name: work.stage.study.downstream[name] for name in work.entry.downstream}
    for task in dict.fromkeys(one.task for one in entries.values()):
        outputs = {}
        for arm, places in work.places.items():
            of = {one.trajectory: name for name, one in entries.items() if one.task == task and one.trajectory in places}
            if of and (missing := [place for place in places if place not in of]):
                raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}.downstream: {task} from {', '.join(missing)} is "
                                     f"missing; add an entry with that trajectory, or take {', '.join(of.values())} out")
            if of:
                outputs[arm] = [read_downstream(work.stage.layout.downstream(of[place])) for place in places]
        _check_used(work, task, entries)
        examples = {one.folder: one.hits.shape[2] for of in outputs.values() for one in of}
        if len(set(examples.values())) > 1:
            shown = ", ".join(f"{folder.name}: {count}" for folder, count in examples.items())
            raise FinetraceError(f"downstream: {task}: different numbers of test examples ({shown}); run them again")
        arms, numbers, count = _trainings(work, task, outputs)
        found = add_downstream(work.table, task, arms, next(iter(examples.values())), numbers,
                               **work.settings("downstream", task) | {"seeds": count})
        work.resampled["downstream"], work.counts[f"downstream/{task}"] = found.resampled, next(iter(examples.values()))


def _check_used(work, task, entries):
    known = {place for of in work.places.values() for place in of}
    for name, one in entries.items():
        if one.task == task and one.trajectory not in known:
            raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}.downstream: {name} starts from {one.trajectory}, "
                                 "which is none of original, adapted, control; add it or take it out")
    if not any(one.trajectory in work.places["original"] for one in entries.values() if one.task == task):
        raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}.downstream: {task} is not learned from original")


def _trainings(work, task, outputs):
    """Arms of a downstream task. Seeds are the pre-trainings (fine-tunings averaged within each); with one, the fine-tunings."""
    if len(work.entry.original) > 1:
        def load_mean(of):
            return lambda seed, step: np.asarray(of[seed].hits[of[seed].steps.index(step)]).mean(axis=0)

        arms = {name: work.arm(name, "downstream", [one.steps for one in of], load_mean(of)) for name, of in outputs.items()}
        numbers = {name: [_mean_numbers([one.numbers(s) for s in one.seeds]) for one in of] for name, of in outputs.items()}
        return arms, numbers, len(work.entry.original)
    common = _in_all(work, f"downstream, {task}", "seed", {of[0].folder: of[0].seeds for of in outputs.values()})

    def load_seed(one):
        return lambda seed, step: np.asarray(one.hits[one.steps.index(step), one.seeds.index(common[seed])])

    arms = {name: work.arm(name, "downstream", [of[0].steps], load_seed(of[0])) for name, of in outputs.items()}
    return arms, {name: [of[0].numbers(s) for s in common] for name, of in outputs.items()}, len(common)


def _mean_numbers(several):
    """Means over fine-tunings; their intervals do not average, so they are unknown."""
    return {key: {step: (float(np.mean([one[key][step][0] for one in several if step in one.get(key, {})])), np.nan, np.nan,
                         several[0][key][step][3]) for step in several[0][key]} for key in several[0]}


def _in_all(work, source, what, lists):
    """What stands in all lists, in the order of the first; the rest is told."""
    values = list(lists.values())
    shared = set.intersection(*(set(other) for other in values))
    common = [one for one in values[0] if one in shared]
    more = list(dict.fromkeys(one for other in values for one in other if one not in shared))
    if more:
        shown = ", ".join(" ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in more[:5])
        work.left_out.append(f"{source}: {len(more):,} {what}{'s' if len(more) > 1 else ''} not in all trajectories: {shown}"
                             f"{', ...' if len(more) > 5 else ''}")
    if not common:
        raise FinetraceError(f"params.yaml: dynamics.{work.stage.item}: the trajectories have no {what} of {source} in common ("
                             f"{', '.join(str(folder) for folder in lists)}); look at the same")
    return common


def _digest(raw):
    """SHA-256 of raw results, or None where every example has the same."""
    parts = [raw] if isinstance(raw, np.ndarray) else [raw.ranks, raw.log_probs]
    axis = -2 if isinstance(raw, np.ndarray) else -1
    if all((part == np.take(part, [0], axis=axis)).all() for part in parts):
        return None
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


if __name__ == "__main__":
    run("dynamics", main)

"""Checks across the sections of a study: every model, task, place, corpus and fact set that is named must exist."""

from collections.abc import Iterable, Mapping
from os.path import normpath
from pathlib import PurePath
from typing import Any

from finetrace.config.base import require
from finetrace.config.training import TrainSettings
from finetrace.errors import FinetraceError
from finetrace.layout import is_slug
from finetrace.study.patterns import nearest
from finetrace.study.study import NAMED, Cell, Study

MADE = ("data", "models", "outputs", "settings", "inputs", "comparisons", "cross-tasks", "dynamics",
        "directprobe", "atlas", "mlruns")
"""Folders whose content a study makes."""
FOLDERS = "use lower-case letters, digits, dots and hyphens"


def check(study: Study) -> None:
    """Raises ValueError naming section, entry, key and what is known."""
    tasks = [*study.tasks, *study.task_files]
    _check_names(study, tasks)
    _check_runs(study, tasks)
    _check_series(study, tasks)
    _check_masked(study, tasks)
    _check_looks(study, tasks)
    _check_record(study)
    _check_pairs(study, tasks)
    _check_dynamics(study, tasks)
    _check_targets(study)
    models = [*study.models_named, *study.series]
    for name in study.probes.by_model:
        known(f"probes.by_model.{name}", name, models)
    changed = [("by_task", list(study.by_task), tasks), ("by_model", list(study.by_model), models)]
    changed += [
        (f"methods.{name}.by_task", list(method.by_task or {}), tasks) for name, method in study.methods.items()
    ]
    for section, keys, defined in changed:
        for name in keys:
            known(f"{section}.{name}", name, defined)


def known(where: str, name: str, names: Iterable[str]) -> None:
    """Raises ValueError when a name is not among those defined."""
    names = list(names)
    require(name in names, f"{where}: {name!r} is not defined; known: {nearest(name, names, 8)}")


def _check_names(study: Study, tasks: list[str]) -> None:
    """Names of folders: slugs, each used once among what lies in data/ and among models."""
    for section in (section for section in NAMED if section not in ("by_task", "by_model")):  # these name no folder
        for name in getattr(study, section):
            require(is_slug(name), f"{section}: {name!r} cannot name a folder; {FOLDERS}")
    require(
        not {"world", "pretrain"} & set(tasks),
        "tasks: 'world' and 'pretrain' name folders of finetrace itself; choose another name",
    )
    data = ("tasks", "task_files", "corpora", "facts", "fact_files", "minimal_pairs", "minimal_pair_files")
    _check_unique("data/", study, data, extra_names=["world"])
    models = ("pretrain", "series", "adapt", "models", "model_folders")
    _check_unique("models/ or outputs/", study, models)
    require(
        not any("downstream" in getattr(study, section) for section in models),
        "models: 'downstream' names a folder of finetrace itself; choose another name",
    )
    _check_paths(study)


def _check_paths(study: Study) -> None:
    """Local files: on this machine, and neither in a result nor around it."""
    folders = {"series": "outputs", "model_folders": "models", "tasks": "data", "task_files": "data", "corpora": "data",
               "fact_files": "data", "minimal_pair_files": "data"}
    paths = [
        (section, folder, name, entry.path)
        for section, folder in folders.items()
        for name, entry in getattr(study, section).items()
        if entry.path
    ]
    for section, folder, name, path in paths:
        require(
            "://" not in path and not any(c in path for c in "\0\n\r"),
            f"{section}: {name}: path {path!r} is no path of this machine; fetch the files, and name where they lie, "
            f"e.g. sources/{name}",
        )
        require(
            normpath(path) not in (*MADE, ".", ".."),
            f"{section}: {name}: path {path} holds results, which would change with every run; put the files into a "
            f"folder of their own, e.g. sources/{name}",
        )
        require(
            not PurePath(normpath(path)).is_relative_to(f"{folder}/{name}"),
            f"{section}: {name}: path {path} lies in {folder}/{name}, which the result replaces; move it, e.g. "
            f"to sources/{name}",
        )


def _check_unique(where: str, study: Study, sections: tuple[str, ...], extra_names: Iterable[str] = ()) -> None:
    names = [*extra_names, *(name for section in sections for name in getattr(study, section))]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]!r} names two of {', '.join(sections)}, which all lie in {where}; rename one")


def _check_runs(study: Study, tasks: list[str]) -> None:
    first_named: dict[str, int] = {}
    for number, entry in enumerate(study.runs):
        for key, names, defined in (
            ("model", entry.models, study.models_named),
            ("task", entry.tasks, tasks),
            ("method", entry.methods, list(study.methods)),
        ):
            for name in names:
                known(f"runs.{number}.{key}", name, defined)
        for model in entry.models:
            for place in (
                f"{model}/{task}/{method}/s{seed}"
                for task in entry.tasks
                for method in entry.methods
                for seed in entry.seeds
            ):
                require(
                    place not in first_named,
                    f"runs.{number}: {place} stands in runs.{first_named.get(place)} as well; name it once",
                )
                first_named[place] = number


def _check_series(study: Study, tasks: list[str]) -> None:
    """Tasks and models of checkpoints that were made elsewhere."""
    require("given" not in study.methods, "methods: 'given' stands for checkpoints that were made elsewhere; choose "
                                          "another name")
    for name, entry in study.series.items():
        for task in entry.looked_at_with:
            known(f"series.{name}.tasks", task, tasks)
        if entry.model:
            known(f"series.{name}.model", entry.model, [*study.pretrain, *study.models, *study.model_folders])


def _check_masked(study: Study, tasks: list[str]) -> None:
    texts = ["world", *study.corpora, *tasks]
    for name, entry in study.pretrain.items():
        known(f"pretrain.{name}.corpus", entry.corpus, texts)
    for name, adapt in study.adapt.items():
        starts = [p for p, kind in study.places.items() if p != f"{name}/adapt" and not kind.startswith("given")]
        known(f"adapt.{name}.start", adapt.start, starts)
        known(f"adapt.{name}.corpus", adapt.corpus, texts)
    for name, facts in study.fact_files.items():
        require(
            not facts.held_out or any(corpus.held_out >= facts.held_out for corpus in study.corpora.values()),
            f"fact_files.{name}.held_out: no corpus leaves out the sentences of {facts.held_out:g} of the "
            "facts; give the entry of `corpora` that a model is trained on the same held_out, or remove this one",
        )


def _check_looks(study: Study, tasks: list[str]) -> None:
    looked, sets = study.looked, [*study.facts, *study.fact_files]
    for place, edges in looked.get("edges", {}).items():
        require(bool(edges.tasks), "edges.tasks: is empty, but `look` names places for edges; name tasks of words")
        for name in edges.tasks:
            known(f"edges.tasks, at {place}", name, tasks)
    for place, cloze in looked.get("cloze", {}).items():
        require(
            bool(cloze.facts),
            "cloze.facts: is not given, but `look` names places for cloze; name an entry of facts or fact_files",
        )
        known(f"cloze.facts, at {place}", cloze.facts, sets)
        known(f"cloze.corpus, at {place}", cloze.corpus, ["world", *study.corpora, *tasks])
    for place, pairs in looked.get("pairs", {}).items():
        require(
            bool(pairs.set),
            "pairs.set: is not given, but `look` names places for pairs; name an entry of minimal_pairs or "
            "minimal_pair_files",
        )
        known(f"pairs.set, at {place}", pairs.set, [*study.minimal_pairs, *study.minimal_pair_files])


def _check_record(study: Study) -> None:
    """What fine-tunings record is what lenses read: a study finds out before it trains."""
    runs = {run.place for run in study.trajectories.values()}
    looking = [lens for lens, places in study.looked.items() if runs & set(places)]
    if study.record.checkpoints == "none":
        reading = [lens for lens in looking if lens != "infodynamics"]
        reading += [name for name in ("comparisons", "cross_tasks") if getattr(study, name)]
        require(
            not reading,
            f"record.checkpoints: none keeps no weights, but these need them: {', '.join(reading)}; keep some "
            "(log2, epochs, or {steps: [0]} for the first and the last alone), or choose lenses in `look`",
        )
    require(
        study.record.signals or "infodynamics" not in looking,
        "record.signals: false, but infodynamics reads them; write true, or leave infodynamics out of `look`",
    )


def _check_targets(study: Study) -> None:
    """Tasks without classes: what learns and reads them takes numbers, or sets of classes."""
    for name, task in (
        *((f"cross_tasks.{name}.task", cross.task) for name, cross in study.cross_tasks.items()),
        *((f"downstream.{name}.task", entry.task) for name, entry in study.downstream.items()),
    ):
        require(study.target(task) == "class", f"{name}: {task} is target: {study.target(task)}, and this needs "
                "classes; name a task of classes, or make them of its labels by label_ranges")
    for name, entry in study.series.items():
        for task in entry.heads:
            advice = "leave `labels` out" if entry.signals else "leave it out of `head`"
            require(study.target(task) == "class" or (entry.signals and not entry.labels),
                    f"series.{name}.head: {task} is target: {study.target(task)}, and only heads of classes are read; "
                    f"{advice}")
    for cell in study.cells.values():
        target, method = study.target(cell.task), study.methods[cell.method]
        require(target == "class" or not method.probes, f"runs: method {cell.method} fits a linear probe, which needs "
                f"classes, and {cell.task} is target: {target}; train it by ft or lora")


def check_training(study: Study, cell: Cell, train: TrainSettings, where: str) -> None:
    """Raises FinetraceError for settings of a training that its task or method cannot take."""
    target, method = study.target(cell.task), study.methods[cell.method]
    for key, is_set in (("class_weights", train.class_weights is not None), ("label_smoothing", train.label_smoothing)):
        if is_set and target != "class":
            raise FinetraceError(f"{where}: train.{key}: is about examples of one class each, and {cell.task} is "
                                 f"target: {target}; set it back in by_task.{cell.task}")
        if is_set and method.probes:
            raise FinetraceError(f"{where}: train.{key}: does not reach the linear probe of method {cell.method}, "
                                 "which is fitted on plain classes; set it back in the method's `train`")
    if train.thresholds == "chosen" and target == "regression":
        raise FinetraceError(f"{where}: train.thresholds: {cell.task} is target: regression, which needs none; write "
                             f"half in by_task.{cell.task}")


def _check_pairs(study: Study, tasks: list[str]) -> None:
    """Comparisons and cross-task effects: what they compare exists, and can be compared."""
    runs = [run.place for run in study.on_tasks.values()]
    for name, comparison in study.comparisons.items():
        for side in ("first", "second"):
            known(f"comparisons.{name}.{side}", getattr(comparison, side), runs)
        pair_tasks = [place.split("/")[1] for place in (comparison.first, comparison.second)]
        require(
            pair_tasks[0] == pair_tasks[1],
            f"comparisons.{name}: its trajectories are on different tasks ({pair_tasks[0]}, {pair_tasks[1]}); name "
            "two on one task",
        )
    for name, cross in study.cross_tasks.items():
        known(f"cross_tasks.{name}.tuned", cross.tuned, runs)
        known(f"cross_tasks.{name}.task", cross.task, tasks)


def _check_dynamics(study: Study, tasks: list[str]) -> None:
    masked = study.masked
    for name, entry in study.downstream.items():
        known(f"downstream.{name}.trajectory", entry.trajectory, masked)
        known(f"downstream.{name}.task", entry.task, tasks)
    for name, dynamics in study.dynamics.items():
        for source in dynamics.sources:
            compared = dynamics.compared(source, study.looked.get(source, {}))
            for place in (place for arm_places in compared.values() for place in arm_places):
                _looked_at(name, place, source, study.looked)
        for other in dynamics.downstream:
            known(f"dynamics.{name}.downstream", other, study.downstream)


def _looked_at(name: str, place: str, source: str, looked: Mapping[str, Mapping[str, Any]]) -> None:
    looked_places = list(looked.get(source, {}))
    require(
        place in looked_places,
        f"dynamics.{name}: {source} does not look at {place}; add it to look.{source}, or leave {source} out of "
        f"dynamics.{name}.sources; {source} looks at {nearest(place, looked_places)}",
    )

"""The plan: which items every stage has, what each builds on, and its resolved settings.

`finetrace plan` writes the first part to plan.yaml, over which dvc.yaml loops, and the second to
settings/STAGE/ITEM.json, of which each item depends on its own. Nothing else of params.yaml reaches a stage.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from finetrace.config.base import as_dict, merge
from finetrace.config.series import GivenSettings, SeriesSettings, SourceSettings
from finetrace.config.written import written
from finetrace.data.registry import resolve, resolve_ood, section_of
from finetrace.errors import hide_passwords
from finetrace.layout import OF_SCRIPT
from finetrace.study.look import LENSES
from finetrace.study.study import GIVEN, Run, Study, place_key

STAGES = (
    *("facts", "fact-files", "minimal-pairs", "minimal-pair-files", "corpus"),
    *("series", "series-folder", "pretrain", "model", "model-folder", "series-model", "data", "data-files", "given"),
    *("tune", "train", "train-tuned", "adapt", "inputs", "hidden", "predictions"),
    *LENSES,
    *("downstream", "dynamics", "comparison", "cross-task", "directprobe"),
)
"""The stages of dvc.yaml that have items."""


@dataclass(frozen=True)
class Item:
    """One item of a stage.

    paths: what dvc.yaml needs to name its inputs and outputs;  asked: content of its settings file, or None when it
    has none.
    """

    stage: str
    key: str
    paths: dict[str, str]
    asked: dict[str, Any] | None

    @property
    def folder(self) -> str:
        """The folder of settings/ that its script reads."""
        return OF_SCRIPT.get(self.stage, self.stage)


def plan_of(study: Study) -> list[Item]:
    """Every item of the study, in an order in which they could run one by one."""
    seed = {"study_seed": study.study.seed}
    items = [
        Item(stage, key, paths, None if stage == "inputs" else seed | asked)
        for stage, key, paths, asked in [
            *_data_and_models(study),
            *_trainings(study),
            *_lenses_at_places(study),
            *_across_trajectories(study),
            *_inputs(study),
        ]
    ]
    order = {stage: number for number, stage in enumerate(STAGES)}
    return sorted(items, key=lambda item: order[item.stage])


def names_of(study: Study) -> list[str]:
    """Everything that is made for the study, as DVC names it, in an order in which it could be made one by one: the
    world, the items, the atlas and the publication. (The stages `plan` and `settings`, which ask for it, are not of
    it.)"""
    first, *last = last_settings(study)
    return [first, *(f"{item.stage}@{item.key}" for item in plan_of(study)), *last]


def last_settings(study: Study) -> dict[str, dict[str, Any]]:
    """Content of the settings files of stages without items: the world before all, the atlas and MLflow after all."""
    seed = {"study_seed": study.study.seed}
    tracked = as_dict(study.tracking)
    return {
        "world": seed | {"world": as_dict(study.world)},
        "atlas": seed
        | {
            "study": study.study.name,
            "trajectories": [as_dict(run) for run in study.on_tasks.values()],
            "masked": study.shown,
            "pretrained": [name for name, entry in study.pretrain.items() if entry.steps],
            "standalone": [list(result) for result in study.standalone()],
            "looked": {lens: list(places) for lens, places in study.looked.items()},
            "test_split": study.probes.test_splits[0],
            "params": {key: value for key, value in as_dict(study).items()
                       if key != "tracking" and (key != "compute" or _together_by(study))}
            | {"tune": written(study.tune)},
        },
        "publish": {"study": study.study.name, "tracking": tracked | {"uri": _without_password(study.tracking.uri)}},
    }


Rows = Iterator[tuple[str, str, dict[str, str], dict[str, Any]]]


def _data_and_models(study: Study) -> Rows:
    """Data and models."""
    for name, facts in study.facts.items():
        yield "facts", name, {}, {"facts": as_dict(facts)}
    for name, files in study.fact_files.items():
        yield "fact-files", name, {"path": files.path}, {"fact_files": as_dict(files)}
    for name, pairs in study.minimal_pairs.items():
        world_settings = {"world": as_dict(study.world)} if pairs.source == "world" else {}
        yield "minimal-pairs", name, {}, {"minimal_pairs": as_dict(pairs), **world_settings}
    for name, pair_files in study.minimal_pair_files.items():
        yield "minimal-pair-files", name, {"path": pair_files.path}, {"minimal_pair_files": as_dict(pair_files)}
    for name, corpus in study.corpora.items():
        yield "corpus", name, {"path": corpus.path}, {"corpus": as_dict(corpus)}
    for name, series in study.series.items():
        yield _series(name, series)
    for name, pretrain in study.pretrain.items():
        asked = {"pretrain": as_dict(pretrain)} | (_together_by(study) if pretrain.steps else {})
        yield "pretrain", name, {"corpus": pretrain.corpus}, asked
    for name, model in study.models.items():
        yield "model", name, {}, {"model": as_dict(model)}
    for name, local in study.model_folders.items():
        yield "model-folder", name, {"path": local.path}, {"model": as_dict(local)}
    for name, task in {**study.tasks, **study.task_files}.items():
        definition = resolve(name, task)
        sets = resolve_ood(name, definition, section_of(task))
        world_settings = (
            {"world": as_dict(study.world)}
            if "micro" in (definition.source, *(ood.source for ood in sets.values()))
            else {}
        )
        asked = {
            "task": {k: v for k, v in written(definition).items() if k != "ood"},
            "ood": {key: written(ood) for key, ood in sets.items()},
            **world_settings,
        }
        local_files = name in study.task_files
        yield ("data-files" if local_files else "data"), name, {"path": str(task.path)} if local_files else {}, asked


def _trainings(study: Study) -> Rows:
    """Searches and trainings."""
    for key, cell in study.cells.items():
        method = study.methods[cell.method]
        if method.settings == "tuned":
            at = f"{cell.model}/{cell.task}/{cell.method}"
            yield (
                "tune",
                key,
                {"at": at, "model": cell.model, "task": cell.task},
                {
                    "place": at,
                    "model": cell.model,
                    "task": cell.task,
                    "method": _method_settings(study, cell.method),
                    "train": written(study.train_settings(cell)),
                    "tune": written(study.tune),
                },
            )
    for run in study.trajectories.values():
        tuned = study.methods[run.method].settings == "tuned"
        tune = f"outputs/{run.model}/{run.task}/{run.method}/tune" if tuned else ""
        asked = _run_settings(run) | {
            "kind": _method_settings(study, run.method),
            "record": as_dict(study.record),
            "tune": tune,
            "train": None if tuned else written(study.train_settings(run)),
            **(_together_by(study) if study.methods[run.method].kind != "lp" else {}),  # it takes no gradient steps
        }
        yield ("train-tuned" if tuned else "train"), run.key, _paths(run) | ({"tune": tune} if tuned else {}), asked
    for run in study.given.values():
        yield "given", run.key, _paths(run), _run_settings(run) | {"given": _given(study, run)}
    for name, adapt in study.adapt.items():
        yield "adapt", name, {"start": adapt.start, "corpus": adapt.corpus}, (
            {"adapt": as_dict(adapt)} | _together_by(study))


def _together_by(study: Study) -> dict[str, Any]:
    """How many processes do one training; nothing where it is one, as in settings of before there were more."""
    return {"processes": study.compute.processes} if study.compute.processes > 1 else {}


def _series(name: str, series: SeriesSettings) -> tuple[str, str, dict[str, str], dict[str, Any]]:
    """The look-up of a series; what it is looked at with is not its own affair."""
    asked = {"series": {field.name: as_dict(series)[field.name] for field in fields(SourceSettings)}}
    if series.path:
        return "series-folder", name, {"path": series.path}, asked
    return ("series-model", name, {"model": series.model}, asked) if series.model else ("series", name, {}, asked)


def _given(study: Study, run: Run) -> dict[str, Any]:
    """How a series is looked at with a task: texts are cut as in a fine-tuning on the task."""
    entry = study.series[run.model]
    train = merge(study.train, study.by_task.get(run.task, {}), f"params.yaml: by_task.{run.task}")
    head = run.task in entry.heads and study.target(run.task) == "class"
    return as_dict(GivenSettings(head, entry.labels if head else (), entry.path if entry.signals else "",
                                 train.max_length, train.pieces))


def _lenses_at_places(study: Study) -> Rows:
    """Lenses that look at one trajectory, and the states and predictions that they read."""
    for stage, read in _places_read(study).items():
        for run in (run for run in study.on_tasks.values() if run.place in read):
            yield stage, run.key, _paths(run), _run_settings(run) | {stage: as_dict(getattr(study, stage))}
    runs = {run.place: run for run in study.on_tasks.values()}
    for lens, places in study.looked.items():
        for place, settings in places.items():
            asked = _run_settings(runs[place]) if place in runs else {"place": place}
            paths = {"at": place}
            if lens == "probes":
                settings = settings.for_model(runs[place].model)
            if lens == "convergence" and settings.split is None:
                split = study.probes.for_model(runs[place].model).test_splits[0]
                settings = merge(settings, {"split": split}, "params.yaml: convergence")
            if lens in ("probes", "kernel", "influence"):
                paths = _paths(runs[place])
            if lens in ("kernel", "influence"):
                given = runs[place].method == GIVEN
                paths |= {"base": f"outputs/{runs[place].model}/pretrain/trajectory" if given
                          else f"models/{runs[place].model}"}
            if lens == "edges":
                paths |= {"inputs": _edge_inputs(study, place, settings.tasks)}
            if lens == "cloze":
                paths |= {"facts": settings.facts, "corpus": settings.corpus}
            if lens == "pairs":
                paths |= {"set": settings.set}
            yield lens, place_key(place), paths, asked | ({} if settings is None else {lens: as_dict(settings)})


def _across_trajectories(study: Study) -> Rows:
    """What belongs to several trajectories, and what stands alone."""
    for name, down in study.downstream.items():
        changes = {**study.by_task.get(down.task, {}), **(down.train or {})}
        train = merge(study.train, changes, f"params.yaml: downstream.{name}.train")
        yield (
            "downstream",
            name,
            {"at": down.trajectory, "task": down.task},
            {"downstream": as_dict(down), "train": written(train)},
        )
    for name, dynamics in study.dynamics.items():
        arms = [*dynamics.original, *dynamics.adapted, *dynamics.control]
        yield (
            "dynamics",
            name,
            {"inputs": f"dynamics-{name}"},
            {
                "dynamics": as_dict(dynamics),
                "downstream": {
                    other: {"trajectory": study.downstream[other].trajectory, "task": study.downstream[other].task}
                    for other in dynamics.downstream
                },
                "looked": {
                    lens: [place for place in study.looked.get(lens, {}) if place in arms]
                    for lens in dynamics.sources
                },
                "edge_tasks": list(study.edges.tasks),
            },
        )
    for name, comparison in study.comparisons.items():
        yield (
            "comparison",
            name,
            {"first": comparison.first, "second": comparison.second},
            {"comparison": as_dict(comparison), "similarity": as_dict(study.similarity)},
        )
    for name, cross in study.cross_tasks.items():
        run = next(run for run in study.on_tasks.values() if run.place == cross.tuned)
        yield (
            "cross-task",
            name,
            {"at": cross.tuned, "task": cross.task},
            _run_settings(run)
            | {
                "cross_task": as_dict(cross),
                "hidden": as_dict(study.hidden),
                "probes": as_dict(study.probes.for_model(run.model)),
            },
        )
    for name, direct in study.directprobe.items():
        yield (
            "directprobe",
            name,
            {"config": direct.config, "inputs": direct.inputs},
            {"directprobe": as_dict(direct)},
        )


def _inputs(study: Study) -> Rows:
    """Inputs one by one of stages that have any number of them, which DVC cannot be told as a list: `from` is copied
    to `to`."""
    groups: dict[str, list[str]] = {}
    for place, edges in study.looked.get("edges", {}).items():
        groups[_edge_inputs(study, place, edges.tasks)] = [f"data/{task}" for task in edges.tasks]
    for name, dynamics in study.dynamics.items():
        compared = {source: dynamics.compared(source, study.looked.get(source, {})) for source in dynamics.sources}
        groups[f"dynamics-{name}"] = [
            *(f"outputs/{place}/{source}" for arm, arm_places in dynamics.arms.items() for place in arm_places
              for source in dynamics.sources if arm in compared[source]),
            *(f"outputs/downstream/{other}" for other in dynamics.downstream),
        ]
    folders = {
        "comparison": "comparisons",
        "cross-task": "cross-tasks",
        "dynamics": "dynamics",
        "directprobe": "directprobe",
    }
    alone = [f"{folders[stage]}/{name}" for stage, name, _ in study.standalone() if stage in folders]
    groups["atlas"] = alone
    for group, paths in groups.items():
        for path in paths:
            key = path.replace("/", "_")
            yield (
                "inputs",
                f"{group}--{key}",
                {"from": f"{path}/manifest.json", "to": f"inputs/{group}/{key}.json"},
                {},
            )
    if not alone:  # so that the folder is there
        yield "inputs", "atlas--none", {"from": "settings/atlas/atlas.json", "to": "inputs/atlas/none.json"}, {}


def _edge_inputs(study: Study, place: str, tasks: Iterable[str]) -> str:
    """The group of inputs of edges at a place: one for all places that read the study's own tasks."""
    return "edges" if list(tasks) == list(study.edges.tasks) else f"edges-{place_key(place)}"


def _places_read(study: Study) -> dict[str, list[str]]:
    """Places whose hidden states and predictions something reads."""
    read: dict[str, list[str]] = {"hidden": [], "predictions": []}
    for lens, places in study.looked.items():
        for stage in read:
            if stage in LENSES[lens].reads:
                read[stage] += places
    for comparison in study.comparisons.values():
        read["hidden"] += [comparison.first, comparison.second]
    return read


def _run_settings(run: Run) -> dict[str, Any]:
    return {"place": run.place} | as_dict(run)


def _paths(run: Run) -> dict[str, str]:
    return {"at": run.place, "model": run.model, "task": run.task}


def _without_password(uri: str | None) -> str | None:
    """An address as it may stand in a file."""
    if uri is None:
        return None
    parts = urlsplit(uri)
    return hide_passwords(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


def _method_settings(study: Study, method: str) -> dict[str, str]:
    return {"kind": study.methods[method].kind, "settings": study.methods[method].settings}

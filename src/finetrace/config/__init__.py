"""params.yaml as typed, frozen settings."""

from dataclasses import field
from os.path import normpath
from pathlib import Path, PurePath
from typing import Any

from finetrace.config.base import as_dict, load_yaml, parse, require, settings
from finetrace.config.cloze import ClozeSettings
from finetrace.config.convergence import ConvergenceSettings
from finetrace.config.corpora import CorpusSettings
from finetrace.config.cross_task import CrossTaskSettings
from finetrace.config.data import FilesTaskSettings, TaskSettings
from finetrace.config.directprobe import DirectprobeSettings
from finetrace.config.dynamics import ClozeProbeSettings, DownstreamSettings, DynamicsSettings, EdgeProbeSettings
from finetrace.config.edges import EdgesSettings
from finetrace.config.facts import FactFilesSettings, FactsSettings
from finetrace.config.geometry import GeometrySettings
from finetrace.config.hidden import HiddenSettings
from finetrace.config.hulls import HullsSettings
from finetrace.config.infodynamics import InfodynamicsSettings
from finetrace.config.kernel import KernelSettings
from finetrace.config.models import AdaptSettings, FolderModelSettings, HubModelSettings, PretrainSettings, SeriesSettings
from finetrace.config.places import check_places
from finetrace.config.predictions import CalibrationSettings, FeaturesSettings, PredictionsSettings
from finetrace.config.probes import ProbesSettings
from finetrace.config.similarity import ComparisonSettings, SimilaritySettings
from finetrace.config.tracking import TrackingSettings
from finetrace.config.training import MethodSettings, RecordSettings, TrainSettings, TuneSettings
from finetrace.config.world import WorldSettings
from finetrace.errors import FinetraceError
from finetrace.layout import is_slug

__all__ = ["Cell", "Study", "Trajectory", "as_dict", "load_study", "parse_study"]
LOOKED_AT = ("inspected", "predicted", "kernels")
"""Sections that name the trajectories that a group of lenses looks at."""
# Sections of named entries
NAMED = ("pretrain", "series", "adapt", "models", "model_folders", "tasks", "task_files", "corpora", "facts", "fact_files",
         "by_task", "by_model", "methods")


@settings
class StudySettings:
    """The study's name and its one seed."""

    name: str
    """Names the MLflow experiment."""
    seed: int = 0
    """Every random choice derives from it."""


@settings
class Cell:
    """One model x task x method: what a search for settings is about."""

    model: str
    """A model of `pretrain`, `models` or `model_folders`."""
    task: str
    """A task of `tasks` or `task_files`."""
    method: str
    """A method of `methods`."""


@settings
class Trajectory(Cell):
    """One training."""

    seed: int = 1
    """Tells repetitions apart; head, order and dropout derive from it and the study's seed."""


@settings
class Study:
    """All of params.yaml."""

    study: StudySettings
    world: WorldSettings = field(default_factory=WorldSettings)
    pretrain: dict[str, PretrainSettings] = field(default_factory=dict)
    series: dict[str, SeriesSettings] = field(default_factory=dict)
    adapt: dict[str, AdaptSettings] = field(default_factory=dict)
    models: dict[str, HubModelSettings] = field(default_factory=dict)
    model_folders: dict[str, FolderModelSettings] = field(default_factory=dict)
    tasks: dict[str, TaskSettings] = field(default_factory=dict)
    task_files: dict[str, FilesTaskSettings] = field(default_factory=dict)
    corpora: dict[str, CorpusSettings] = field(default_factory=dict)
    facts: dict[str, FactsSettings] = field(default_factory=dict)
    fact_files: dict[str, FactFilesSettings] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)
    by_task: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_model: dict[str, dict[str, Any]] = field(default_factory=dict)
    record: RecordSettings = field(default_factory=RecordSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)
    methods: dict[str, MethodSettings] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    trajectories: dict[str, Trajectory] = field(default_factory=dict)
    inspected: dict[str, Trajectory] = field(default_factory=dict)
    predicted: dict[str, Trajectory] = field(default_factory=dict)
    kernels: dict[str, Trajectory] = field(default_factory=dict)
    edge_probes: dict[str, EdgeProbeSettings] = field(default_factory=dict)
    cloze_probes: dict[str, ClozeProbeSettings] = field(default_factory=dict)
    downstream: dict[str, DownstreamSettings] = field(default_factory=dict)
    dynamics: dict[str, DynamicsSettings] = field(default_factory=dict)
    comparisons: dict[str, ComparisonSettings] = field(default_factory=dict)
    cross_tasks: dict[str, CrossTaskSettings] = field(default_factory=dict)
    directprobe: dict[str, DirectprobeSettings] = field(default_factory=dict)
    hidden: HiddenSettings = field(default_factory=HiddenSettings)
    infodynamics: InfodynamicsSettings = field(default_factory=InfodynamicsSettings)
    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    hulls: HullsSettings = field(default_factory=HullsSettings)
    probes: ProbesSettings = field(default_factory=ProbesSettings)
    convergence: ConvergenceSettings = field(default_factory=ConvergenceSettings)
    edges: EdgesSettings = field(default_factory=EdgesSettings)
    cloze: ClozeSettings = field(default_factory=ClozeSettings)
    predictions: PredictionsSettings = field(default_factory=PredictionsSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    features: FeaturesSettings = field(default_factory=FeaturesSettings)
    kernel: KernelSettings = field(default_factory=KernelSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)

    def __post_init__(self) -> None:
        models = {**self.pretrain, **self.adapt, **self.models, **self.model_folders}
        tasks = {**self.tasks, **self.task_files}
        for section, names in (("models", models), ("tasks", tasks), ("methods", self.methods)):
            for name in names:
                require(is_slug(name), f"{section}: {name!r} cannot name a folder; use lower-case letters, digits, "
                                       "dots and hyphens")
        require(not {"world", "pretrain"} & set(tasks),
                "tasks: 'world' and 'pretrain' name folders of finetrace itself; choose another name")
        paths = [("model_folders", "models", name, entry.path) for name, entry in self.model_folders.items()]
        paths += [("tasks", "data", name, entry.path) for name, entry in tasks.items() if entry.path]
        for section, folder, name, path in paths:
            require(not PurePath(normpath(path)).is_relative_to(f"{folder}/{name}"),
                    f"{section}: {name}: path {path} lies in {folder}/{name}, which the result replaces; move it, "
                    f"e.g. to sources/{name}")
        require(len(tasks) == len(self.tasks) + len(self.task_files),
                "a task's name stands in both tasks and task_files; rename one")
        for section, items in (("cells", self.cells), ("trajectories", self.trajectories)):
            for key, item in items.items():
                for what, name, known in (("model", item.model, models), ("task", item.task, tasks),
                                          ("method", item.method, self.methods)):
                    require(name in known, f"{section}.{key}.{what}: {name!r} is not defined; known: "
                                           f"{', '.join(known) or 'none'}")
                right = _key(item)
                require(key == right, f"{section}.{key}: is called {right} by its own content; rename the key to "
                                      f"{right}")
        for trajectory in self.trajectories.values():
            cell = f"{trajectory.model}_{trajectory.task}_{trajectory.method}"
            require(cell in self.cells, f"trajectories: the cell {cell} is missing; add to cells:  {cell}: "
                    f"{{model: {trajectory.model}, task: {trajectory.task}, method: {trajectory.method}}}")
        for section in LOOKED_AT:
            for key, item in getattr(self, section).items():
                require(self.trajectories.get(key) == item, f"{section}.{key}: is not the trajectory of that name; copy its line "
                                                            "from trajectories")
        for name, comparison in self.comparisons.items():
            require(is_slug(name), f"comparisons: {name!r} cannot name a folder; use lower-case letters, digits, dots, hyphens")
            for side, key in zip(("first", "second"), comparison.trajectories, strict=True):
                require(key in self.inspected, f"comparisons.{name}.{side}: the trajectory {key} is not in inspected; there are: "
                                               f"{', '.join(self.inspected) or 'none'}")
            tasks_of = [self.trajectories[key].task for key in comparison.trajectories]
            require(tasks_of[0] == tasks_of[1], f"comparisons.{name}: its trajectories are on different tasks "
                                                f"({tasks_of[0]}, {tasks_of[1]}); name two on one task")
        for section, named in (("cross_tasks", self.cross_tasks), ("directprobe", self.directprobe)):
            for name in named:
                require(is_slug(name), f"{section}: {name!r} cannot name a folder; use lower-case letters, digits, dots, hyphens")
        for name, cross in self.cross_tasks.items():
            require(cross.trajectory in self.trajectories, f"cross_tasks.{name}.tuned: {cross.trajectory} is not in "
                                                           f"trajectories; there are: {', '.join(self.trajectories) or 'none'}")
            require(cross.task in tasks, f"cross_tasks.{name}.task: {cross.task!r} is not defined; known: "
                                         f"{', '.join(tasks) or 'none'}")
        check_places(self, tasks)
        for name in self.probes.by_model:
            require(name in models, f"probes.by_model.{name}: is not a model; known: {', '.join(models) or 'none'}")
        changed = [("by_task", list(self.by_task), list(tasks)), ("by_model", list(self.by_model), list(models))]
        changed += [(f"methods.{name}.by_task", list(method.by_task or {}), list(tasks)) for name, method in self.methods.items()]
        for section, keys, defined in changed:
            for name in keys:
                require(name in defined, f"{section}.{name}: is not defined; known: {', '.join(defined) or 'none'}")

    def task(self, name: str) -> TaskSettings:
        """The settings of a task, wherever it is defined."""
        return self.tasks[name] if name in self.tasks else self.task_files[name]

    def standalone(self) -> list[tuple[str, str, str]]:
        """Stage, name and description of the results that belong to no single trajectory, as the atlas and MLflow show them."""
        return [*(("dynamics", name, f"Learning dynamics {name}: {', '.join(one.original)}"
                                     f"{' and what adaptation did' if one.adapted else ''}.")
                  for name, one in self.dynamics.items()),
                *(("downstream", name, f"Downstream {name}: {one.task} learned from each checkpoint of {one.trajectory}.")
                  for name, one in self.downstream.items()),
                *(("comparison", name, f"Comparison {name}: {one.first} and {one.second}.")
                  for name, one in self.comparisons.items()),
                *(("cross-task", name, f"Cross-task effect {name}: classes of {one.task} before and after {one.tuned}.")
                  for name, one in self.cross_tasks.items()),
                *(("directprobe", name, f"Hull probe {name}: {one.config}.") for name, one in self.directprobe.items())]

    def train_settings(self, cell: Cell, where: str = "params.yaml") -> TrainSettings:
        """The study's own numbers for a cell: train, then by_model, by_task, the method's changes, and its changes for
        the task."""
        layers = {"train": as_dict(self.train), f"by_model.{cell.model}": self.by_model.get(cell.model),
                  f"by_task.{cell.task}": self.by_task.get(cell.task),
                  f"methods.{cell.method}.train": self.methods[cell.method].train,
                  f"methods.{cell.method}.by_task.{cell.task}": (self.methods[cell.method].by_task or {}).get(cell.task)}
        values: dict[str, Any] = {}
        for changes in layers.values():
            values |= changes or {}
        try:
            return parse(TrainSettings, values, where)
        except FinetraceError:
            values = {}
            for place, changes in layers.items():  # name the place that first makes them wrong
                values |= changes or {}
                parse(TrainSettings, values, f"{where}: {place}")
            raise


def load_study(path: Path) -> Study:
    """Read params.yaml. Raises FinetraceError naming file, key and fix."""
    import yaml

    try:
        content = load_yaml(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise FinetraceError(f"{path}: not found; run this in the project folder") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FinetraceError(f"{path}: not valid YAML: {error}") from error
    return parse_study(content, path.name)


def parse_study(content: Any, where: str) -> Study:
    """Check a study given as plain values; `where` is named in messages."""
    if not isinstance(content, dict):
        raise FinetraceError(f"{where}: is empty or not a mapping; start from studies/")
    study = parse(Study, {k: _filled(v) if k in NAMED else v for k, v in content.items() if v is not None}, where)
    known = TrainSettings.__dataclass_fields__
    for place, changes in (*((f"by_model.{m}", c) for m, c in study.by_model.items()),
                           *((f"by_task.{t}", c) for t, c in study.by_task.items()),
                           *((f"methods.{m}.train", s.train or {}) for m, s in study.methods.items()),
                           *((f"methods.{m}.by_task.{t}", c) for m, s in study.methods.items()
                             for t, c in (s.by_task or {}).items())):
        if unknown := {k: v for k, v in changes.items() if k not in known}:  # also where no cell uses them
            parse(TrainSettings, unknown, f"{where}: {place}")
    for key, cell in study.cells.items():
        try:
            study.train_settings(cell, where)
        except FinetraceError as error:
            raise FinetraceError(f"{error} (for cell {key})") from None
    return study


def _filled(section: Any) -> Any:
    """`sst2:` with nothing after it is an entry without changes."""
    if isinstance(section, dict):
        return {k: {} if v is None else v for k, v in section.items()}
    return section


def _key(item: Cell) -> str:
    parts = [item.model, item.task, item.method]
    if isinstance(item, Trajectory):
        parts.append(f"s{item.seed}")
    return "_".join(parts)



"""params.yaml as typed, frozen settings, with what follows from it: the trajectories, and which lens looks where."""

from dataclasses import field
from functools import cached_property
from itertools import product
from typing import Any

from finetrace.config.base import as_dict, parse, require, settings
from finetrace.config.compute import ComputeSettings
from finetrace.config.corpora import CorpusSettings
from finetrace.config.data import FilesTaskSettings, TaskSettings, target_of
from finetrace.config.downstream import DownstreamSettings
from finetrace.config.facts import FactFilesSettings, FactsSettings
from finetrace.config.hidden import HiddenSettings
from finetrace.config.minimal_pairs import MinimalPairFilesSettings, MinimalPairsSettings
from finetrace.config.models import AdaptSettings, FolderModelSettings, HubModelSettings, PretrainSettings
from finetrace.config.predictions import PredictionsSettings
from finetrace.config.series import SeriesSettings
from finetrace.config.tracking import TrackingSettings
from finetrace.config.training import MethodSettings, RecordSettings, TrainSettings, TuneSettings
from finetrace.config.world import WorldSettings
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError
from finetrace.lenses.cloze.settings import ClozeSettings
from finetrace.lenses.comparison.settings import ComparisonSettings
from finetrace.lenses.cross_task.settings import CrossTaskSettings
from finetrace.lenses.directprobe.settings import DirectprobeSettings
from finetrace.lenses.dynamics.settings import DynamicsSettings
from finetrace.lenses.pairs.settings import PairsSettings
from finetrace.study.look import LENSES, LensSections, Looked, who_looks

NAMED = ("pretrain", "series", "adapt", "models", "model_folders", "tasks", "task_files", "corpora", "facts",
         "fact_files", "minimal_pairs", "minimal_pair_files", "by_task", "by_model", "methods", "downstream",
         "dynamics", "comparisons", "cross_tasks", "directprobe")
"""Sections of named entries."""
GIVEN = "given"
"""Stands for the method of checkpoints that were made elsewhere."""


@settings
class StudySettings:
    """The study's name and its one seed."""

    name: str
    """Names the MLflow experiment."""
    seed: int = 0
    """Every random choice derives from it."""

    def __post_init__(self) -> None:
        require(any(c.isalnum() and c.isascii() for c in self.name) and self.name == self.name.strip(),
                f"name: {self.name!r} cannot name an experiment; use letters, digits, dots and hyphens")


@settings
class Runs:
    """Fine-tunings: every model with every task, method and seed that stands here."""

    model: str | tuple[str, ...]
    """Models of `pretrain`, `adapt`, `models` or `model_folders`."""
    task: str | tuple[str, ...]
    """Tasks of `tasks` or `task_files`."""
    method: str | tuple[str, ...] = "ft"
    """Methods: ft, lp, lp-ft, lora, lp-lora, or those of `methods`."""
    seed: int | tuple[int, ...] = 1
    """Tell repetitions apart; head, order and dropout derive from them and the study's seed."""

    def __post_init__(self) -> None:
        for key in ("models", "tasks", "methods", "seeds"):
            require(bool(getattr(self, key)), f"{key.removesuffix('s')}: names nothing")
        require(min(self.seeds) >= 0, f"seed: {list(self.seeds)} holds a negative number")

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,) if isinstance(self.model, str) else self.model

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else self.task

    @property
    def methods(self) -> tuple[str, ...]:
        return (self.method,) if isinstance(self.method, str) else self.method

    @property
    def seeds(self) -> tuple[int, ...]:
        return (self.seed,) if isinstance(self.seed, int) else self.seed


@settings
class Cell:
    """One model x task x method: what a search for settings is about."""

    model: str
    task: str
    method: str

    @property
    def key(self) -> str:
        """Its name among stage items; names of models, tasks and methods hold no underscore."""
        return f"{self.model}_{self.task}_{self.method}"


@settings
class Run(Cell):
    """One fine-tuning."""

    seed: int = 1

    @property
    def key(self) -> str:
        return place_key(self.place)

    @property
    def place(self) -> str:
        """Its folder in outputs, its name everywhere."""
        return f"{self.model}/{self.task}/{self.method}/s{self.seed}"

    @property
    def cell(self) -> Cell:
        return Cell(self.model, self.task, self.method)


def place_key(place: str) -> str:
    """A place as the name of a stage item."""
    return place.replace("/", "_")


@settings
class Study(LensSections):
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
    minimal_pairs: dict[str, MinimalPairsSettings] = field(default_factory=dict)
    minimal_pair_files: dict[str, MinimalPairFilesSettings] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)
    by_task: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_model: dict[str, dict[str, Any]] = field(default_factory=dict)
    record: RecordSettings = field(default_factory=RecordSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)
    methods: dict[str, MethodSettings] = field(default_factory=dict)
    runs: tuple[Runs, ...] = ()
    look: dict[str, Any] | None = None
    downstream: dict[str, DownstreamSettings] = field(default_factory=dict)
    dynamics: dict[str, DynamicsSettings] = field(default_factory=dict)
    comparisons: dict[str, ComparisonSettings] = field(default_factory=dict)
    cross_tasks: dict[str, CrossTaskSettings] = field(default_factory=dict)
    directprobe: dict[str, DirectprobeSettings] = field(default_factory=dict)
    hidden: HiddenSettings = field(default_factory=HiddenSettings)
    predictions: PredictionsSettings = field(default_factory=PredictionsSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)

    def __post_init__(self) -> None:
        kinds = {kind: MethodSettings(kind=kind) for kind in ("ft", "lp", "lp-ft", "lora", "lp-lora")}
        object.__setattr__(self, "methods", kinds | self.methods)

    @cached_property
    def trajectories(self) -> dict[str, Run]:
        """The fine-tunings by their key, sorted by model, task and method as first named, then by seed."""
        runs = [Run(*names) for entry in self.runs
                for names in product(entry.models, entry.tasks, entry.methods, entry.seeds)]
        first = [list(dict.fromkeys(getattr(run, part) for run in runs)) for part in ("model", "task", "method")]
        runs.sort(key=lambda r: (first[0].index(r.model), first[1].index(r.task), first[2].index(r.method), r.seed))
        return {run.key: run for run in runs}

    @cached_property
    def given(self) -> dict[str, Run]:
        """The series that are looked at with a task, as trajectories by their key."""
        runs = [Run(name, task, GIVEN) for name, entry in self.series.items() for task in entry.looked_at_with]
        return {run.key: run for run in runs}

    @cached_property
    def on_tasks(self) -> dict[str, Run]:
        """All trajectories on a task by their key: fine-tunings, then given ones."""
        return self.trajectories | self.given

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The cells of the fine-tunings by their key, in their order."""
        return {run.cell.key: run.cell for run in self.trajectories.values()}

    @cached_property
    def places(self) -> dict[str, str]:
        """Every trajectory by its place -> its kind: pre-training, adaptation, fine-tuning, or given."""
        return {
            **{f"{name}/pretrain": "pre-training" for name, entry in self.pretrain.items() if entry.steps},
            **{f"{name}/pretrain": "pre-training" for name in self.series},
            **{f"{name}/adapt": "adaptation" for name in self.adapt},
            **{run.place: "fine-tuning" for run in self.trajectories.values()},
            **{run.place: self._kind_given(run) for run in self.given.values()},
        }

    @property
    def masked(self) -> list[str]:
        """Places of masked-word trainings."""
        return [place for place, kind in self.places.items() if kind in ("pre-training", "adaptation")]

    @property
    def shown(self) -> list[str]:
        """Those that the atlas and MLflow show: a series that is looked at with tasks alone has its places there."""
        looked = {place for places in self.looked.values() for place in places}
        with_tasks = {f"{name}/pretrain" for name, entry in self.series.items() if entry.looked_at_with}
        return [place for place in self.masked if place in looked or place not in with_tasks]

    def _kind_given(self, run: Run) -> str:
        entry = self.series[run.model]
        return "given with signals" if entry.signals else "given with head" if run.task in entry.heads else "given"

    @cached_property
    def looked(self) -> Looked:
        """Lens -> place -> its settings there. Raises ValueError for what `look` names wrongly."""
        by_lens = {name: getattr(self, name, None) for name in LENSES}  # a lens need not have settings
        if not self.cloze.facts and len(sets := [*self.facts, *self.fact_files]) == 1:
            by_lens["cloze"] = parse(ClozeSettings, {**as_dict(self.cloze), "facts": sets[0]}, "params.yaml: cloze")
        if not self.pairs.set and len(sets := [*self.minimal_pairs, *self.minimal_pair_files]) == 1:
            by_lens["pairs"] = parse(PairsSettings, {**as_dict(self.pairs), "set": sets[0]}, "params.yaml: pairs")
        targets = {run.place: self.target(run.task) for run in self.on_tasks.values()}
        without = {place: target for place, target in targets.items() if target != "class"}
        return who_looks(self.look, self.places, by_lens, without)

    @property
    def models_named(self) -> list[str]:
        """Names that `runs` can use as models."""
        return [*self.pretrain, *self.adapt, *self.models, *self.model_folders]

    def task(self, name: str) -> TaskSettings:
        """The settings of a task, wherever it is defined."""
        return self.tasks[name] if name in self.tasks else self.task_files[name]

    def target(self, name: str) -> str:
        """What is predicted: class, regression or multi-label; class where the plan refuses the definition."""
        try:
            return target_of(resolve(name, self.task(name)))
        except (FinetraceError, KeyError):
            return "class"

    def standalone(self) -> list[tuple[str, str, str]]:
        """Stage, name and description of the results that belong to no single trajectory, as the atlas and MLflow
        show them."""
        return [
            *(
                (
                    "dynamics",
                    name,
                    f"Learning dynamics {name}: {', '.join(entry.original)}"
                    f"{' and what adaptation did' if entry.adapted else ''}.",
                )
                for name, entry in self.dynamics.items()
            ),
            *(
                (
                    "downstream",
                    name,
                    f"Downstream {name}: {entry.task} learned from each checkpoint of {entry.trajectory}.",
                )
                for name, entry in self.downstream.items()
            ),
            *(
                ("comparison", name, f"Comparison {name}: {entry.first} and {entry.second}.")
                for name, entry in self.comparisons.items()
            ),
            *(
                ("cross-task", name,
                 f"Cross-task effect {name}: classes of {entry.task} before and after {entry.tuned}.")
                for name, entry in self.cross_tasks.items()
            ),
            *(("directprobe", name, f"Hull probe {name}: {entry.config}.") for name, entry in self.directprobe.items()),
        ]

    def train_settings(self, cell: Cell, where: str = "params.yaml") -> TrainSettings:
        """The study's own numbers for a cell: train, then by_model, by_task, the method's changes, and its changes
        for the task."""
        method = self.methods[cell.method]
        layers = {
            "train": as_dict(self.train),
            f"by_model.{cell.model}": self.by_model.get(cell.model),
            f"by_task.{cell.task}": self.by_task.get(cell.task),
            f"methods.{cell.method}.train": method.train,
            f"methods.{cell.method}.by_task.{cell.task}": (method.by_task or {}).get(cell.task),
        }
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

"""Settings of tasks: where rows come from and what they mean."""

from typing import Literal

from finetrace.config.base import require, settings

Metric = Literal["accuracy", "f1", "matthews", "macro_f1"]
Kind = Literal["sequence", "pair"]
SPLITS = ("train", "validation", "test")


@settings
class TaskSettings:
    """A task: a name of the registry (`src/finetrace/data/tasks/*.yaml`) with changes, or a definition of one's own."""

    source: Literal["registry", "hub", "micro", "files"] = "registry"
    """Where rows come from; `registry` takes the entry of the task's own name (or of `like`)."""
    like: str | None = None
    """The registry entry to start from, when the task's name is not one."""
    id: str | None = None
    """Hub data set, e.g. nyu-mll/glue (source: hub)."""
    config: str | None = None
    """Configuration of the hub data set, e.g. sst2."""
    revision: str | None = None
    """Commit, branch or tag of the hub data set; a commit makes the study reproducible for ever."""
    path: str | None = None
    """File or folder with the rows (source: files); relative to the project folder."""
    format: Literal["csv", "tsv", "jsonl", "parquet"] | None = None
    """Format of the files; by default their extension says."""
    quoting: Literal["standard", "none"] | None = None
    """CSV quoting; by default `standard` for csv and `none` for tsv (as GLUE's files are)."""
    encoding: str = "utf-8"
    """Text encoding of csv, tsv and jsonl files; a byte-order mark is accepted."""
    splits: dict[str, str] | None = None
    """Our split -> the source's split or file name, e.g. {validation: validation_matched}."""
    kind: Kind | None = None
    """One text or a pair of texts; by default the number of `text` columns says."""
    text: tuple[str, ...] | None = None
    """Source columns with the text, or with the two texts."""
    label: str | None = None
    """Source column with the label."""
    label_names: tuple[str, ...] | None = None
    """Names of the classes in the order of their numbers."""
    label_values: dict[str, str] | None = None
    """Value in the source (as text) -> label name, when the source has neither the numbers nor the names."""
    id_column: str | None = None
    """Source column with a unique row id; without it rows are known by their number."""
    metric: Metric | None = None
    """The metric by which runs are compared; all metrics are recorded."""
    max_rows: dict[str, int] | None = None
    """Split -> largest number of rows; a seeded random choice, kept in source order."""
    holdout: float = 0.0
    """Share of train rows set aside as validation when the source has no validation split."""

    def __post_init__(self) -> None:
        for split in [*(self.splits or {}), *(self.max_rows or {})]:
            require(split in SPLITS, f"split {split!r} is not one of {', '.join(SPLITS)}")
        for split, rows in (self.max_rows or {}).items():
            require(rows >= 1, f"max_rows.{split}: {rows} is less than 1")
        require(0.0 <= self.holdout < 1.0, f"holdout: {self.holdout} is not in [0, 1)")
        require(self.text is None or len(self.text) in (1, 2), "text: give one column, or two for a pair task")
        require(self.text is None or self.kind is None or len(self.text) == {"sequence": 1, "pair": 2}[self.kind],
                f"kind: {self.kind} does not fit {len(self.text or ())} text column(s); a pair has two, a sequence one")
        require(self.label_names is None or len(set(self.label_names)) == len(self.label_names),
                "label_names: a name stands twice")


@settings
class FilesTaskSettings(TaskSettings):
    """A task from local files: `path` is a dependency of its stage, so that a change of the files is noticed."""

    source: Literal["files"] = "files"
    path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path: name the file or folder with the rows")

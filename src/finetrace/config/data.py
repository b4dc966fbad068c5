"""Settings of tasks: where rows come from and what they mean."""

from typing import Literal

from finetrace.config.base import require, settings

Metric = Literal["accuracy", "f1", "matthews", "macro_f1"]
Kind = Literal["sequence", "pair", "token", "span", "span-pair"]
SPLITS = ("train", "validation", "test")
SPANS = {"sequence": 0, "pair": 0, "token": 1, "span": 1, "span-pair": 2}
"""Kind -> marked spans of words per example."""
LABELS = {"conllu": ("upos", "xpos", "deprel"), "streusle": ("role", "function"), "trec": ("coarse", "fine")}
"""Format of annotated files -> the labels that it carries."""
ANNOTATED = (*LABELS, "spans")
"""Formats that have no columns to choose from: what they hold follows from the format."""


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
    format: Literal["csv", "tsv", "jsonl", "parquet", "conllu", "streusle", "trec", "spans"] | None = None
    """Format of the files; by default their extension says (csv, tsv, jsonl, parquet only)."""
    quoting: Literal["standard", "none"] | None = None
    """CSV quoting; by default `standard` for csv and `none` for tsv (as GLUE's files are)."""
    encoding: str = "utf-8"
    """Text encoding of csv, tsv and jsonl files; a byte-order mark is accepted."""
    splits: dict[str, str] | None = None
    """Our split -> the source's split or file name, e.g. {validation: validation_matched}."""
    kind: Kind | None = None
    """One text, a pair of texts, a word (token), marked words (span) or two of them (span-pair); by default the columns or the
    format say."""
    text: tuple[str, ...] | None = None
    """Source columns with the text, or with the two texts."""
    label: str | None = None
    """Source column with the label; conllu: upos, xpos or deprel; streusle: role or function; trec: coarse or fine."""
    label_names: tuple[str, ...] | None = None
    """Names of the classes in the order of their numbers."""
    label_values: dict[str, str] | None = None
    """Value in the source (as text) -> label name, when the source has neither the numbers nor the names."""
    id_column: str | None = None
    """Source column with a unique row id; without it rows are known by their number."""
    metric: Metric | None = None
    """The metric by which runs are compared; all metrics are recorded."""
    max_rows: dict[str, int] | None = None
    """Split -> largest number of rows, or of sentences in tasks of words; kept in source order."""
    choose: Literal["random", "first"] = "random"
    """Which rows or sentences `max_rows` keeps: a seeded random choice, or the first."""
    max_words: int | None = None
    """Tasks of words: longer sentences are left out (and counted in the manifest)."""
    pair_order: Literal["head-dependent", "dependent-head"] = "head-dependent"
    """Dependency relations: whose vector comes first."""
    subtypes: bool = True
    """Dependency relations: whether they keep their subtype (obl:npmod) or lose it (obl)."""
    multiword: bool = False
    """STREUSLE: whether prepositions of several adjacent words are examples too."""
    holdout: float = 0.0
    """Share of train rows set aside as validation when the source has no validation split."""

    def __post_init__(self) -> None:
        for split in [*(self.splits or {}), *(self.max_rows or {})]:
            require(split in SPLITS, f"split {split!r} is not one of {', '.join(SPLITS)}")
        for split, rows in (self.max_rows or {}).items():
            require(rows >= 1, f"max_rows.{split}: {rows} is less than 1")
        require(0.0 <= self.holdout < 1.0, f"holdout: {self.holdout} is not in [0, 1)")
        require(self.text is None or len(self.text) in (1, 2), "text: give one column, or two for a pair task")
        require(self.text is None or self.kind is None or len(self.text) == {"sequence": 1, "pair": 2}.get(self.kind),
                f"kind: {self.kind} does not fit {len(self.text or ())} text column(s); a pair has two, a sequence one, and "
                "tasks of words need `format` conllu, streusle or spans")
        require(self.label_names is None or len(set(self.label_names)) == len(self.label_names),
                "label_names: a name stands twice")
        require(self.max_words is None or self.max_words >= 1, f"max_words: {self.max_words} is less than 1")
        if self.format in ANNOTATED:
            self._check_annotated()

    def _check_annotated(self) -> None:
        """A format without columns takes no settings about columns, and only the labels that it carries."""
        require(self.source in ("registry", "files"), f"format: {self.format} is for source: files, not {self.source}")
        for key in ("text", "id_column", "quoting"):
            require(getattr(self, key) is None, f"{key}: files of format {self.format} have no columns; remove {key}")
        labels = LABELS.get(str(self.format), ("label",))
        require(self.label in (None, *labels), f"label: {self.label!r} is not in files of format {self.format}; choose "
                                               f"{' or '.join(labels)}")
        kinds = {"conllu": ("span-pair",) if self.label == "deprel" else ("token",), "streusle": ("span",), "trec": ("sequence",),
                 "spans": ("token", "span", "span-pair")}[str(self.format)]
        require(self.kind in (None, *kinds), f"kind: {self.kind} does not fit format {self.format} with label {self.label}; "
                                             f"choose {' or '.join(kinds)}, or remove kind")


@settings
class FilesTaskSettings(TaskSettings):
    """A task from local files: `path` is a dependency of its stage, so that a change of the files is noticed."""

    source: Literal["files"] = "files"
    path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path: name the file or folder with the rows")

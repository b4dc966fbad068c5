"""Settings of tasks: where rows come from and what they mean."""

from os.path import normpath
from pathlib import PurePath
from string import Formatter
from typing import Any, Literal

from finetrace.config.base import parse, require, settings
from finetrace.errors import FinetraceError
from finetrace.layout import is_slug

Metric = Literal["accuracy", "f1", "matthews", "macro_f1", "entity_f1", "pearson", "spearman", "micro_f1"]
Target = Literal["class", "regression", "multi-label"]
METRICS: dict[str, tuple[Metric, ...]] = {
    "class": ("accuracy", "f1", "matthews", "macro_f1", "entity_f1"), "regression": ("pearson", "spearman"),
    "multi-label": ("micro_f1", "macro_f1")}
"""What is predicted of an example -> the metrics by which runs can be compared, the usual one first."""
Kind = Literal["sequence", "pair", "token", "span", "span-pair"]
SPLITS = ("train", "validation", "test")
SPANS = {"sequence": 0, "pair": 0, "token": 1, "span": 1, "span-pair": 2}
"""Kind -> marked spans of words per example."""
LABELS = {"conllu": ("upos", "xpos", "deprel"), "streusle": ("role", "function"), "trec": ("coarse", "fine"),
          "bio": ("tag", "entity"), "ontonotes": ("pos", "constituents", "nonterminals", "ner", "srl", "coref")}
"""Format of annotated files -> the labels that it carries, of which a task takes one."""
ANNOTATED = (*LABELS, "spans", "pubmed", "edges", "semeval", "dpr", "spr1", "spr2")
"""Formats that have no columns to choose from: what they hold follows from the format."""
_MARKED = ("token", "span", "span-pair")
_KINDS: dict[str, tuple[str, ...] | dict[str, str]] = {
    "bio": {"tag": "token", "entity": "span"},
    "conllu": {"upos": "token", "xpos": "token", "deprel": "span-pair"}, "streusle": ("span",), "trec": ("sequence",),
    "spans": _MARKED, "pubmed": ("sequence",), "edges": _MARKED, "semeval": ("span-pair",), "dpr": ("span-pair",),
    "spr1": ("span-pair",), "spr2": ("span-pair",),
    "ontonotes": {"pos": "token", "constituents": "span", "nonterminals": "span", "ner": "span", "srl": "span-pair",
                  "coref": "span-pair"}}
"""Format -> the kinds that its examples can be of, or label -> the one kind of its examples."""


def format_kinds(form: str, label: str | None) -> tuple[str, ...]:
    """The kinds that examples of an annotated format can be of; one where format and label settle it."""
    kinds = _KINDS[form]
    if isinstance(kinds, tuple):
        return kinds
    return (kinds[label],) if label in kinds else tuple(dict.fromkeys(kinds.values()))


@settings
class RowsSettings:
    """Rows with labels: a name of the registry (`src/finetrace/data/tasks/*.yaml`) with changes,
    or a definition of one's own."""

    LATER = ("target", "labels", "files", "group")
    """Keys that came after results had been made (`config.written`)."""

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
    format: Literal["csv", "tsv", "jsonl", "parquet", "conllu", "streusle", "trec", "spans", "pubmed", "edges",
                    "semeval", "dpr", "spr1", "spr2", "ontonotes", "bio"] | None = None
    """Format of the files; by default their extension says (csv, tsv, jsonl, parquet only)."""
    quoting: Literal["standard", "none"] | None = None
    """CSV quoting; by default `standard` for csv and `none` for tsv (as GLUE's files are)."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of csv and tsv files whose first line is a row already, e.g. [source, label, mark,
    sentence]."""
    encoding: str | None = None
    """Text encoding of files other than Parquet, by default utf-8; a byte-order mark is accepted."""
    splits: dict[str, str] | None = None
    """Our split -> the source's split or file name, e.g. {validation: validation_matched}."""
    files: dict[str, dict[str, str]] | None = None
    """Files side by side with one value per line, instead of `splits`: our split -> column -> file, e.g.
    {train: {premise: s1.train, hypothesis: s2.train, label: labels.train}}."""
    kind: Kind | None = None
    """One text, a pair of texts, a word (token), marked words (span) or two of them (span-pair); by default the columns
    or the format say."""
    text: tuple[str, ...] | None = None
    """Source columns with the text, or with the two texts."""
    template: tuple[str, ...] | None = None
    """Instead of `text`: one or two texts with source columns in braces, e.g. ["{word}: {sentence1}"];
    {{ and }} are braces."""
    prepare: Literal["wsc-mark", "record"] | None = None
    """What is done to rows before, where a template is not enough: wsc-mark adds the column `marked`, the text with the
    pronoun between asterisks; record makes one row per entity, with that entity in `query`
    and whether it answers in `label`."""
    lowercase: bool | None = None
    """Whether texts are made lower-case; by default not."""
    label: str | None = None
    """Source column with the label; conllu: upos, xpos or deprel; streusle: role or function; trec: coarse or fine;
    ontonotes: pos, constituents, nonterminals, ner, srl or coref; bio: tag (of every word) or entity (their spans).
    With target: multi-label a column of lists."""
    target: Target | None = None
    """What is predicted of an example: one `class` of several (the default), a number (`regression`), or any number of
    classes (`multi-label`; the default where `labels` is given)."""
    labels: tuple[str, ...] | None = None
    """Instead of `label`: source columns that are 1 where an example has the class of their name, else 0."""
    label_names: tuple[str, ...] | None = None
    """Names of the classes in the order of their numbers."""
    label_values: dict[str, str | None] | None = None
    """Value in the source (as text), or name of a class there -> label name;
    null leaves such rows out (and counts them)."""
    label_ranges: dict[str, tuple[float | None, float | None]] | None = None
    """Label name -> smallest number and the number that is too large (null: none), for labels that are scores; other
    rows are left out (and counted), e.g. {negative: [null, 0.2], positive: [0.8, null]}."""
    group: str | None = None
    """Source column, e.g. patient, whose values lie in one split each: the source's own splits may share none, and
    `holdout` sets whole groups aside."""
    id_column: str | None = None
    """Source column with a unique row id; without it rows are known by their number."""
    max_rows: dict[str, int] | None = None
    """Split -> largest number of rows, or of sentences in tasks of words; kept in source order."""
    choose: Literal["random", "first"] = "random"
    """Which rows or sentences `max_rows` keeps: a seeded random choice, or the first."""
    max_words: int | None = None
    """Tasks of words: longer sentences are left out (and counted in the manifest)."""
    pair_order: Literal["head-dependent", "dependent-head"] | None = None
    """Dependency relations: whose vector comes first, by default the head's."""
    roots: bool | None = None
    """Dependency relations: whether roots are examples too, with themselves in the place of their head;
    by default not."""
    conllu_parity: bool | None = None
    """CoNLL-U: whether to leave out (and count) what edge probing's original converter lost: sentences with an empty
    node, and the last sentence of each file; by default not."""
    spr_parity: bool | None = None
    """SPR1: whether the last response to a property decides, as in edge probing's original converter, and not the mean
    of the responses; by default not."""
    subtypes: bool = True
    """Dependency relations: whether they keep their subtype (obl:npmod) or lose it (obl)."""
    multiword: bool = False
    """STREUSLE: whether prepositions of several adjacent words are examples too."""

    def __post_init__(self) -> None:
        for split in [*(self.splits or {}), *(self.max_rows or {})]:
            require(split in SPLITS, f"split {split!r} is not one of {', '.join(SPLITS)}")
        for split, rows in (self.max_rows or {}).items():
            require(rows >= 1, f"max_rows.{split}: {rows} is less than 1")
        require(self.text is None or self.template is None, "template: takes the place of text; remove one of them")
        texts = self.text if self.template is None else self.template
        require(texts is None or len(texts) in (1, 2), "text: give one column, or two for a pair task"
                if self.template is None
                else "template: give one text, or two for a pair task")
        require(texts is None or self.kind is None or len(texts) == {"sequence": 1, "pair": 2}.get(self.kind),
                f"kind: {self.kind} does not fit {len(texts or ())} text column(s); a pair has two, a "
                "sequence one, and tasks of words need `format` conllu, streusle, spans or edges")
        for template in self.template or ():
            require(bool(template_columns(template)), f"template: {template!r} names no column; write columns in "
                    "braces, e.g. "
                                                      "{sentence}")
        require(self.columns is None or self.format in (None, "csv", "tsv"),
                f"columns: is for csv and tsv files, not for format: {self.format}; remove columns")
        require(self.columns is None or (bool(self.columns) and len(set(self.columns)) == len(self.columns)),
                "columns: names none, or one twice; name every column of the file once, in their order")
        require(self.label_values is None or self.label_ranges is None,
                "label_ranges: cannot stand beside label_values")
        for name, (low, high) in (self.label_ranges or {}).items():
            require(low is None or high is None or low < high, f"label_ranges.{name}: {low} is not below {high}")
        require(self.label_names is None or len(set(self.label_names)) == len(self.label_names),
                "label_names: a name stands twice")
        require(self.max_words is None or self.max_words >= 1, f"max_words: {self.max_words} is less than 1")
        self._check_target()
        self._check_files()
        if self.format in ANNOTATED:
            self._check_annotated()

    def _check_target(self) -> None:
        """What is predicted, and the keys that say how it stands in the source."""
        require(self.labels is None or self.target in (None, "multi-label"),
                f"labels: is for target: multi-label, not {self.target}; remove one of them")
        require(self.labels is None or (self.label is None and self.label_names is None),
                "labels: takes the place of label and label_names; remove them")
        require(self.labels is None or len(set(self.labels)) == len(self.labels) > 1,
                "labels: names fewer than two columns, or one twice; one column is `label`")
        for key in ("label_names", "label_values", "label_ranges"):
            require(self.target != "regression" or getattr(self, key) is None,
                    f"{key}: makes classes, and target: regression learns the numbers; remove one of them")
        require(self.target != "multi-label" or self.label_ranges is None,
                "label_ranges: makes one class of a number; with target: multi-label remove it")
        require(self.target != "regression" or self.format not in ANNOTATED,
                f"target: regression: files of format {self.format} hold names; remove target")

    def _check_files(self) -> None:
        """Files side by side have no other form."""
        if self.files is None:
            return
        for key in ("splits", "format", "columns", "quoting"):
            require(getattr(self, key) is None, f"files: names the files column by column; remove {key}")
        for split, columns in self.files.items():
            require(split in SPLITS, f"files.{split}: is not one of {', '.join(SPLITS)}")
            require(bool(columns), f"files.{split}: names no file; give column: file")

    def _check_annotated(self) -> None:
        """A format without columns takes no settings about columns, and only the labels that it carries."""
        require(self.source in ("registry", "files"), f"format: {self.format} is for source: files, not {self.source}")
        for key in ("text", "template", "prepare", "id_column", "quoting", "files", "labels", "group"):
            require(getattr(self, key) is None, f"{key}: files of format {self.format} have no columns; remove {key}")
        labels = LABELS.get(str(self.format), ("label",))
        require(self.label in (None, *labels), f"label: {self.label!r} is not in files of format {self.format}; choose "
                                               f"{' or '.join(labels)}")
        kinds = format_kinds(str(self.format), self.label)
        for key, value, formats in (("roots", self.roots, ("conllu",)),
                                    ("conllu_parity", self.conllu_parity, ("conllu",)),
                                    ("spr_parity", self.spr_parity, ("spr1",))):
            require(not value or self.format in formats, f"{key}: is for files of format {' or '.join(formats)}, not "
                                                         f"{self.format}; remove {key}")
        require(self.format != "bio" or None not in (self.label_values or {}).values(),
                "label_values: a word without a tag would break its entity; give the tag another name, or O")
        require(not self.roots or self.label in (None, "deprel"), "roots: is for label: deprel, not "
                f"{self.label}; remove roots")
        require(self.kind in (None, *kinds), f"kind: {self.kind} does not fit format {self.format} with label "
                f"{self.label}; choose {' or '.join(kinds)}, or remove kind")


def target_of(task: RowsSettings) -> Target:
    """What is predicted of an example of a resolved definition."""
    return task.target or ("multi-label" if task.labels else "class")


def template_columns(template: str) -> tuple[str, ...]:
    """The columns that a template names, in order of appearance.
    Raises ValueError for anything but plain names in braces."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template: {template!r}: {error}; a brace that is text is written twice") from None
    for _, column, form, conversion in parts:
        require(column is None or (column.strip() != "" and not (form or conversion or set(column) & set(".[]{}"))),
                f"template: {template!r}: {{{column}}} is not a plain column name; no formats, indices or attributes")
    return tuple(column for _, column, _, _ in parts if column is not None)


@settings
class OodSettings(RowsSettings):
    """A set out of distribution. Without `source` and `like` it starts from the definition of its task."""

    split: Literal["train", "validation", "test"] = "test"
    """Which split of its source is the set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(target_of(self) == "class", f"target: {target_of(self)}: only tasks of classes have sets out of "
                "distribution; remove it")
        require(self.group is None, "group: keeps the splits of a task apart; a set out of distribution has none")


@settings
class TaskSettings(RowsSettings):
    """A task: rows for training and evaluation."""

    metric: Metric | None = None
    """The metric by which runs are compared; all metrics are recorded."""
    holdout: float = 0.0
    """Share of train rows set aside as validation when the source has no validation split."""
    holdout_rows: Literal["random", "last"] | None = None
    """Which rows are set aside: a seeded random choice (default), or the last ones (their number rounded up)."""
    ood: dict[str, Any] | None = None
    """Name -> set out of distribution on which trained models are evaluated as well: keys as of a task, and `split`; or
    just the name of a built-in or micro task. Labels are matched by name;
    `label_values` maps or drops (null) what the task lacks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        target = target_of(self)
        require(self.metric is None or self.target is None or self.metric in METRICS[target],
                f"metric: {self.metric} is none of target: {target}; choose {' or '.join(METRICS[target])}")
        require(not self.ood or target == "class", f"ood: only tasks of classes have sets out of distribution, and "
                f"this one is target: {target}; remove ood")
        require(0.0 <= self.holdout < 1.0, f"holdout: {self.holdout} is not in [0, 1)")
        for name in self.ood or {}:
            require(is_slug(name) and name not in SPLITS, f"ood: {name!r} cannot name a set; use lower-case "
                    "letters, digits, dots and hyphens, but not train, validation or test")
        self.ood_sets()

    def ood_sets(self) -> dict[str, OodSettings]:
        """Name -> settings of the set as they stand, its short form written out. Raises ValueError naming the key."""
        try:
            return {name: parse(OodSettings, ood_keys(entry), f"ood.{name}")
                    for name, entry in (self.ood or {}).items()}
        except FinetraceError as error:
            raise ValueError(str(error)) from None


def ood_keys(entry: Any) -> Any:
    """The keys of a set: a name alone is short for `like`."""
    return {"like": entry} if isinstance(entry, str) else entry


@settings
class FilesTaskSettings(TaskSettings):
    """A task from local files: `path` is a dependency of its stage, so that a change of the files is noticed."""

    source: Literal["files"] = "files"
    path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path: name the file or folder with the rows")
        for name, entry in self.ood_sets().items():
            require(entry.path is None or PurePath(normpath(entry.path)).is_relative_to(normpath(self.path)),
                    f"ood.{name}.path: {entry.path} lies outside {self.path}, so that a change would not be "
                    "noticed; let the task's path be a folder that holds both, and name the files with `splits`")

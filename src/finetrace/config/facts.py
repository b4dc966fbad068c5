"""Settings of fact sets: what cloze probing asks for."""

from pathlib import PurePosixPath
from typing import Literal

from finetrace.config.base import require, settings

CorpusName = Literal["TREx", "Google_RE", "ConceptNet", "Squad"]


@settings
class FactsSettings:
    """Facts as cloze questions, in `data/NAME/facts.parquet`."""

    source: Literal["world"] = "world"
    """`world`: the micro world's own facts, held-out ones as a control."""
    templates: Literal["first", "all"] = "first"
    """Whether each fact is asked with the first template of its relation, or once with every template."""


@settings
class FactFilesSettings:
    """Facts from files in the format of LAMA (Petroni et al. 2019): relations.jsonl, TREx/P*.jsonl,
    Google_RE/*_test.jsonl, ConceptNet/test.jsonl, Squad/test.jsonl."""

    path: str
    """The folder; relative to the project folder."""
    corpora: tuple[CorpusName, ...] | None = None
    """Which of the four are read; by default those that the folder has."""
    files: dict[CorpusName, str] | None = None
    """Corpus -> its folder (TREx, Google_RE) or file (ConceptNet, Squad) inside `path`, where it is not LAMA's own,
    e.g. {TREx: trex_facts}; files of TREx need no sentences when they are asked with templates."""
    relations: tuple[str, ...] | None = None
    """Which relations are read, e.g. [P19, place_of_birth]; by default all."""
    templates: bool = True
    """Whether relations that have a template are asked with it;
    otherwise, and without one, with the sentences of the files."""
    wording: Literal["plain", "negated", "misprimed"] = "plain"
    """negated: with `template_negated` of relations.jsonl or `masked_negations` of the rows
    (Kassner and Schuetze 2020); misprimed: with `masked_misprimed` of the rows, whatever `templates` says."""
    max_words: int = 100
    """Facts whose sentences have more words than this are left out; templates have no limit."""
    max_facts: int | None = None
    """Largest number of facts of a relation, a seeded choice among those that are left; none by default."""
    lowercase: bool = False
    """Whether labels and sentences are made lower-case before equal pairs are looked for, as LAMA does for uncased
    models; their tokenizers do it in any case."""
    several_masks: Literal["drop", "first"] = "first"
    """Sentences with more than one [MASK] (three rows of Squad, and 328 of Google_RE without templates) are kept as in
    LAMA, where only the first mask is asked for, or left out."""
    missing_subjects: Literal["drop", "sub"] = "drop"
    """Rows without `sub_label` are left out, as by LAMA, or called by their `sub`."""
    uhn: Literal["none", "strings"] = "none"
    """strings: facts whose object stands in their subject's name are left out (string part of LAMA-UHN, Poerner et al.
    2020)."""
    held_out: float = 0.0
    """Share of the facts that are asked as a control, apart from the others; `corpora` with the same share leaves out
    the sentences of exactly these."""
    lama_parity: bool = False
    """Whether repeated (subject, object) pairs stay where rows carry judgements, as in BERTnesia (Wallat et al.
    2020)."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path: name the folder with the facts")
        require(self.corpora is None or bool(self.corpora), "corpora: name at least one, or remove the key")
        require(len(set(self.corpora or ())) == len(self.corpora or ()), "corpora: a name stands twice")
        require(self.relations is None or bool(self.relations), "relations: name at least one, or remove the key")
        for corpus, file in (self.files or {}).items():
            require(self.corpora is None or corpus in self.corpora, f"files.{corpus}: is not among "
                    "`corpora`; add it there")
            parts = PurePosixPath(file).parts
            require(bool(parts) and ".." not in parts and not PurePosixPath(file).is_absolute(),
                    f"files.{corpus}: {file!r} does not lie inside `path`; give a name relative to it")
        require(0 <= self.held_out < 1, f"held_out: {self.held_out} is not in [0, 1)")
        require(self.max_words >= 1, f"max_words: {self.max_words} is less than 1")
        require(self.max_facts is None or self.max_facts >= 1, f"max_facts: {self.max_facts} is less than 1")

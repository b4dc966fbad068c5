"""Settings of sets of minimal pairs: two sentences that differ in little, of which one is good."""

from pathlib import PurePosixPath
from typing import Literal

from finetrace.config.base import require, settings

Key = Literal["good", "bad", "field", "phenomenon", "paradigm", "id"]
COLUMNS: dict[Key, str] = {"good": "sentence_good", "bad": "sentence_bad", "field": "field",
                           "phenomenon": "linguistics_term", "paradigm": "UID", "id": "pairID"}
"""What is read -> its key in BLiMP (Warstadt et al. 2020)."""


@settings
class PairRowsSettings:
    """What every set of minimal pairs can say."""

    columns: dict[Key, str] | None = None
    """Keys or columns with other names than BLiMP's, e.g. {good: grammatical, bad: ungrammatical, phenomenon: type}."""
    phenomena: tuple[str, ...] | None = None
    """Which phenomena or paradigms are read; by default all."""
    max_pairs: int | None = None
    """Largest number of pairs of a paradigm, a seeded choice; by default all, of the micro world 25."""

    def __post_init__(self) -> None:
        require(self.max_pairs is None or self.max_pairs >= 1, f"max_pairs: {self.max_pairs} is less than 1")
        require(self.phenomena is None or bool(self.phenomena), "phenomena: name at least one, or remove the key")

    @property
    def names(self) -> dict[Key, str]:
        """What is read -> its key in the source."""
        return COLUMNS | (self.columns or {})


@settings
class MinimalPairsSettings(PairRowsSettings):
    """Minimal pairs of the micro world or of a hub data set, in `data/NAME/pairs.parquet`."""

    source: Literal["world", "hub"] = "world"
    """`world`: pairs made of the micro world's grammar and facts, held-out facts as a control."""
    id: str | None = None
    """Hub data set, e.g. nyu-mll/blimp (source: hub)."""
    configs: tuple[str, ...] | None = None
    """Its configurations, e.g. [anaphor_gender_agreement]; by default all."""
    split: str = "train"
    """Its split with the pairs."""
    revision: str | None = None
    """Commit, branch or tag; a commit makes the study reproducible for ever."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require((self.id is not None) == (self.source == "hub"),
                "id: name the hub data set, e.g. id: nyu-mll/blimp" if self.source == "hub" else
                "id: is for source: hub; write source: hub beside it")
        require(self.source == "hub" or (self.configs, self.revision, self.columns) == (None, None, None),
                "configs, revision, columns: are for source: hub, not for the micro world; remove them")
        require(self.configs is None or bool(self.configs), "configs: name at least one, or remove the key")


@settings
class MinimalPairFilesSettings(PairRowsSettings):
    """Minimal pairs from files of JSON lines: BLiMP's own, or those of BabyLM's evaluation (blimp_filtered,
    supplement_filtered)."""

    path: str = ""
    """File or folder; relative to the project folder."""
    files: tuple[str, ...] | None = None
    """Patterns of file names in the folder, e.g. ["blimp_filtered/*.jsonl"]; one that begins with ! leaves files out.
    By default all *.jsonl, also in folders below."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path: name the file or folder with the pairs")
        require(self.files is None or any(not p.startswith("!") for p in self.files),
                "files: name at least one pattern such as blimp_filtered/*.jsonl, or remove the key")
        for pattern in self.files or ():
            name = PurePosixPath(pattern.removeprefix("!"))
            require(bool(name.parts) and ".." not in name.parts and not name.is_absolute(),
                    f"files: {pattern!r} does not stay inside `path`; give a pattern relative to it")

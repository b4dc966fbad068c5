"""Settings of corpora: texts for masked-language-model training, from local files."""

from pathlib import PurePosixPath
from typing import Literal

from finetrace.config.base import require, settings


@settings
class CorpusSettings:
    """Texts of local files, one per row of `data/NAME/corpus.parquet`."""

    path: str
    """File or folder; relative to the project folder."""
    format: Literal["text", "jsonl", "lama", "text+lama"] = "text"
    """text: plain text; jsonl: one object per line; lama: the sentences of a folder in LAMA's format, the object put
    back for [MASK]; text+lama: files that end in .jsonl are LAMA's, all others plain text."""
    files: tuple[str, ...] | None = None
    """Patterns of file names in the folder, in order; one that begins with ! leaves files out. By default *.txt,
    *.jsonl, or the files that LAMA has."""
    field: str | None = None
    """jsonl: the key that holds the text."""
    unit: Literal["line", "paragraph", "document"] | None = None
    """What is one text of plain text: a line (default), lines up to a blank one (joined by spaces), or a whole file."""
    encoding: str = "utf-8"
    """Text encoding; a byte-order mark is accepted."""
    strip: tuple[str, ...] = ()
    """Marks that are removed wherever they stand, e.g. ["<< ", " >>", "[[ ", " ]]"];
    runs of white space become one space."""
    deduplicate: bool = True
    """Whether texts that are identical after that are kept once, at their first place; marks can leave spaces behind,
    so white space does not count where there are any."""
    min_words: int = 1
    """Texts with fewer words are left out."""
    max_texts: int | None = None
    """Largest number of texts, a seeded random choice in source order; all by default."""
    lowercase: bool = False
    """Whether texts are made lower-case."""
    held_out: float = 0.0
    """Share of LAMA's facts, chosen by subject and object, whose sentences are left out, also where they state another
    fact; `fact_files` with the same share asks these facts as a control: no model can know them from these texts."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path: name the file or folder with the texts")
        require(self.files is None or any(not p.startswith("!") for p in self.files),
                "files: name at least one pattern such as *.txt, or remove the key")
        for pattern in self.files or ():
            name = PurePosixPath(pattern.removeprefix("!"))
            require(bool(name.parts) and ".." not in name.parts and not name.is_absolute(),
                    f"files: {pattern!r} does not stay inside `path`; give a pattern relative to it")
        require((self.field is not None) == (self.format == "jsonl"),
                "field: name the key that holds the text, e.g. field: text" if self.format == "jsonl" else
                f"field: is for format: jsonl, not {self.format}; remove it")
        require(self.unit is None or self.format.startswith("text"), "unit: is for format: text, not "
                f"{self.format}; remove it")
        require(all(self.strip), "strip: an empty mark; remove it")
        require(0 <= self.held_out < 1, f"held_out: {self.held_out} is not in [0, 1)")
        require(not self.held_out or "lama" in self.format, "held_out: is about LAMA's facts, not for format: "
                f"{self.format}; remove it")
        require(self.min_words >= 1, f"min_words: {self.min_words} is less than 1")
        require(self.max_texts is None or self.max_texts >= 1, f"max_texts: {self.max_texts} is less than 1")

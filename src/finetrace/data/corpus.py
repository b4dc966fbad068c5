"""Texts for masked-language-model training: `data/NAME/corpus.parquet` from local files,
and the texts of any folder in data."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from finetrace import seeds
from finetrace.config.corpora import CorpusSettings
from finetrace.data.lama import evidences_of, is_held_out, read_rows, restored, texts_of
from finetrace.data.readers import decode, existing, names_in, parse_json
from finetrace.data.texts import require_whole
from finetrace.errors import FinetraceError

CHUNK = 10_000  # texts held at a time
PATTERNS = {"text": ("*.txt",), "jsonl": ("*.jsonl",),
            "lama": ("TREx/*.jsonl", "Google_RE/*.jsonl", "ConceptNet/*.jsonl", "Squad/*.jsonl"),
            "text+lama": ("*.txt", "TREx/*.jsonl", "Google_RE/*.jsonl", "ConceptNet/*.jsonl", "Squad/*.jsonl")}
"""Format -> the files that are read when none are named."""


def corpus_texts(folder: Path) -> list[str]:
    """The texts of a folder in data: of the micro world, of a corpus, or of a task's training split.

    Texts of a task are distinct, in the order of the rows; the second text of a row is a text of its own. Raises
    FinetraceError when the folder has no texts.
    """
    from finetrace.store.tables import read_table

    if (folder / "corpus.parquet").exists():
        texts = read_table(folder / "corpus.parquet", ["text"])["text"].to_pylist()
    elif (folder / "train.parquet").exists():
        rows = read_table(folder / "train.parquet", ["text_a", "text_b"])
        pairs = zip(rows["text_a"].to_pylist(), rows["text_b"].to_pylist(), strict=True)
        texts = list(dict.fromkeys(text for pair in pairs for text in pair if text and text.strip()))
    else:
        raise FinetraceError(f"{folder}: has neither corpus.parquet nor train.parquet; name the world, an entry of "
                             "`corpora` or a task with a train split, and run the stage that writes it (dvc repro)")
    if not texts:
        raise FinetraceError(f"{folder}: has no texts; choose another corpus")
    return texts


def clean_texts(texts: Iterable[str], strip: Iterable[str] = (), deduplicate: bool = True) -> list[str]:
    """Texts without the marks in `strip`, without empty ones, and each one once, at its first place; see `Cleaner`."""
    cleaner = Cleaner(tuple(strip), deduplicate)
    return [clean for text in texts if (clean := cleaner(text))]


class LeftOut(str):
    """In place of a text: why a row has none to give."""


class Cleaner:
    """Cleans one text at a time and counts in `left_out` what is not kept, by reason.

    Marks are removed wherever they stand, runs of white space become one space (only within lines where `lines` is
    true), and then a text that was there before is left out. Where marks are removed, white space does not count in
    that: "(<< EMP >>)" and "(EMP)" are the same text. Holds 16 bytes per distinct text.
    """

    def __init__(self, strip: tuple[str, ...] = (), deduplicate: bool = True, *, min_words: int = 1,
                 lowercase: bool = False, lines: bool = False) -> None:
        self.strip, self.deduplicate, self.min_words, self.lowercase, self.lines = (strip, deduplicate, min_words,
                                                                                    lowercase, lines)
        self.left_out: Counter[str] = Counter()
        self._seen: set[bytes] = set()

    def __call__(self, text: str) -> str | None:
        """The clean text, or None when it is not kept."""
        for mark in self.strip:
            text = text.replace(mark, "")
        text = ("\n".join(" ".join(line.split()) for line in text.split("\n")).strip() if self.lines
                else " ".join(text.split()))
        text = text.lower() if self.lowercase else text
        words = len(text.split())
        if words < self.min_words:
            self.left_out["under min_words" if words else "empty"] += 1
            return None
        if self.deduplicate:
            compared = "".join(text.split()) if self.strip else text
            key = hashlib.blake2b(compared.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if key in self._seen:
                self.left_out["duplicate"] += 1
                return None
            self._seen.add(key)
        return text


def build_corpus(name: str, settings: CorpusSettings, out: Path, *, root: Path, seed: int,
                 held_out_seed: int = 0) -> dict[str, Any]:
    """Write `out/corpus.parquet` (column text string, one text per row, in source order);
    returns facts for the manifest.

    held_out_seed: chooses the facts whose sentences are left out where the settings ask for that;
    `file_facts` takes the same.

    Reads the files once, and once more for `max_texts` and for `held_out` each; holds a chunk of texts. Raises
    FinetraceError naming file, line and key, and when no text is left.
    """
    import pyarrow as pa

    from finetrace.store.tables import merge_tables

    files = corpus_files(name, settings, root)
    controls = _controls(files, settings, held_out_seed) if settings.held_out else frozenset()
    chosen: set[int] | None = None
    if settings.max_texts is not None:
        total = sum(1 for _ in _clean(files, settings, _cleaner(settings), controls))
        if total > settings.max_texts:
            chosen = set(seeds.generator(seed, "corpus", name).permutation(total)[: settings.max_texts].tolist())
    counts: Counter[str] = Counter()
    cleaner = _cleaner(settings)

    def tables() -> Iterator[pa.Table]:
        chunk: list[str] = []
        for number, text in enumerate(_clean(files, settings, cleaner, controls)):
            if chosen is not None and number not in chosen:
                cleaner.left_out["over max_texts"] += 1
                continue
            counts.update(texts=1, words=len(text.split()), characters=len(text))
            chunk.append(text)
            if len(chunk) == CHUNK:
                yield pa.table({"text": pa.array(chunk, pa.string())})
                chunk = []
        if not counts["texts"]:
            reasons = (", ".join(f"{count} {reason}" for reason, count in cleaner.left_out.items())
                       or "the files are empty")
            raise FinetraceError(f"corpora.{name}: no text is left of {len(files)} files ({reasons}); look at files, "
                                 "field, unit and min_words")
        if chunk:
            yield pa.table({"text": pa.array(chunk, pa.string())})

    merge_tables(out / "corpus.parquet", tables())
    return {**{key: counts[key] for key in ("texts", "words", "characters")}, "files": len(files),
            "left_out": dict(cleaner.left_out)}


def corpus_files(name: str, settings: CorpusSettings, root: Path) -> list[Path]:
    """The files of a corpus, each once: pattern after pattern, in the order of their names."""
    base = existing(f"corpora.{name}", root, settings.path)
    if base.is_file():
        if settings.files is not None:
            raise FinetraceError(f"corpora.{name}: path is one file, so `files` cannot choose; remove it, "
                                 "or give the folder")
        return [base]
    patterns = settings.files or PATTERNS[settings.format]
    unwanted = {path for pattern in patterns if pattern.startswith("!") for path in base.glob(pattern[1:])}
    files: dict[Path, None] = {}
    for pattern in (pattern for pattern in patterns if not pattern.startswith("!")):
        matches = [path for path in sorted(base.glob(pattern)) if path.is_file()]
        if not matches and settings.files is not None:
            raise FinetraceError(f"corpora.{name}: no file in {base} is called {pattern}; it has {names_in(base)}")
        files |= dict.fromkeys(path for path in matches if path not in unwanted)
    if not files:
        raise FinetraceError(f"corpora.{name}: {base} has no file called {' or '.join(patterns)}; it has "
                             f"{names_in(base)}; set `files`")
    return list(files)


def _cleaner(settings: CorpusSettings) -> Cleaner:
    return Cleaner(settings.strip, settings.deduplicate, min_words=settings.min_words, lowercase=settings.lowercase,
                   lines=settings.unit == "document")


def _clean(files: list[Path], settings: CorpusSettings, cleaner: Cleaner, controls: frozenset[str]) -> Iterator[str]:
    """The texts that are kept, in order; controls: sentences to leave out."""
    read = {"text": _texts_of, "jsonl": _fields, "lama": _evidences}
    for path in files:
        for text in read[_format_of(path, settings)](path, settings):
            if isinstance(text, LeftOut):
                cleaner.left_out[text] += 1
            elif text in controls:
                cleaner.left_out["of a held-out fact"] += 1
            elif (clean := cleaner(text)) is not None:
                yield clean


def _texts_of(path: Path, settings: CorpusSettings) -> Iterator[str]:
    if settings.unit == "document":
        yield decode(path, settings.encoding).replace("\r\n", "\n")
    elif settings.unit == "paragraph":
        lines: list[str] = []
        for _, line in _lines(path, settings.encoding):
            if line.strip():
                lines.append(line)
            elif lines:
                yield " ".join(lines)
                lines = []
        if lines:
            yield " ".join(lines)
    else:
        yield from (line for _, line in _lines(path, settings.encoding))


def _fields(path: Path, settings: CorpusSettings) -> Iterator[str]:
    for number, line in _lines(path, settings.encoding):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        row = parse_json(line, place)
        if not isinstance(row, dict) or settings.field not in row:
            keys = f"its keys are {', '.join(row)}" if isinstance(row, dict) else "it is not an object"
            raise FinetraceError(f"{place}: key {settings.field!r} is missing; {keys}; set `field` to the "
                                 "one with the text")
        if not isinstance(row[settings.field], str):
            raise FinetraceError(f"{place}: key {settings.field!r} holds {str(row[settings.field])[:60]!r}, not a "
                                 "text; set `field`")
        require_whole(row[settings.field], place, f"key {settings.field!r}")
        yield row[settings.field]


def _evidences(path: Path, settings: CorpusSettings) -> Iterator[str]:
    for _, _, text in _statements(path):
        yield text


def _controls(files: list[Path], settings: CorpusSettings, seed: int) -> frozenset[str]:
    """The sentences that state a held-out fact; some of them state another one, too."""
    return frozenset(text for path in files if _format_of(path, settings) == "lama"
                     for subject, answer, text in _statements(path)
                     if is_held_out(subject, answer, settings.held_out, seed))


def _format_of(path: Path, settings: CorpusSettings) -> str:
    if settings.format == "text+lama":
        return "lama" if path.suffix == ".jsonl" else "text"
    return settings.format


def _statements(path: Path) -> Iterator[tuple[str, str, str]]:
    """Subject, object and sentence of LAMA's rows; the object stands in the words of
    the evidence where it tells them."""
    for row in read_rows(path):
        label, subject = row.values.get("obj_label"), str(row.values.get("sub_label") or row.values.get("sub"))
        sentences = texts_of(row, "masked_sentences")
        statements = [(sentences, label)] if sentences else [([evidence["masked_sentence"]],
                                                              evidence.get("obj_surface", label))
                                                             for evidence in evidences_of(row)]
        if not statements:
            yield subject, str(label), LeftOut("no sentence")
        for masked, answer in statements:
            if not isinstance(answer, str):
                raise FinetraceError(f"{row.place}: key 'obj_label' holds {answer!r}; give the object that "
                                     "is to be put back")
            yield subject, str(label), restored(masked, answer)


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends; an error that names the line of the first wrong byte."""
    try:
        with open(path, encoding=encoding) as stream:
            for number, line in enumerate(stream, 1):
                line = line.rstrip("\n").removeprefix("\ufeff" if number == 1 else "")
                if "\0" in line and number == 1:  # of two bytes per character, in all likelihood
                    decode(path, encoding)
                yield number, line
    except (UnicodeError, LookupError, ValueError, OSError):
        decode(path, encoding)  # reads the file whole and names the place
        raise

"""Definite pronoun resolution (Rahman & Ng 2012) in its recast release (White et al. 2017), as a task of pairs.

The file `dpr_data.txt` of "Inference is Everything" has blocks of keys, one per sentence and candidate,
with blank lines between:

    provenance: schema-challenge
    index: 12
    text: The bird ate the pie because it was hungry .
    hypothesis: The bird ate the pie because the bird was hungry .
    entailed: entailed
    partof: train

The hypothesis is the text with a candidate in the place of the pronoun. An example is the pronoun with the candidate,
as it stands elsewhere in the text.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from finetrace.config.data import RowsSettings
from finetrace.data.examples import Annotated, Example, Span
from finetrace.data.readers import base_of, decode
from finetrace.data.sources import one_file, our_splits, with_origin
from finetrace.errors import FinetraceError

FILE = "dpr_data.txt"
KEYS = ("provenance", "index", "text", "hypothesis", "entailed", "partof")
LABELS = ("entailed", "not-entailed")
Tokenize = Callable[[str], list[str]]


def read_dpr_task(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Annotated]:
    """All splits of the task; `path` is the file, or a folder that holds dpr_data.txt. Raises FinetraceError naming
    line and fix.
    """
    from finetrace.store.files import sha256_file

    path = one_file(name, base_of(name, task, root), FILE)
    splits = read_dpr(decode(path, task.encoding or "utf-8"), str(path), moses())
    return with_origin(our_splits(name, task, splits, only), {"file": path.name, "sha256": sha256_file(path)})


def moses() -> Tokenize:
    """The Moses tokenizer for English, as in edge probing; characters stay what they are (& is not &amp;)."""
    from sacremoses import MosesTokenizer

    tokenizer = MosesTokenizer(lang="en")
    return lambda text: list(tokenizer.tokenize(text, escape=False))


def read_dpr(text: str, where: str, tokenize: Tokenize) -> dict[str, Annotated]:
    """Split (train, dev, test) -> examples, those of one text together.

    The first span is the pronoun: the first word in which hypothesis and text differ, one word. The second is the
    candidate as it stands in the text; at the text's beginning its first letter is a capital. Pairs whose candidate the
    text does not have are left out and counted.

    text: the file's content;  where: its name for messages;  tokenize: text -> its words.
    Raises FinetraceError naming line, key and fix.
    """
    texts: dict[tuple[str, str], list[Example]] = {}
    left_out: dict[str, Counter[str]] = {}
    for line, block in _blocks(text, where):
        place, split, label = f"{where} line {line}", block["partof"], block["entailed"]
        if label not in LABELS:
            raise FinetraceError(f"{place}: key 'entailed' is {label!r}; it is {' or '.join(LABELS)}")
        words, hypothesis = (tuple(tokenize(block[key])) for key in ("text", "hypothesis"))
        counts = left_out.setdefault(split, Counter())
        spans = _spans(words, hypothesis)
        if isinstance(spans, str):
            counts[spans] += 1
        else:
            texts.setdefault((split, block["text"]), []).append(Example(words, spans, label, 0, place, block["index"]))
    splits: dict[str, Annotated] = {split: Annotated([], +counts) for split, counts in left_out.items()}
    numbers: Counter[str] = Counter()
    for (split, _), examples in texts.items():
        splits[split].examples += [Example(e.words, e.spans, e.label, numbers[split], e.place, e.source_id)
                                   for e in examples]
        numbers[split] += 1
    return splits


def _blocks(text: str, where: str) -> Iterator[tuple[int, dict[str, str]]]:
    """First line's number and keys of each block."""
    block: dict[str, str] = {}
    start = 0
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.strip()
        if line:
            key, colon, value = line.partition(":")
            if not colon or key not in KEYS or key in block:
                raise FinetraceError(f"{where} line {number}: {line[:40]!r} is not one of {', '.join(KEYS)}, each "
                                     "once per block and followed by a colon; mend the line (is a blank line missing?)")
            start = start if block else number
            block[key] = value.strip()
        elif block:
            for key in KEYS[1:]:
                if not block.get(key):
                    raise FinetraceError(f"{where} line {start}: the block has no {key!r}; mend it (is "
                                         "the file cut off?)")
            yield start, block
            block = {}


def _spans(words: tuple[str, ...], hypothesis: tuple[str, ...]) -> tuple[Span, Span] | str:
    """Spans of pronoun and candidate, or why there are none."""
    place = next((i for i, (a, b) in enumerate(zip(words, hypothesis, strict=False)) if a != b), None)
    if place is None:
        return "pairs whose hypothesis does not differ from the text"
    after = len(words) - place - 1  # words behind the pronoun, which hypothesis and text share
    candidate = hypothesis[place:len(hypothesis) - after]
    if not candidate or hypothesis[len(hypothesis) - after:] != words[place + 1:]:
        return "pairs that differ in more than the pronoun"
    capital = (candidate[0][:1].upper() + candidate[0][1:], *candidate[1:])
    for start in range(len(words) - len(candidate) + 1):
        end = start + len(candidate)
        if words[start:end] in ((candidate, capital) if start == 0 else (candidate,)) and not start <= place < end:
            return (place, place + 1), (start, end)
    return "pairs whose candidate is not in the text"

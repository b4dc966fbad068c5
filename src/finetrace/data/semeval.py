"""SemEval-2010 task 8 (Hendrickx et al. 2010): the relation between two marked phrases, as a task of pairs.

    7 <tab> "The <e1>engine</e1> of the <e2>car</e2>."
    Component-Whole(e1,e2)
    Comment: ...

The published files are TRAIN_FILE.TXT (8,000 sentences) and TEST_FILE_FULL.TXT (2,717, with labels).
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from finetrace.config.data import RowsSettings
from finetrace.data.examples import Annotated, Example, Span
from finetrace.data.readers import base_of, decode, split_files
from finetrace.data.sources import one_file
from finetrace.errors import FinetraceError

TRAIN, TEST = "TRAIN_FILE.TXT", "TEST_FILE_FULL.TXT"
TRAIN_SHARE, SPLIT_SEED = 0.85, 42  # of edge probing's split: 6,851 sentences to train on and 1,149 for validation
_TAGS = re.compile(r"</?e[12]>")
_LABEL = re.compile(r"Other|[A-Z][A-Za-z]*-[A-Z][A-Za-z]*\(e[12],e[12]\)")


def read_semeval_task(name: str, task: RowsSettings, root: Path, only: str | None = None) -> dict[str, Annotated]:
    """All splits of the task; `path` is a folder that holds the published files, also further down,
    or one file (train).

    `splits` names other files. Without a file for validation, and without `holdout`, the training file is split as for
    edge probing (see `split_train`). Raises FinetraceError naming file, line and fix.
    """
    from finetrace.store.files import sha256_file

    base = base_of(name, task, root)
    if base.is_file() or task.splits:
        ask = None if only == "validation" and "validation" not in (task.splits or {}) else only
        files = split_files(name, task, root, ask)
    else:
        files = {"train": one_file(name, base, TRAIN)} if only != "test" else {}
        if only in (None, "test"):
            files["test"] = one_file(name, base, TEST)
    splits = {}
    for split, path in files.items():
        splits[split] = read_semeval(decode(path, task.encoding or "utf-8"), str(path))
        splits[split].origin = {"file": path.name, "sha256": sha256_file(path)}
    has_validation = "validation" in (task.splits or {}) or getattr(task, "holdout", 0.0) > 0
    if "train" in splits and not has_validation:
        splits["train"], splits["validation"] = split_train(splits["train"])
    return {only: splits[only]} if only else {split: splits[split] for split in ("train", "validation", "test")
                                              if split in splits}


def split_train(train: Annotated) -> tuple[Annotated, Annotated]:
    """Train and validation as in edge probing (Tenney et al. 2019): one draw per sentence, in the order of the file.

    The draws are those of Python's `random` with seed 42, so that the split is the published
    one whatever the study's seed.
    """
    draws = random.Random(SPLIT_SEED)
    in_train = [draws.random() <= TRAIN_SHARE for _ in train.examples]
    parts = [[e for e, k in zip(train.examples, in_train, strict=True) if k == mine] for mine in (True, False)]
    first, second = (Annotated(part, origin={**train.origin, "split_seed": SPLIT_SEED}) for part in parts)
    return first, second


def read_semeval(text: str, where: str) -> Annotated:
    """Examples of a file: one per sentence, whose spans are the phrases e1 and e2.

    Words stand between white space while the tags are still there: the full stop of "car</e2>." is part of the word
    "car.", and a phrase reaches from the first to the last word that its tags touch.

    text: the file's content;  where: its name for messages. Raises FinetraceError naming line and fix.
    """
    examples = []
    for number, (line, head, label) in enumerate(_records(text, where)):
        place = f"{where} line {line}"
        name, _, sentence = head.partition("\t")
        sentence = sentence.strip()
        if not name.strip().isdecimal() or not sentence:
            raise FinetraceError(f"{place}: {head[:40]!r} is not a number, a tab and a sentence; mend the line (is "
                                 "the file cut off?)")
        if len(sentence) > 1 and sentence[0] == sentence[-1] == '"':
            sentence = sentence[1:-1]
        if not _LABEL.fullmatch(label):
            raise FinetraceError(f"{where} line {line + 1}: {label[:40]!r} is no relation such as "
                                 "Cause-Effect(e1,e2) or Other; mend the line (is it missing?)")
        words, spans = _marked(sentence, place)
        examples.append(Example(words, spans, label, number, place, name.strip()))
    return Annotated(examples)


def _records(text: str, where: str) -> Iterator[tuple[int, str, str]]:
    """Line number, first line and label of each block; blocks end with a blank line, or where the next begins."""
    block: list[str] = []
    start = 0
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.strip(" \r\ufeff")
        begins = bool(block) and re.match(r"\d+\t", line) is not None
        if block and (not line or begins):
            if len(block) < 2:
                raise FinetraceError(f"{where} line {start}: the sentence {block[0][:40]!r} has no line with its "
                                     "relation; mend it (is the file cut off?)")
            yield start, block[0], block[1].strip()
            block = []
        if line:
            start = start if block else number
            block.append(line)


def _marked(sentence: str, place: str) -> tuple[tuple[str, ...], tuple[Span, Span]]:
    """Words without tags, and the spans of e1 and e2."""
    for tag in ("<e1>", "</e1>", "<e2>", "</e2>"):
        if sentence.count(tag) != 1:
            raise FinetraceError(f"{place}: the tag {tag} stands {sentence.count(tag)} times in the sentence; "
                                 "each of <e1>, </e1>, <e2>, </e2> is needed once")
    tagged = sentence.split()
    words = [_TAGS.sub("", word) for word in tagged]
    before = [0]  # words that are left before each, where some are tags only
    for word in words:
        before.append(before[-1] + bool(word))
    spans = []
    for phrase in ("e1", "e2"):
        first = next(i for i, word in enumerate(tagged) if f"<{phrase}>" in word)
        last = next(i for i, word in enumerate(tagged) if f"</{phrase}>" in word)
        start, end = before[first], before[last + 1]
        if sentence.index(f"<{phrase}>") > sentence.index(f"</{phrase}>") or start >= end:
            raise FinetraceError(f"{place}: the phrase {phrase} is empty or ends before it begins; mend its tags")
        spans.append((start, end))
    return tuple(word for word in words if word), (spans[0], spans[1])

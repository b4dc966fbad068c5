"""Files of tagged words, as of CoNLL-2003: a word and its tag per line, a blank line after each sentence.

    EU NNP B-NP B-ORG
    rejects VBZ B-VP O

Columns stand between tabs, or between blanks; the first is the word, the last its tag. Tags are IOB1, IOB2 or IOBES.
"""

from collections import Counter

from finetrace.data.examples import Annotated, Example
from finetrace.data.texts import require_whole
from finetrace.errors import FinetraceError
from finetrace.tags import TAG, entities

DOCUMENT = "-DOCSTART-"


def read_bio(text: str, where: str, label: str) -> Annotated:
    """Examples of a file of tagged words.

    text: the file's content;  where: its name for messages;  label: tag (every word is an example) or entity (every
    entity is one, a span of words with its type). Lines with -DOCSTART- are no sentences. Raises FinetraceError naming
    the line.
    """
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    columns = number = 0
    words: list[str] = []
    tags: list[str] = []
    lines: list[int] = []
    for line_number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.strip("\r\n ")
        if line and not line.startswith(DOCUMENT):
            place = f"{where} line {line_number}"
            word, tag, count = _word(line, place)
            columns = columns or count
            if count != columns:
                raise FinetraceError(f"{place}: {count} columns instead of {columns}; mend the line")
            words.append(word)
            tags.append(tag)
            lines.append(line_number)
        elif words:
            found_examples = _examples(tuple(words), tags, [f"{where} line {at}" for at in lines], number, label)
            left_out["sentences without an entity"] += not found_examples
            examples += found_examples
            number += 1
            words, tags, lines = [], [], []
    return Annotated(examples, +left_out)


def _word(line: str, place: str) -> tuple[str, str, int]:
    """Word, tag and number of columns of a line."""
    parts = line.split("\t") if "\t" in line else line.split()
    if len(parts) < 2 or not parts[0].strip():
        raise FinetraceError(f"{place}: {line[:40]!r} is not a word and its tag, as in 'Paris B-LOC'; mend the line")
    word, tag = parts[0].strip(), parts[-1].strip()
    if not TAG.fullmatch(tag):
        raise FinetraceError(f"{place}: tag {tag[:40]!r} is none; write O, or B-TYPE, I-TYPE (E-, S-) in the "
                             "last column")
    require_whole(word, place, "word")
    return word, tag, len(parts)


def _examples(words: tuple[str, ...], tags: list[str], places: list[str], sentence: int, label: str) -> list[Example]:
    if label == "tag":
        return [Example(words, ((i, i + 1),), tag, sentence, places[i]) for i, tag in enumerate(tags)]
    return [Example(words, ((start, end),), kind, sentence, places[start]) for start, end, kind in entities(tags)]

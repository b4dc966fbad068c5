"""Words among which masked predictions are ranked: all of a tokenizer's, its common words, or those of a file.

Which words count as common follows from a fixed rule and a frozen list of stop words, so that it is the same on every
machine and with every version of other software.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finetrace.errors import FinetraceError

Kind = Literal["wordpiece", "bytelevel", "sentencepiece", "words"]
STOP_WORDS_VERSION = 1
"""Goes up whenever the list changes: results depend on it."""
STOP_WORDS = frozenset("""
a an the this that these those such
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
we us our ours ourselves they them their themselves one oneself
who whom whose which what whoever whatever whichever
someone something anyone anything everyone everything nobody nothing none
some any each every either neither both all few many much more most several other another same own
and or but nor so yet if unless because since although though while whereas whether than as until
about above across after against along among around at before behind below beside besides between beyond by
down during except for from in into of off on onto out over per through throughout
to toward towards under up upon via with within without
am is are was were be been being do does did done doing have has had
can could may might must should will would cannot
not no never ever always often sometimes
when whenever where wherever why how here there then thus hence therefore however moreover nevertheless
again also already almost just only even still too very quite rather too once now
else perhaps indeed otherwise meanwhile
s t m re isn aren wasn weren wouldn couldn shouldn hasn hadn
""".split())
"""English function words: articles, pronouns, conjunctions, prepositions, auxiliaries, general adverbs,
ends of contractions.

Only in lower case: with a capital they may be names (May, Will, US). None of them is in LAMA's list of common words for
cased models, so that what LAMA asks such a model is asked here too."""
_MARKS: dict[str, Kind] = {"##": "wordpiece", "Ġ": "bytelevel", "▁": "sentencepiece"}
_RESERVED = re.compile(r"\[unused\d+\]|<unused\d+>|<extra_id_\d+>|madeupword\d+", re.IGNORECASE)


def restricted_vocabulary(tokenizer: Any, wanted: Literal["full", "common"] | Path
                          | str) -> tuple[np.ndarray, dict[str, Any]]:
    """The words among which a model's predictions are ranked.

    tokenizer: any tokenizer of transformers;  wanted: full (every id), common (see `common_words`), or a file with one
    word per line (see `vocabulary_file`).
    Returns ids (word,) int64 ascending, and facts for a manifest: vocabulary, words, kind, left_out (reason -> number),
    ...
    """
    if wanted == "full":
        ids = np.unique(np.fromiter(tokenizer.get_vocab().values(), np.int64))
        return ids, {"vocabulary": "full", "words": len(ids)}
    if wanted != "common":
        return vocabulary_file(Path(wanted), tokenizer)
    vocabulary = tokenizer.get_vocab()
    left_out: Counter[str] = Counter()
    kind = kind_of(vocabulary)
    ids = common_words(list(vocabulary), list(vocabulary.values()), tokenizer.all_special_ids, kind, left_out)
    if not len(ids):
        raise FinetraceError(f"cloze.vocabulary: no common word is left of {len(vocabulary)} pieces "
                             f"({dict(left_out)}); use full, or a file with one word per line")
    return ids, {"vocabulary": "common", "words": len(ids), "kind": kind, "pieces": len(vocabulary),
                 "left_out": dict(left_out), "stop_words_version": STOP_WORDS_VERSION}


def common_words(pieces: list[str], ids: Iterable[int], special_ids: Iterable[int], kind: Kind = "wordpiece",
                 left_out: Counter[str] | None = None) -> np.ndarray:
    """Ids of the pieces that are whole common words: no special or reserved piece, no continuation of a word, at least
    one letter or digit, no stop word.

    pieces, ids: every piece with its id, in any order;  kind: how pieces mark words (`kind_of`);  left_out: counts the
    others. Returns (word,) int64 ascending.
    """
    special = set(special_ids)
    left_out = Counter() if left_out is None else left_out
    common = []
    for piece, number in zip(pieces, ids, strict=True):
        word = word_of(piece, kind)
        if number in special:
            reason = "special"
        elif _RESERVED.fullmatch(piece):
            reason = "reserved"
        elif word is None:
            reason = "continuation"
        elif not any(letter.isalnum() for letter in word):
            reason = "no letter or digit"
        elif word in STOP_WORDS:
            reason = "stop word"
        else:
            common.append(number)
            continue
        left_out[reason] += 1
    return np.array(sorted(common), dtype=np.int64)


def vocabulary_file(path: Path, tokenizer: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The pieces for the words of a file, one per line, as LAMA's common vocabularies are written.

    A word is the piece that begins with it; in lower case where the tokenizer has no capital letters. What is not one
    piece, or is one that stood there before, is counted. Returns ids (word,) int64 ascending and facts.
    """
    from finetrace.data.readers import decode
    from finetrace.store.files import sha256_file

    if not path.is_file():
        raise FinetraceError(f"cloze.vocabulary: {path}: no such file; use full, common, or a file with "
                             "one word per line")
    words = [line.strip() for line in decode(path, "utf-8").split("\n") if line.strip()]
    vocabulary = tokenizer.get_vocab()
    kind = kind_of(vocabulary)
    special = set(tokenizer.all_special_ids)
    by_word = {word: number for piece, number in sorted(vocabulary.items(), key=lambda item: item[1], reverse=True)
               if number not in special and (word := word_of(piece, kind)) is not None}
    uncased = not any(letter.isupper() for word in by_word if not _RESERVED.fullmatch(word) for letter in word)
    numbers = [by_word.get(word.lower() if uncased else word) for word in words]
    ids = np.array(sorted({number for number in numbers if number is not None}), dtype=np.int64)
    if not len(ids):
        raise FinetraceError(f"{path}: none of its {len(words)} words is one piece of the tokenizer; give "
                             "one word per line")
    missing = sum(number is None for number in numbers)
    return ids, {"vocabulary": path.name, "sha256": sha256_file(path), "words": len(ids), "kind": kind,
                 "lines": len(words), "left_out": {"not one piece": missing,
                                                   "repeated": len(words) - missing - len(ids)}}


def kind_of(vocabulary: Iterable[str]) -> Kind:
    """How a tokenizer's pieces mark words, by what most of its marked pieces begin with.

    wordpiece: ## continues a word;  bytelevel: Ġ begins one, and characters stand for bytes;  sentencepiece: ▁ begins
    one; words: nothing is marked, every piece is a word.
    """
    counts: Counter[str] = Counter()
    for piece in vocabulary:
        for mark in _MARKS:
            counts[mark] += piece.startswith(mark) and len(piece) > len(mark)
        counts["</w>"] += piece.endswith("</w>")
    mark, count = counts.most_common(1)[0] if counts else ("", 0)
    if not count:
        return "words"
    if mark == "</w>":
        raise FinetraceError("cloze.vocabulary: the tokenizer marks ends of words (</w>), so that its pieces do "
                             "not tell whole words; use full")
    return _MARKS[mark]


def word_of(piece: str, kind: Kind) -> str | None:
    """The word that a piece is, or None where it only continues one (or is not text)."""
    if kind == "wordpiece":
        return None if piece.startswith("##") and len(piece) > 2 else piece
    if kind == "words":
        return piece
    mark = "Ġ" if kind == "bytelevel" else "▁"
    if not piece.startswith(mark):
        return None
    letters = piece[1:]
    if kind == "sentencepiece":
        return letters
    try:
        return bytes(_BYTES[letter] for letter in letters).decode("utf-8")
    except (KeyError, UnicodeDecodeError):  # part of a character
        return None


def _byte_letters() -> dict[str, int]:
    """Letter -> byte of byte-level vocabularies: printable Latin-1 stands for itself,
    the other bytes follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_letters()

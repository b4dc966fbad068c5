"""Tags of words that mark entities: B-PER, I-PER, O (also E- and S-, or L- and U-), and the spans that they mean."""

import re
from collections.abc import Sequence

TAG = re.compile(r"O|[BIESLU]-\S+")
"""What a tag looks like."""


def entities(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """The entities of one sentence, ascending: first word, word after the last, type.

    As in the evaluation of CoNLL-2003 (conlleval): an entity begins at B and S, and at I and E where no entity of that
    type is open; it ends before O, before the next one begins, and with E and S. So IOB1 (I- begins), IOB2 (B- begins)
    and IOBES are all read, and wrong sequences, which models predict, have a meaning too.
    """
    spans: list[tuple[int, int, str]] = []
    kind, start = "", 0  # of the entity that is open; "" is none
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, entity_type = tag.partition("-")
        prefix = {"L": "E", "U": "S"}.get(prefix, prefix)
        begins = prefix in ("B", "S") or (prefix in ("I", "E") and entity_type != kind)
        if kind and (begins or prefix == "O"):
            spans.append((start, place, kind))
            kind = ""
        if begins:
            kind, start = entity_type, place
        if kind and prefix in ("E", "S"):
            spans.append((start, place + 1, kind))
            kind = ""
    return spans


def entity_scores(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of entities, 0 to 1, higher is better: one is right where its first word, its last word
    and its type are. All sentences count together (micro); 0 where there is nothing to divide by.

    truth, predicted: the tags of every sentence. Source: Tjong Kim Sang and De Meulder 2003.
    """
    pairs = [(set(entities(gold)), set(entities(guess))) for gold, guess in zip(truth, predicted, strict=True)]
    right = sum(len(gold & guess) for gold, guess in pairs)
    named, guessed = sum(len(gold) for gold, _ in pairs), sum(len(guess) for _, guess in pairs)
    return {"entity_precision": right / guessed if guessed else 0.0, "entity_recall": right / named if named else 0.0,
            "entity_f1": 2 * right / (named + guessed) if named + guessed else 0.0}

"""Entities of tags against a slow formula, on the sequences of CoNLL-2003's evaluation and on drawn ones."""

import numpy as np
import pytest

from finetrace.tags import entities, entity_scores


def slow_entities(tags):
    """Every span of words that is an entity by the definitions, one by one: it begins where an entity begins, goes on,
    and ends where it cannot go on."""

    def parts(i):
        prefix, _, kind = tags[i].partition("-") if 0 <= i < len(tags) else ("O", "", "")
        return {"L": "E", "U": "S"}.get(prefix, prefix), kind

    def ends_after(i):  # the entity of word i cannot go on with the next word
        (prefix, kind), (following, other) = parts(i), parts(i + 1)
        return prefix in ("E", "S") or following in ("O", "B", "S") or other != kind

    def begins(i):
        prefix, kind = parts(i)
        if prefix == "O":
            return False
        before, other = parts(i - 1)
        return prefix in ("B", "S") or before in ("O", "E", "S") or other != kind

    found = []
    for start in range(len(tags)):
        for end in range(start + 1, len(tags) + 1):
            inside = begins(start) and ends_after(end - 1)
            if inside and not any(begins(i) for i in range(start + 1, end)) and not any(
                    ends_after(i) for i in range(start, end - 1)):
                found.append((start, end, parts(start)[1]))
    return found


@pytest.mark.parametrize(("tags", "wanted"), [
    ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
    ("I-PER I-PER O I-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),  # IOB1
    ("I-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")]),
    ("B-PER I-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
    ("S-PER B-LOC E-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC"), (3, 4, "LOC")]),
    ("U-PER B-LOC L-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
    ("O O", []), ("", []),
])
def test_entities(tags, wanted):
    assert entities(tags.split()) == wanted == slow_entities(tags.split())


def test_entities_of_drawn_tags():
    rng = np.random.default_rng(0)
    known = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("a", "b"))]
    for _ in range(500):
        tags = [known[i] for i in rng.integers(len(known), size=rng.integers(0, 7))]
        assert entities(tags) == slow_entities(tags), tags


def test_scores():
    truth = [["B-a", "I-a", "O"], ["B-b", "O", "B-a"]]
    assert entity_scores(truth, truth) == {"entity_precision": 1.0, "entity_recall": 1.0, "entity_f1": 1.0}
    # one right, one too short, one of the wrong type, one missing: 1 of 3 named, 1 of 3 said
    found = entity_scores(truth, [["B-a", "O", "O"], ["B-b", "O", "B-b"]])
    assert found == pytest.approx({"entity_precision": 1 / 3, "entity_recall": 1 / 3, "entity_f1": 1 / 3})
    assert entity_scores([["O"]], [["O"]])["entity_f1"] == entity_scores([["B-a"]], [["O"]])["entity_f1"] == 0.0

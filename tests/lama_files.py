"""Small made-up files in LAMA's format."""

import json
from pathlib import Path

RELATIONS = [{"relation": "P36", "template": "The capital of [X] is [Y] .", "type": "1-1"},
             {"relation": "P19", "template": "[X] was born in [Y] .", "type": "N-1", "label": "place of birth"},
             {"relation": "P69", "template": "[X] studied in [Y] .", "type": "N-M"}]
CAPITAL = {"uuid": "u1", "sub_label": "Azerbaijan", "obj_label": "Baku", "predicate_id": "P36",
           "evidences": [{"obj_surface": "Baku", "masked_sentence": "Azerbaijan's capital, [MASK], lies by the sea."}]}
BORN = {"uuid": "g1", "sub_label": "Ada", "obj_label": "London",
        "masked_sentences": ["Ada was born in [MASK].", "She wrote."],
        "judgments": [{"judgment": "yes"}, {"judgment": "no"}]}


def write(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")


def folder(root: Path, **changes) -> Path:
    """A small folder in LAMA's format; changes: file (with __ for /) -> its rows, None: no such file."""
    files = {"relations": RELATIONS, "TREx__P36": [CAPITAL],
             "TREx__P19": [CAPITAL | {"uuid": "u2", "predicate_id": "P19"}], "Google_RE__place_of_birth_test": [BORN],
             "ConceptNet__test": [{"uuid": "c1", "pred": "IsA", "sub_label": "dog", "obj_label": "animal",
                                   "masked_sentences": ["A dog is an [MASK]."]}],
             "Squad__test": [{"id": "s1", "sub_label": "Squad", "obj_label": "gold",
                              "masked_sentences": ["It was [MASK]."]}]}
    for name, rows in (files | changes).items():
        if rows is not None:
            write(root / "lama" / f"{name.replace('__', '/')}.jsonl", rows)
    return root

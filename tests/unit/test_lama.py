"""Files in LAMA's format: what is read, and what is said about damaged ones."""

import json
from pathlib import Path

import pytest
from tests.lama_files import BORN, CAPITAL, RELATIONS, folder, write

from finetrace.config.base import parse
from finetrace.config.facts import FactFilesSettings
from finetrace.data.lama import GOOGLE_RE, read_lama
from finetrace.errors import FinetraceError


def read(root: Path, **settings):
    return read_lama(root / "lama", parse(FactFilesSettings, {"path": "lama", **settings}, "p"))


def test_all_four_corpora_are_read_in_the_order_of_their_files(tmp_path):
    found = read(folder(tmp_path))
    assert [(r.corpus, r.name, r.kind, len(r.rows)) for r in found.relations] == [
        ("TREx", "P36", "1-1", 1), ("TREx", "P19", "N-1", 1), ("Google_RE", "place_of_birth", "", 1),
        ("ConceptNet", "IsA", "", 1), ("Squad", "Squad", "", 1)]
    assert found.relations[0].template == "The capital of [X] is [Y] ." and found.relations[3].template is None
    assert found.without_rows == ["P69"] and found.without_files == [] and found.without_relation == []
    assert found.relations[1].rows[0].place.endswith("TREx/P19.jsonl line 1")


def test_corpora_and_relations_can_be_chosen(tmp_path):
    root = folder(tmp_path, TREx__P999=[CAPITAL], Squad__test=None)
    assert {r.corpus for r in read(root, corpora=["ConceptNet", "Google_RE"]).relations} == {"ConceptNet", "Google_RE"}
    assert [r.name for r in read(root, relations=["IsA", "P19"]).relations] == ["P19", "IsA"]
    found = read(root)
    assert found.without_relation == ["P999"] and found.without_files == ["Squad"]
    with pytest.raises(FinetraceError, match=r"lama: relation 'P69' has no rows; add its file, or take it out of "
                                             r"`relations`"):
        read(root, relations=["P69"])
    with pytest.raises(FinetraceError, match=r"Squad/test\.jsonl: no such file or folder, so there is no Squad; say "
                                             r"where"):
        read(root, corpora=["Squad"])


def test_corpora_may_lie_elsewhere(tmp_path):
    cat = {"pred": "IsA", "sub_label": "cat", "obj_label": "pet", "masked_sentences": ["[MASK]!"]}
    root = folder(tmp_path, negated__cn=[cat], other__P19=[{"sub_label": "Bo", "obj_label": "Oslo"}])
    found = read(root, files={"ConceptNet": "negated/cn.jsonl", "TREx": "other"}, corpora=["ConceptNet", "TREx"])
    assert [(r.name, r.rows[0].values["sub_label"]) for r in found.relations] == [("P19", "Bo"), ("IsA", "cat")]
    for file in ("../x.jsonl", "/x.jsonl", ""):
        with pytest.raises(FinetraceError, match=r"files\.ConceptNet: .* does not lie inside `path`"):
            read(root, files={"ConceptNet": file})


def test_every_fixed_template_has_both_slots_once():
    assert GOOGLE_RE
    for templates in GOOGLE_RE.values():
        assert templates and all(t.count("[X]") == t.count("[Y]") == 1 for t in templates)


def test_blank_lines_and_a_byte_order_mark_change_nothing(tmp_path):
    root = folder(tmp_path, TREx__P36=["﻿" + json.dumps(CAPITAL), "", "  "])
    assert len(read(root).relations[0].rows) == 1


@pytest.mark.parametrize(("name", "row", "message"), [
    ("relations", {"relation": "P36", "type": "1-1"},
     r"relations\.jsonl line 1: key 'template' is missing; give a text"),
    ("relations", {"relation": "P36", "template": "[X] is [Y]"}, r"line 1: key 'type' is missing"),
    ("relations", {"template": "[X] is [Y]", "type": "1-1"}, r"line 1: key 'relation' is missing"),
    ("relations", {"relation": "P36", "template": "[X] is [Y] , [Y]", "type": "1-1"},
     r"has \[Y\] 2 times; write it once, where"),
    ("relations", {"relation": "P36", "template": "it is [Y]", "type": "1-1"}, r"has \[X\] 0 times; write it once"),
    ("relations", {"relation": "P36", "template": "[X] [Y] [MASK]", "type": "1-1"},
     r"has a \[MASK\] of its own; write \[Y\]"),
    ("relations", {"relation": "P36", "template": "[X] is [Y]", "type": "2-1"},
     r"key 'type' holds '2-1'; give one of 1-1, N"),
    ("TREx__P36", "{oops", r"TREx/P36\.jsonl line 1: not valid JSON"),
    ("TREx__P36", "[1]", r"line 1: is not an object"),
    ("ConceptNet__test", {"sub_label": "dog", "obj_label": "pet"},
     r"ConceptNet/test\.jsonl line 1: key 'pred' is missing"),
])
def test_damaged_lines_are_named_with_key_and_fix(tmp_path, name, row, message):
    with pytest.raises(FinetraceError, match=message):
        read(folder(tmp_path, **{name: [row]}))


def test_files_that_cannot_be_read_are_named(tmp_path):
    root = folder(tmp_path, relations=None)
    with pytest.raises(FinetraceError, match=r"relations\.jsonl: no such file; TREx needs it for templates and types"):
        read(root)
    write(root / "lama" / "relations.jsonl", [RELATIONS[0], RELATIONS[0]])
    with pytest.raises(FinetraceError, match=r"line 2: relation 'P36' stands twice"):
        read(root)
    write(root / "lama" / "relations.jsonl", RELATIONS)
    (root / "lama" / "TREx" / "P36.jsonl").write_bytes(b"{\"a\": \"\xff\"}")
    with pytest.raises(FinetraceError, match=r"P36\.jsonl: is not UTF-8"):
        read(root)
    write(root / "lama" / "Google_RE" / "height_test.jsonl", [BORN])
    with pytest.raises(FinetraceError, match=r"relation 'height' has no template; Google_RE has place_of_birth"):
        read(root, corpora=["Google_RE"])
    with pytest.raises(FinetraceError, match=r"lama: no such folder"):
        read(tmp_path / "elsewhere")
    (tmp_path / "empty" / "lama").mkdir(parents=True)
    with pytest.raises(FinetraceError, match=r"has none of TREx, Google_RE, ConceptNet/test\.jsonl, Squad/test\.jsonl"):
        read(tmp_path / "empty")

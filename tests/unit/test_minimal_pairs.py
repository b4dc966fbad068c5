"""Minimal pairs: files of BLiMP and BabyLM, a hub data set, and those that the micro world makes of itself."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetrace.config.base import parse
from finetrace.config.minimal_pairs import MinimalPairFilesSettings, MinimalPairsSettings
from finetrace.config.world import WorldSettings
from finetrace.data.minimal_pairs import Pair, facts_of, file_pairs, hub_pairs, write_pairs
from finetrace.data.world import World, build_world
from finetrace.data.world.pairs import world_pairs
from finetrace.errors import FinetraceError
from finetrace.store.tables import read_table

ROW = {"sentence_good": "Alison hurt herself.", "sentence_bad": "Alison hurt himself.", "field": "morphology",
       "linguistics_term": "anaphor_agreement", "UID": "anaphor_gender_agreement", "simple_LM_method": True,
       "pairID": "7"}


def write(path: Path, *rows: dict[str, Any] | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")


def read(root: Path, **changes: Any) -> list[Pair]:
    settings = parse(MinimalPairFilesSettings, {"path": "sets", **changes}, "minimal_pair_files.x")
    return file_pairs("x", settings, root, 1)


def test_a_file_of_blimp(tmp_path: Path) -> None:
    path = tmp_path / "sets/anaphor_gender_agreement.jsonl"
    write(path, ROW, "", ROW | {"pairID": "9", "sentence_good": "B saw her."})
    found = read(tmp_path)
    assert found[0] == Pair("anaphor_gender_agreement:7", "morphology", "anaphor_agreement", "anaphor_gender_agreement",
                            "Alison hurt herself.", "Alison hurt himself.")
    assert [pair.pair_id[-2:] for pair in found] == [":7", ":9"]
    assert read(tmp_path, path="sets/anaphor_gender_agreement.jsonl") == found
    write_pairs(tmp_path / "pairs.parquet", found)
    assert read_table(tmp_path / "pairs.parquet").to_pylist()[0]["good"] == "Alison hurt herself."
    assert facts_of(found)["phenomena"] == {"anaphor_agreement": {"anaphor_gender_agreement": 2}}


def test_the_folders_of_babylm(tmp_path: Path) -> None:
    """The supplement has sentences alone; its file is phenomenon and paradigm."""
    write(tmp_path / "sets/blimp_filtered/anaphor.jsonl", ROW, ROW)
    write(tmp_path / "sets/supplement_filtered/hypernym.jsonl", {k: ROW[k] for k in ("sentence_good", "sentence_bad")})
    write(tmp_path / "sets/ewok_filtered/agent.jsonl", {"Context1": "x"})
    with pytest.raises(FinetraceError, match=r"agent\.jsonl line 1: has no 'sentence_good' .*`files`"):
        read(tmp_path)
    found = read(tmp_path, files=["blimp_filtered/*.jsonl", "supplement_filtered/*.jsonl"])
    assert found == read(tmp_path, files=["**/*.jsonl", "!ewok_filtered/*"])
    assert [(p.field, p.phenomenon, p.paradigm) for p in found][1:] == [
        ("morphology", "anaphor_agreement", "anaphor_gender_agreement"), ("supplement", "hypernym", "hypernym")]
    assert [p.pair_id for p in found] == ["anaphor:anaphor_gender_agreement:7", "anaphor:anaphor_gender_agreement:7#2",
                                          "hypernym:0"]


def test_other_keys_and_a_choice(tmp_path: Path) -> None:
    rows = [{"ok": f"a {i}", "no": f"b {i}", "kind": "one" if i < 30 else "two"} for i in range(40)]
    write(tmp_path / "sets/mine.jsonl", *rows)
    names = {"good": "ok", "bad": "no", "phenomenon": "kind", "paradigm": "kind"}
    found = read(tmp_path, columns=names, max_pairs=8)
    assert Counter(p.paradigm for p in found) == {"one": 8, "two": 8} and found == read(tmp_path, columns=names,
                                                                                        max_pairs=8)
    assert {p.phenomenon for p in read(tmp_path, columns=names, phenomena=["two"])} == {"two"}
    with pytest.raises(FinetraceError, match="phenomena: there is no 'three'; there are one, two"):
        read(tmp_path, columns=names, phenomena=["three"])


@pytest.mark.parametrize(("row", "said"), [
    ("{", "line 2: not valid JSON"), ("[1]", "line 2: is not an object"),
    (ROW | {"sentence_bad": 3}, "line 2: key 'sentence_bad' holds '3', not a sentence"),
    (ROW | {"sentence_bad": " "}, "line 2: key 'sentence_bad' holds ' ', not a sentence"),
    (ROW | {"sentence_bad": ROW["sentence_good"]}, "line 2: .* hold the same sentence"),
    (ROW | {"UID": 5}, "line 2: key 'UID' holds '5'; give a text"),
    ('{"sentence_good": "\\ud83d", "sentence_bad": "x"}', "line 2: the key 'sentence_good' has half a character")])
def test_damaged_rows_are_named(tmp_path: Path, row: Any, said: str) -> None:
    write(tmp_path / "sets/a.jsonl", ROW, row)
    with pytest.raises(FinetraceError, match=said):
        read(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FinetraceError, match=r"minimal_pair_files\.x: sets: no such file or folder"):
        read(tmp_path)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/x.csv").touch()
    with pytest.raises(FinetraceError, match=r"no file in .* is called \*\*/\*\.jsonl; it has x\.csv"):
        read(tmp_path)
    write(tmp_path / "sets/a.jsonl", "")
    with pytest.raises(FinetraceError, match="x: has no pairs"):
        read(tmp_path)
    for wrong, said in (({"path": ""}, "path: name"), ({"path": "a", "files": ["../x"]}, "does not stay inside"),
                        ({"path": "a", "max_pairs": 0}, "max_pairs: 0"), ({"path": "a", "files": ["!x"]}, "at least")):
        with pytest.raises(FinetraceError, match=said):
            parse(MinimalPairFilesSettings, wrong, "x")
    for wrong, said in (({"source": "hub"}, "id: name the hub"), ({"id": "a/b"}, "id: is for source: hub"),
                        ({"configs": ["x"]}, "not for the micro world")):
        with pytest.raises(FinetraceError, match=said):
            parse(MinimalPairsSettings, wrong, "x")


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrace.data.readers import Rows

    asked = []

    def read_hub(name: str, task: Any, only: str) -> dict[str, Rows]:
        asked.append((name, task.id, task.config, task.splits))
        return {only: Rows(list(ROW), [ROW | {"UID": str(task.config)}], ["hub data set x row 0"], {})}

    monkeypatch.setattr("finetrace.data.minimal_pairs.read_hub", read_hub)
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda name, revision: ["one", "two"])
    found = hub_pairs("blimp", MinimalPairsSettings(source="hub", id="nyu-mll/blimp"), 1)
    assert [pair.pair_id for pair in found] == ["one:7", "two:7"]
    assert asked[0] == ("minimal_pairs.blimp", "nyu-mll/blimp", "one", {"test": "train"})


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(WorldSettings(corpus_sentences=4000), 11)


def test_pairs_of_the_world_are_minimal_and_known(world: World) -> None:
    found, corpus = world_pairs(world, 3), {sentence.text for sentence in world.corpus}
    assert Counter(p.phenomenon for p in found) == {"agreement": 75, "argument-structure": 75, "word-order": 100,
                                                    "meaning": 50, "facts": 112, "held-out-facts": 30}
    assert len({p.pair_id for p in found}) == len(found) and {p.field for p in found} == {"grammar", "facts"}
    for pair in found:
        good, bad = pair.good.split(), pair.bad.split()
        assert len(good) == len(bad) and {*good, *bad} <= set(world.vocabulary)
        assert 1 <= sum(g != b for g, b in zip(good, bad, strict=True)) <= 2
        assert pair.bad not in corpus and (pair.field == "facts" or pair.good not in corpus)


def test_bad_facts_are_false_and_of_the_right_type(world: World) -> None:
    true = {(fact.relation, fact.subject): fact.object for fact in world.facts}
    held_out = {fact.fact_id: fact.held_out for fact in world.facts}
    found = [pair for pair in world_pairs(world, 3) if pair.field == "facts"]
    for pair in found:
        relation, subject = pair.pair_id.split(":")
        assert pair.control == held_out[pair.pair_id] == (pair.phenomenon == "held-out-facts")
        said, = set(pair.good.split()) - set(pair.bad.split())
        instead, = set(pair.bad.split()) - set(pair.good.split())
        assert said == true[relation, subject] != instead and instead in world.candidates[relation]
        assert subject in pair.good


def test_the_worlds_pairs_follow_from_its_seed(world: World) -> None:
    assert world_pairs(world, 3, 5) == world_pairs(world, 3, 5) != world_pairs(world, 4, 5)
    assert len({p.paradigm for p in world_pairs(world, 3, 5)}) == 18
    genders = world.lexicon.gender
    for pair in world_pairs(world, 3):
        if pair.paradigm == "possessive-pronoun":
            assert pair.good.split()[2] == ("her" if genders[pair.good.split()[0]] == "f" else "his")

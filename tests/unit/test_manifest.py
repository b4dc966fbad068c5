"""Readers accept a folder only with its manifest and the files that it lists."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetrace.errors import FinetraceError
from finetrace.store.files import atomic_folder, write_json, write_text
from finetrace.store.manifest import (
    COST,
    NAME,
    OF_MANIFEST,
    PROVENANCE,
    UNHASHED,
    Manifest,
    checked_file,
    complete,
    make_key,
    read_key,
    read_manifest,
)

DATA = Path(__file__).parents[1] / "data"
OLD, SAMPLE = DATA / "manifest-v1", DATA / "manifest-v2"
TIMES = {"started_at_ms": 0, "wall_seconds": 0.0, "peak_memory_bytes": 0, "host": {}}


def make(folder: Path, **changes: Any) -> Manifest:
    manifest = Manifest(
        **{
            "kind": "lens",
            "stage": "hulls",
            "name": "a",
            "key": "k" * 64,
            "settings": {"x": 1},
            "inputs": {"data/a": "b" * 64},
            "seeds": {"order": 3},
            **changes,
        }
    )
    write_text(folder / "table.csv", "a,b\n1,2\n")
    write_text(folder / "sub" / "note.txt", "é")
    return manifest


def change(folder: Path, file: str = NAME, **changes: Any) -> None:
    """Edit one of the files, where no hash tells: a folder from DVC's cache has no cost.json."""
    if file != COST:
        (folder / COST).unlink(missing_ok=True)
    content = json.loads((folder / file).read_text())
    write_json(folder / file, {k: v for k, v in {**content, **changes}.items() if v is not ...})


def bare(**changes: Any) -> Manifest:
    return Manifest(**{"kind": "lens", "stage": "s", "name": "n", "key": "k", "settings": {}, "inputs": {}, "seeds": {},
                       **changes})


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "out"
    complete(path, make(path))
    return path


def test_round_trip_and_facts_of_the_making(tmp_path):
    made = make(tmp_path)
    complete(tmp_path, made, started=1_000_000.0)
    read = read_manifest(tmp_path)
    assert read == made
    assert sorted(read.files) == ["sub/note.txt", "table.csv"]
    assert read.files["sub/note.txt"]["bytes"] == 2
    assert read.started_at_ms == 1_000_000_000 and read.wall_seconds > 0
    assert read.peak_memory_bytes > 10_000_000
    assert {"numpy", "torch", "finetrace"} <= set(read.versions)
    assert set(read.host) == {"python", "processor", "system"}


def test_each_of_the_three_files_says_its_part(tmp_path):
    made = make(tmp_path, facts={"rows": 3}, device="H200", code="c" * 64, accepted="a rename")
    complete(tmp_path, made, started=1_000_000.0)
    holds, how, cost = (json.loads((tmp_path / name).read_text()) for name in (NAME, PROVENANCE, COST))
    assert set(holds) == {"schema_version", "kind", "stage", "name", "facts", "files"}
    assert set(how) == {"key", "settings", "inputs", "seeds", "device", "versions", "code", "accepted"}
    assert set(cost) == {"key", "started_at_ms", "wall_seconds", "peak_memory_bytes", "host", "sha256"}
    assert (how["accepted"], how["device"], cost["key"]) == ("a rename", "H200", "k" * 64)


def test_equal_content_that_other_code_made_has_an_equal_manifest(tmp_path):
    """DVC then makes nothing again that builds on it."""
    for name, made in {"a": {"code": "a" * 64, "key": "a" * 64, "inputs": {"x": "1"}},
                       "b": {"settings": {"x": 2}}}.items():
        complete(tmp_path / name, make(tmp_path / name, facts={"rows": 3}, **made), started=1_000_000.0)
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()
    assert (tmp_path / "a" / PROVENANCE).read_bytes() != (tmp_path / "b" / PROVENANCE).read_bytes()
    assert read_key(tmp_path / "a") == read_key(tmp_path / "b")


def test_two_equal_runs_differ_in_their_costs_alone(tmp_path):
    for name, started in (("a", 1_000_000.0), ("b", 2_000_000.0)):
        complete(tmp_path / name, make(tmp_path / name), started=started)
    differ = [name for name in OF_MANIFEST
              if (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()]
    assert differ == [COST]


def test_times_given_are_kept(tmp_path):
    complete(tmp_path, make(tmp_path, started_at_ms=5, wall_seconds=7.0, peak_memory_bytes=9), started=1_000_000.0)
    read = read_manifest(tmp_path)
    assert (read.started_at_ms, read.wall_seconds, read.peak_memory_bytes) == (5, 7.0, 9)


def test_frozen_sample_of_version_2_still_reads(tmp_path):
    read = read_manifest(SAMPLE, verify="content")
    assert dataclasses.asdict(read) == {
        k: v for name in OF_MANIFEST for k, v in json.loads((SAMPLE / name).read_text()).items()}
    assert read.facts["train"]["learning_rate"] == 5e-5 and read.wall_seconds == 12.5
    # Downstream manifests hold this hash: if it changes, every stage of every study runs again.
    assert read_key(SAMPLE) == "5fdbaaffdce93b88360a778326a52438582221d469e85670e36011406bed24e7"
    shutil.copytree(SAMPLE, tmp_path / "again")
    complete(tmp_path / "again", read)
    for name in (NAME, PROVENANCE):
        assert (tmp_path / "again" / name).read_bytes() == (SAMPLE / name).read_bytes()
    cost = json.loads((tmp_path / "again" / COST).read_text())
    del cost["sha256"]  # newer than the sample
    assert cost == json.loads((SAMPLE / COST).read_text())


def test_a_folder_of_version_1_is_to_be_made_again():
    for reader in (read_manifest, read_key):
        with pytest.raises(FinetraceError,
                           match=r"manifest-v1/manifest\.json: schema_version 1 is not 2; run its stage "
                                                 "again with this version of finetrace"):
            reader(OLD)


def test_without_its_costs_a_folder_is_whole(folder):
    expected = dataclasses.asdict(read_manifest(folder)) | TIMES
    (folder / COST).unlink()
    assert dataclasses.asdict(read_manifest(folder, verify="content")) == expected


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"key": "of another run", "wall_seconds": 9}'])
def test_damaged_costs_and_those_of_another_run_are_as_good_as_none(folder, content):
    (folder / COST).write_text(content)
    assert {k: v for k, v in vars(read_manifest(folder)).items() if k in TIMES} == TIMES


def test_unknown_keys_of_a_later_minor_version_are_ignored(folder):
    change(folder, colour="blue")
    assert read_manifest(folder).name == "a"


@pytest.mark.parametrize("name", [NAME, PROVENANCE])
def test_folder_without_manifest_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        FinetraceError, match=rf"out: has no {name}, so its writer did not finish; run its stage again"
    ):
        read_manifest(folder)


def test_absent_folder_is_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"nothing: no such folder; run the stage that writes it \(finetrace "
                                             r"repro\)"):
        read_manifest(tmp_path / "nothing")


@pytest.mark.parametrize("name", [NAME, PROVENANCE])
@pytest.mark.parametrize("content", ["", "{", "\x00\x01", "[]", "3", '"text"'])
def test_damaged_manifest_is_named(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(FinetraceError, match=rf"{name}: .*delete the folder and run its stage again"):
        read_manifest(folder)


def test_manifest_in_another_encoding_is_named(folder):
    (folder / NAME).write_bytes(b"\xff\xfe{}")
    with pytest.raises(FinetraceError, match=r"manifest\.json: not valid JSON"):
        read_manifest(folder)


def test_manifest_that_lacks_a_field_is_refused(folder):
    change(folder, kind=..., files=...)
    with pytest.raises(FinetraceError, match=r"manifest\.json: lacks kind, files"):
        read_manifest(folder)


def test_provenance_that_lacks_a_field_is_refused(folder):
    change(folder, PROVENANCE, seeds=..., key=...)
    with pytest.raises(FinetraceError, match=r"provenance\.json: lacks key, seeds"):
        read_manifest(folder)


@pytest.mark.parametrize("name", [NAME, PROVENANCE])
def test_one_other_byte_in_either_file_is_told_with_its_name(folder, name):
    """Every third byte, each with two of its bits: no traceback, and no other value read for right."""
    right = (folder / name).read_bytes()
    for place in range(0, len(right), 3):
        for bit in (0, 2):
            (folder / name).write_bytes(right[:place] + bytes([right[place] ^ 1 << bit]) + right[place + 1:])
            try:
                found = read_manifest(folder, verify=False)
            except FinetraceError as error:
                assert name in str(error), error
            else:  # only the key, by which the run that cost.json tells of is known
                assert found.key != "k" * 64 and name == PROVENANCE
    (folder / name).write_bytes(right)
    read_manifest(folder)


@pytest.mark.parametrize("name", [NAME, PROVENANCE])
def test_where_no_hash_is_there_damage_gives_no_traceback(folder, name):
    (folder / COST).unlink()
    right = (folder / name).read_bytes()
    for place in range(0, len(right), 2):
        (folder / name).write_bytes(right[:place] + bytes([right[place] ^ 4]) + right[place + 1:])
        with contextlib.suppress(FinetraceError):
            read_manifest(folder)


def test_damaged_costs_keep_no_folder_back(folder):
    right = (folder / COST).read_bytes()
    for place in range(0, len(right), 2):
        (folder / COST).write_bytes(right[:place] + bytes([right[place] ^ 4]) + right[place + 1:])
        assert read_manifest(folder).name == "a"


@pytest.mark.parametrize(("file", "changes"), [
    (NAME, {"facts": [1]}), (NAME, {"files": []}), (NAME, {"files": {"table.csv": 3}}),
    (NAME, {"files": {"table.csv": {"bytes": "8", "sha256": "0"}}}), (NAME, {"kind": 3}), (PROVENANCE, {"key": None}),
    (PROVENANCE, {"inputs": "x"})])
def test_entries_of_another_type_are_refused(folder, file, changes):
    change(folder, file, **changes)
    with pytest.raises(FinetraceError, match=rf"{file}: its entry {next(iter(changes))}.* is not what its stage wrote"):
        read_manifest(folder)


def test_one_file_of_a_folder_is_checked(folder):
    assert checked_file(folder, "table.csv") == folder / "table.csv"
    text = (folder / "table.csv").read_text()
    (folder / "table.csv").write_text(text[:-1] + "9")
    with pytest.raises(FinetraceError, match=r"table\.csv: its content is not what its stage wrote"):
        checked_file(folder, "table.csv")
    with pytest.raises(FinetraceError, match=r"manifest\.json: lists no other\.csv"):
        checked_file(folder, "other.csv")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None, ...])
def test_other_schema_versions_are_refused(folder, version):
    change(folder, schema_version=version)
    with pytest.raises(FinetraceError, match=r"schema_version .* is not 2; run its stage again"):
        read_manifest(folder)


def test_truncated_or_missing_file_is_refused(folder):
    (folder / "table.csv").write_text("a,b\n1,")
    with pytest.raises(FinetraceError, match=r"table\.csv: 6 instead of 8 bytes; delete the folder"):
        read_manifest(folder)
    assert read_manifest(folder, verify=False).name == "a"
    shutil.rmtree(folder / "sub")
    (folder / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FinetraceError, match=r"note\.txt: absent instead of 2 bytes"):
        read_key(folder)


@pytest.mark.parametrize("verify", [True, "content"])
def test_content_of_the_same_size_is_compared(folder, verify):
    (folder / "table.csv").write_text("a,b\n1,3\n")
    assert read_manifest(folder, verify=False).name == "a"
    with pytest.raises(FinetraceError, match=r"table\.csv: its content is not what its stage wrote .* delete the "
                                             r"folder"):
        read_manifest(folder, verify=verify)


def test_key_does_not_depend_on_times_or_the_place(tmp_path):
    for name, made in {
        "a": {},
        "b": {"started_at_ms": 9, "wall_seconds": 99.0, "device": "H200", "versions": {"numpy": "2"}},
    }.items():
        complete(tmp_path / name, make(tmp_path / name, **made))
        write_text(tmp_path / name / "timing.parquet", name)  # how long steps took is no result
        write_text(tmp_path / name / "journal.log", name)  # nor when trials were searched
        complete(tmp_path / name, make(tmp_path / name, **made))
    assert read_key(tmp_path / "a") == read_key(tmp_path / "b")
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()
    assert sorted(read_manifest(tmp_path / "a").files) == ["sub/note.txt", "table.csv"]


def test_what_a_manifest_does_not_count_dvc_does_not_count_either():
    ignored = (Path(__file__).parents[2] / ".dvcignore").read_text().split()
    assert set(UNHASHED) <= set(ignored) and not {NAME, PROVENANCE} & set(ignored)


def test_key_follows_contents_names_and_facts(tmp_path):
    keys = []
    for name, files in {"a": {"x": "1"}, "b": {"x": "2"}, "c": {"y": "1"}, "d": {"x": "1", "y": "1"}}.items():
        for file, text in files.items():
            write_text(tmp_path / name / file, text)
        complete(tmp_path / name, bare())
        keys.append(read_key(tmp_path / name))
    complete(tmp_path / "a", bare(facts={"rows": 1}))
    assert len({*keys, read_key(tmp_path / "a")}) == 5


def test_a_folder_within_that_has_a_manifest_is_apart(tmp_path):
    """How figures look, and which sets out of distribution there are, must not change what the rest holds."""
    complete(tmp_path, make(tmp_path))
    alone = read_key(tmp_path)
    complete(tmp_path / "figures", make(tmp_path / "figures"))
    complete(tmp_path, make(tmp_path))
    assert sorted(read_manifest(tmp_path).files) == ["sub/note.txt", "table.csv"] and read_key(tmp_path) == alone
    (tmp_path / "figures" / NAME).unlink()
    complete(tmp_path, make(tmp_path))
    assert {"figures/table.csv", "figures/provenance.json"} <= set(read_manifest(tmp_path).files)


def test_make_key_follows_each_of_its_parts():
    base: dict[str, Any] = {"stage": "train", "settings": {"a": 1, "b": [1, 2]}, "inputs": {"x": "1", "z": "1"},
                            "code": "c"}
    assert make_key(**base) == make_key(**{**base, "inputs": {"z": "1", "x": "1"}})
    others: list[dict[str, Any]] = [
        {"stage": "tune"},
        {"settings": {"a": 1, "b": [2, 1]}},
        {"settings": {"b": [1, 2], "a": 1}},  # a search draws its dimensions in this order
        {"inputs": {"x": "2", "z": "1"}},
        {"inputs": {"y": "1", "z": "1"}},
        {"code": "d"},
    ]
    assert len({make_key(**base), *(make_key(**{**base, **other}) for other in others)}) == 7


def test_an_interrupted_stage_leaves_a_folder_that_readers_refuse_or_the_old_one(tmp_path):
    path = tmp_path / "out"
    for text in ("first", "second"):
        try:
            with atomic_folder(path) as out:
                write_text(out / "a.txt", text)
                if text == "second":
                    raise KeyboardInterrupt
                complete(out, bare())
        except KeyboardInterrupt:
            pass
    read_manifest(path)
    assert (path / "a.txt").read_text() == "first"

"""Readers accept a folder only with its manifest and the files that it lists."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from finetrace.errors import FinetraceError
from finetrace.store.files import atomic_folder, write_json, write_text
from finetrace.store.manifest import NAME, Manifest, code_digest, complete, make_key, read_key, read_manifest

SAMPLE = Path(__file__).parents[1] / "data" / "manifest-v1"


def make(folder: Path, **changes) -> Manifest:
    manifest = Manifest(
        **{
            "kind": "lens",
            "stage": "hulls",
            "name": "a",
            "study": "demo",
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


def change(folder: Path, **changes) -> None:
    content = json.loads((folder / NAME).read_text())
    write_json(folder / NAME, {k: v for k, v in {**content, **changes}.items() if v is not ...})


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
    assert {"python", "numpy", "torch", "finetrace"} <= set(read.versions)


def test_times_given_are_kept(tmp_path):
    complete(tmp_path, make(tmp_path, started_at_ms=5, wall_seconds=7.0, peak_memory_bytes=9), started=1_000_000.0)
    read = read_manifest(tmp_path)
    assert (read.started_at_ms, read.wall_seconds, read.peak_memory_bytes) == (5, 7.0, 9)


def test_frozen_sample_of_version_1_still_reads():
    read = read_manifest(SAMPLE)
    assert dataclasses.asdict(read) == json.loads((SAMPLE / NAME).read_text())
    assert read.settings["train"]["learning_rate"] == 5e-5
    # Downstream manifests hold this hash: if it changes, every stage of every study runs again.
    assert read_key(SAMPLE) == "4a6cb0cda833030f0b7927420ef9da8149f6563901b465b67a1cbaaf5aa031b4"


def test_unknown_keys_of_a_later_minor_version_are_ignored(folder):
    change(folder, colour="blue")
    assert read_manifest(folder).name == "a"


def test_folder_without_manifest_is_refused(folder):
    (folder / NAME).unlink()
    with pytest.raises(
        FinetraceError, match=r"out: has no manifest\.json, so its writer did not finish; run its stage again"
    ):
        read_manifest(folder)


def test_absent_folder_is_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"nothing: no such folder; run the stage that writes it \(dvc repro\)"):
        read_manifest(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["", "{", "\x00\x01", "[]", "3", '"text"'])
def test_damaged_manifest_is_named(folder, content):
    (folder / NAME).write_text(content)
    with pytest.raises(FinetraceError, match=r"manifest\.json: .*delete the folder and run its stage again"):
        read_manifest(folder)


def test_manifest_in_another_encoding_is_named(folder):
    (folder / NAME).write_bytes(b"\xff\xfe{}")
    with pytest.raises(FinetraceError, match=r"manifest\.json: not valid JSON"):
        read_manifest(folder)


def test_manifest_that_lacks_a_field_is_refused(folder):
    change(folder, seeds=..., kind=...)
    with pytest.raises(FinetraceError, match=r"manifest\.json: lacks kind, seeds"):
        read_manifest(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None, ...])
def test_other_schema_versions_are_refused(folder, version):
    change(folder, schema_version=version)
    with pytest.raises(FinetraceError, match=r"schema_version .* is not 1; run its stage again"):
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


def test_key_does_not_depend_on_times_or_the_place(tmp_path):
    for name, made in {
        "a": {},
        "b": {"started_at_ms": 9, "wall_seconds": 99.0, "device": "H200", "versions": {"python": "2"}},
    }.items():
        complete(tmp_path / name, make(tmp_path / name, **made))
        write_text(tmp_path / name / "timing.parquet", name)  # how long steps took is no result
        complete(tmp_path / name, make(tmp_path / name, **made))
    assert read_key(tmp_path / "a") == read_key(tmp_path / "b")
    assert (tmp_path / "a" / NAME).read_bytes() != (tmp_path / "b" / NAME).read_bytes()


def test_key_follows_contents_and_names(tmp_path):
    keys = []
    for name, files in {"a": {"x": "1"}, "b": {"x": "2"}, "c": {"y": "1"}, "d": {"x": "1", "y": "1"}}.items():
        for file, text in files.items():
            write_text(tmp_path / name / file, text)
        complete(tmp_path / name, Manifest("lens", "s", "n", "st", "k", {}, {}, {}))
        keys.append(read_key(tmp_path / name))
    assert len(set(keys)) == 4


def test_manifests_inside_do_not_count(tmp_path):
    """A checkpoint's own manifest holds times; the trajectory's key must not."""
    complete(tmp_path / "checkpoints", make(tmp_path / "checkpoints"))
    complete(tmp_path, make(tmp_path))
    assert "checkpoints/manifest.json" not in read_manifest(tmp_path).files
    assert "checkpoints/table.csv" in read_manifest(tmp_path).files


def test_make_key_follows_each_of_its_parts():
    base = {"stage": "train", "settings": {"a": 1, "b": [1, 2]}, "inputs": {"x": "1"}, "code": "c"}
    assert make_key(**base) == make_key(**{**base, "settings": {"b": [1, 2], "a": 1}})
    others = [
        {"stage": "tune"},
        {"settings": {"a": 1, "b": [2, 1]}},
        {"inputs": {"x": "2"}},
        {"inputs": {"y": "1"}},
        {"code": "d"},
    ]
    assert len({make_key(**base), *(make_key(**{**base, **other}) for other in others)}) == 6


def test_code_digest_follows_sources_but_not_caches(tmp_path):
    write_text(tmp_path / "room" / "a.py", "x = 1\n")
    write_text(tmp_path / "b.py", "y = 1\n")
    before = code_digest(tmp_path, "room", "b.py")
    (tmp_path / "room" / "__pycache__").mkdir()
    (tmp_path / "room" / "__pycache__" / "a.pyc").write_text("x")
    assert code_digest(tmp_path, "room", "b.py") == before
    write_text(tmp_path / "room" / "a.py", "x = 2\n")
    assert code_digest(tmp_path, "room", "b.py") != before


def test_an_interrupted_stage_leaves_a_folder_that_readers_refuse_or_the_old_one(tmp_path):
    path = tmp_path / "out"
    for text in ("first", "second"):
        try:
            with atomic_folder(path) as out:
                write_text(out / "a.txt", text)
                if text == "second":
                    raise KeyboardInterrupt
                complete(out, Manifest("lens", "s", "n", "st", "k", {}, {}, {}))
        except KeyboardInterrupt:
            pass
    read_manifest(path)
    assert (path / "a.txt").read_text() == "first"

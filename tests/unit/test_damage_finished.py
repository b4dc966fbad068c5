"""One flipped byte in a finished folder is found by whoever opens it; large files are hashed once, not by every
reader."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.stages import ask, stage_of

from finetrace.errors import FinetraceError
from finetrace.store import verified
from finetrace.store.files import sha256_file
from finetrace.store.manifest import Manifest, complete, read_key, read_manifest
from finetrace.store.verified import first_damaged, remember_in

LARGE = verified.SMALL + 10


@pytest.fixture(autouse=True)
def fresh_memory() -> Iterator[None]:
    remember_in(None)
    yield
    remember_in(None)


def finished(folder: Path) -> Path:
    """A folder with a small and a large file, an hour old."""
    (folder / "hidden").mkdir(parents=True)
    (folder / "metrics.json").write_text('{"accuracy": 0.5}')
    (folder / "hidden" / "cls.npy").write_bytes(np.random.default_rng(0).bytes(LARGE))
    complete(folder, Manifest("hidden", "hidden", "a", "key", {}, {}, {}), started=0.0)
    for path in folder.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    return folder


def flip(path: Path, place: int = 5) -> None:
    with open(path, "r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("name", ["metrics.json", "hidden/cls.npy"])
@pytest.mark.parametrize("read", [read_manifest, read_key])
def test_a_flipped_byte_is_told_to_every_reader(tmp_path: Path, name: str, read) -> None:
    folder = finished(tmp_path / "out")
    read(folder)
    flip(folder / name)
    with pytest.raises(FinetraceError) as error:
        read(folder)
    assert str(error.value).startswith(f"{folder / name}: its content is not what its stage wrote")
    assert "run its stage again (finetrace repro)" in str(error.value)
    assert read_manifest(folder, verify=False).name == "a"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed, in turn."""
    found: list[str] = []

    def noted(path: Path) -> str:
        found.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(verified, "sha256_file", noted)
    return found


def test_a_large_file_is_hashed_once_for_all_processes(tmp_path: Path, hashed: list[str]) -> None:
    folder, memory = finished(tmp_path / "out"), tmp_path / "memory"
    remember_in(memory)
    for _ in range(2):
        read_manifest(folder)
    assert hashed == ["cls.npy", "metrics.json", "metrics.json"]
    remember_in(memory)  # as another process begins
    read_manifest(folder)
    assert hashed.count("cls.npy") == 1
    remember_in(None)  # one that knows no memory
    read_manifest(folder)
    assert hashed.count("cls.npy") == 2


def test_what_was_touched_since_is_hashed_again(tmp_path: Path, hashed: list[str]) -> None:
    folder, memory = finished(tmp_path / "out"), tmp_path / "memory"
    path = folder / "hidden" / "cls.npy"
    remember_in(memory)
    read_manifest(folder)
    os.utime(path, ns=(10**18, 10**18 + 1))
    read_manifest(folder)
    other = path.with_name("copy")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(10**18, 10**18 + 1))
    os.replace(other, path)  # another inode
    remember_in(memory)
    read_manifest(folder)
    assert hashed.count("cls.npy") == 3
    assert first_damaged(folder, {"hidden/cls.npy": "0" * 64}) == "hidden/cls.npy", "another content is asked for"


def test_what_has_just_been_written_is_not_trusted_yet(tmp_path: Path, hashed: list[str]) -> None:
    folder = finished(tmp_path / "out")
    os.utime(folder / "hidden" / "cls.npy")
    for _ in range(2):
        read_manifest(folder)
    assert hashed.count("cls.npy") == 2


@pytest.mark.parametrize("content", ["", "[]", '{"folder": 1}', '{"folder": "HERE", "files": {"hidden/cls.npy": [1]}}'])
def test_a_damaged_memory_is_as_good_as_none(tmp_path: Path, hashed: list[str], content: str) -> None:
    folder, memory = finished(tmp_path / "out"), tmp_path / "memory"
    remember_in(memory)
    read_manifest(folder)
    (file,) = memory.iterdir()
    file.write_text(content.replace("HERE", str(folder)))
    remember_in(memory)
    read_manifest(folder)
    assert hashed.count("cls.npy") == 2


def test_a_memory_that_cannot_be_written_is_no_matter(tmp_path: Path) -> None:
    folder = finished(tmp_path / "out")
    (tmp_path / "memory").write_text("a file where a folder should be")
    remember_in(tmp_path / "memory")
    read_manifest(folder)


def test_a_stage_refuses_damaged_inputs_and_the_model_whose_tokenizer_it_reads(tmp_path: Path) -> None:
    source, model = finished(tmp_path / "outputs" / "a" / "hidden"), finished(tmp_path / "models" / "tiny")
    ask(tmp_path, "geometry", "a", place="a", model="tiny")
    stage = stage_of(tmp_path, "geometry", "a")
    key = stage.manifest("lens", {source: source}).key
    assert key == stage.manifest("lens", {source: source}).key
    for folder in (source, model):
        flip(folder / "metrics.json")
        with pytest.raises(FinetraceError, match=r"metrics\.json: its content is not what its stage wrote"):
            stage.manifest("lens", {source: source})
        flip(folder / "metrics.json")

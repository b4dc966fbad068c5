"""Hashes that are remembered as long as nothing was touched."""

import hashlib
import os
from pathlib import Path

import pytest

from finetrace.pipeline.hashes import Hashes


@pytest.fixture
def asked() -> list[str]:
    """Folders that DVC was asked about."""
    return []


def hashes(root: Path, asked: list[str]) -> Hashes:
    def of_folder(path: str) -> str:
        asked.append(Path(path).name)
        return f"{len(asked)}.dir"

    return Hashes(root / "hashes.json", root, of_folder)


def age(path: Path) -> None:
    """Let all files in a folder be old enough to be remembered."""
    for number, file in enumerate(sorted(path.rglob("*"))):
        os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))


def test_a_folder_is_hashed_again_when_a_file_was_touched(tmp_path: Path, asked: list[str]) -> None:
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_text("a")
    age(folder)
    known = hashes(tmp_path, asked)
    assert known.of("out") == known.of("out") == "1.dir" and known.of("absent") is None
    known.write(["out"])
    again = hashes(tmp_path, asked)
    assert again.of("out") == "1.dir" and asked == ["out"]
    (folder / "deep" / "a").write_text("b")
    age(folder)
    os.utime(folder / "deep" / "a", (1_750_000_000, 1_750_000_000))
    assert again.of("out") == "2.dir"
    (folder / "deep" / "a").rename(folder / "a")
    assert again.of("out") == "3.dir"
    again.learn("out", "9.dir")
    assert again.of("out") == "9.dir" and asked == ["out"] * 3


def test_what_was_touched_just_now_is_not_remembered(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"1\r\n")
    known = hashes(tmp_path, asked)
    assert known.of("file") == hashlib.md5(b"1\r\n").hexdigest()
    facts = (tmp_path / "file").stat()
    (tmp_path / "file").write_bytes(b"2\r\n")
    os.utime(tmp_path / "file", ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as when both fall into one tick of a clock
    assert known.of("file") == hashlib.md5(b"2\r\n").hexdigest()


@pytest.mark.parametrize("content", ["", "[]", "{\"out\": 1}", "{", "{\"out\": [1]}"])
def test_a_damaged_memory_is_as_good_as_none(tmp_path: Path, asked: list[str], content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "hashes.json").write_text(content)
    assert hashes(tmp_path, asked).of("out") == "1.dir"

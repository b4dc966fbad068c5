"""Measurements kept beside DVC's outputs: put back only when whole and made for the same key; links where links can
be."""

import os
import shutil
from pathlib import Path

import pytest

from finetrace.store import kept as module
from finetrace.store.files import write_text
from finetrace.store.kept import keep_files, restore_files
from finetrace.store.manifest import Manifest, complete, read_manifest

KEY = "a" * 64


def finished(folder: Path, key: str = KEY, text: str = "1,2\n") -> Path:
    (folder / "parts").mkdir(parents=True)
    (folder / "curves.csv").write_text(text)
    (folder / "parts" / "one.bin").write_bytes(bytes(range(9)))
    complete(folder, Manifest(kind="lens", stage="x", name="y", key=key, settings={}, inputs={}, seeds={},
                              facts={"rows": 2}))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put_back(kept: Path, tmp_path: Path, key: str = KEY) -> Path | None:
    """The folder into which it was put, or None, and then the folder is still empty."""
    folder = tmp_path / "again"
    folder.mkdir()
    if restore_files(kept, key, folder):
        return folder
    assert not list(folder.iterdir())
    return None


@pytest.mark.parametrize("links", [True, False])
def test_what_is_kept_comes_back_when_the_outputs_are_gone(tmp_path: Path, links: bool,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        def refuse(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(module.os, "link", refuse)
    out, kept = finished(tmp_path / "out"), tmp_path / "home" / "measured" / "x" / "y"
    keep_files(out, kept)
    expected = content(out)
    assert content(kept) == expected
    assert os.path.samefile(out / "curves.csv", kept / "curves.csv") is links
    shutil.rmtree(out)
    again = put_back(kept, tmp_path)
    assert again is not None and content(again) == expected
    assert read_manifest(again, verify="content").facts == {"rows": 2}
    write_text(again / "curves.csv", "another")  # written beside and renamed, as all files of a stage
    assert content(kept) == expected


def test_a_later_version_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    keep_files(finished(tmp_path / "first"), kept)
    (tmp_path / "first" / "more").write_text("not listed, not copied later")
    keep_files(finished(tmp_path / "second", "b" * 64, "3\n"), kept)
    assert content(kept) == content(tmp_path / "second") and [p.name for p in tmp_path.glob(".tmp*")] == []
    assert put_back(kept, tmp_path) is None
    shutil.rmtree(tmp_path / "again")
    assert put_back(kept, tmp_path, "b" * 64) is not None


def test_what_is_not_whole_is_not_put_back(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert put_back(kept, tmp_path) is None  # there is none
    shutil.rmtree(tmp_path / "again")

    def other(name: str, change: str) -> None:
        shutil.rmtree(kept, ignore_errors=True)
        keep_files(finished(tmp_path / name), kept)
        file = kept / change
        content = file.read_bytes()
        file.unlink()
        if name == "same-size":
            file.write_bytes(content[:-1] + b"?")
        elif name == "longer":
            file.write_bytes(content + b"?")
        assert put_back(kept, tmp_path) is None
        shutil.rmtree(tmp_path / "again")

    other("gone", "parts/one.bin")
    other("same-size", "curves.csv")
    other("longer", "parts/one.bin")
    other("no-manifest", "manifest.json")
    other("no-provenance", "provenance.json")


def test_what_is_kept_without_its_costs_is_whole(tmp_path: Path) -> None:
    keep_files(finished(tmp_path / "out"), tmp_path / "kept")
    (tmp_path / "kept" / "cost.json").unlink()
    assert put_back(tmp_path / "kept", tmp_path) is not None

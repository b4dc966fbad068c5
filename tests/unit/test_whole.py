"""Pieces of unfinished work: damaged ones are made again, whole ones are handed over as they are."""

import logging

import pytest

from finetrace.store.whole import NAME, hand_over, is_whole, whole_folder


@pytest.fixture
def piece(tmp_path):
    with whole_folder(tmp_path / "piece") as out:
        (out / "a.npy").write_bytes(b"12345")
        (out / "inner").mkdir()
        (out / "inner" / "b.json").write_text("{}")
    return tmp_path / "piece"


def test_a_whole_piece_is_handed_over_without_its_hashes(piece, tmp_path):
    assert is_whole(piece) and (piece / NAME).is_file()
    hand_over(piece, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["a.npy", "b.json", "inner"] and not piece.exists()
    assert not is_whole(piece)


@pytest.mark.parametrize("damage", [
    lambda p: (p / "a.npy").write_bytes(b"12346"), lambda p: (p / "inner" / "b.json").unlink(),
    lambda p: (p / "more").write_text(""), lambda p: (p / NAME).unlink(), lambda p: (p / NAME).write_text("{"),
    lambda p: (p / NAME).write_bytes(b"\xff")])
def test_a_damaged_piece_is_removed_and_told(piece, damage, caplog):
    damage(piece)
    with caplog.at_level(logging.WARNING):
        assert not is_whole(piece) and not piece.exists()
    assert f"{piece}: is damaged since it was written" in caplog.text


def test_a_piece_that_fails_is_not_there(tmp_path):
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "piece") as out:
        (out / "a").write_text("x")
        raise RuntimeError
    assert not (tmp_path / "piece").exists()

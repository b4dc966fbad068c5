"""The frame of the drill book: every script is in it, every row ends in one of three ways, and one failure counts."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from drills import book, frame
from drills.frame import CANNOT, FAILED, PASSED, CannotRun, Result, Row, must

DRILLS = Path(__file__).parents[2] / "drills"


def test_every_script_is_in_the_book_and_no_row_stands_twice() -> None:
    frames = {"__init__", "book", "frame", "toy"}
    assert {path.stem for path in DRILLS.glob("*.py")} - frames == set(book.SCRIPTS) == set(book.SECONDS)
    for script in book.SCRIPTS:
        names = [row.name for row in import_module(f"drills.{script}").ROWS]
        assert names and len(set(names)) == len(names), script
    assert sum(book.SECONDS[script] for script in book.SCRIPTS if script != "install") <= 2 * 3600


def _fails(folder: Path) -> str:
    must(False, "it did not")
    return "never"


def _cannot(folder: Path) -> str:
    raise CannotRun("no such tool")


def _breaks(folder: Path) -> str:
    raise KeyError("x")


@pytest.mark.parametrize(("drill", "end", "saw"), [(lambda folder: "as expected", PASSED, "as expected"),
                                                   (_fails, FAILED, "it did not"), (_cannot, CANNOT, "no such tool"),
                                                   (_breaks, FAILED, "KeyError: 'x'")])
def test_how_a_row_ends(drill, end: str, saw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    monkeypatch.setattr("sys.argv", ["drill", "--work", str(tmp_path / "work"), "--results", str(results)])
    with pytest.raises(SystemExit) as stopped:
        frame.main("some", [Row("a row", "did", "expected", drill)])
    (told,) = [Result(**json.loads(line)) for line in results.read_text().splitlines()]
    assert (told.end, told.saw, told.name) == (end, saw, "a row")
    assert bool(stopped.value.code) == (end == FAILED)


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(script: str, work: Path) -> list[Result]:
        return [Result(script, "a", "cut | flip", "told", "told", end, 1.0) for end in (PASSED, CANNOT)]

    monkeypatch.setattr(book, "_run", run)
    out = tmp_path / "page.md"
    monkeypatch.setattr("sys.argv", ["book", "hub", "--out", str(out)])
    assert book.main() == 0
    page = out.read_text("utf-8")
    assert "2 drills in 0 minutes: 1 passed, 0 failed, 1 could not run on the machine." in page
    assert "cut \\| flip" in page and "## The hub" in page and "## Kills" not in page
    assert str(out) in capsys.readouterr().out
    monkeypatch.setattr(book, "_run", lambda script, work: [Result(script, "a", "", "", "", FAILED, 1.0)])
    assert book.main() == 1


def test_rows_that_a_script_does_not_tell_of_have_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(book.SECONDS, "hub", 0)
    ended = book._run("hub", tmp_path)
    assert len(ended) == len(import_module("drills.hub").ROWS)
    assert {result.end for result in ended} == {FAILED} and "not reached" in ended[0].saw

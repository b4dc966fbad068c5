"""DVC's view of a project, on a small project of its own."""

from pathlib import Path

import pytest
import yaml
from dvc.exceptions import CacheLinkError
from dvc.repo import Repo

from finetrace.errors import FinetraceError
from finetrace.pipeline.graph import Graph

STAGES = {
    "one": {"cmd": "cp a.txt one.txt", "deps": ["a.txt"], "outs": ["one.txt"]},
    "two": {"cmd": "cp one.txt two.txt", "deps": ["one.txt", "b.txt"], "outs": ["two.txt"]},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    for name in ("a.txt", "b.txt", "one.txt", "two.txt"):
        (tmp_path / name).write_text(f"{name}\r\n")
    return tmp_path


def test_what_is_recorded_is_current(root: Path) -> None:
    graph = Graph(root)
    assert graph.after == {"one": set(), "two": {"one"}} and graph.command("two") == "cp one.txt two.txt"
    assert set(graph.changes("one")) >= {"a.txt"}
    graph.record(["one", "two"])
    graph.close()
    again = Graph(root)
    assert again.changes("one") == again.changes("two") == []
    (root / "b.txt").write_text("other")
    assert again.changes("one") == [] and again.changes("two") == ["b.txt"]
    again.close()


def test_a_lock_of_another_graph_is_taken_over(root: Path) -> None:
    """As DVC 2 wrote it, with hashes of texts without their carriage returns, and with stages that are gone."""
    old = {"cmd": "cp a.txt one.txt", "deps": [{"path": "a.txt", "md5": "0" * 32, "size": 7}],
           "outs": [{"path": "one.txt", "md5": "1" * 32, "size": 7}]}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"gone": old, "one": old}}))
    graph = Graph(root)
    assert set(graph.changes("one")) >= {"a.txt"}
    before = graph.inputs("one")
    graph.record(["two", "one"])
    graph.tidy_lock()
    assert graph.inputs("one") == before
    graph.close()
    again = Graph(root)
    assert again.changes("one") == again.changes("two") == [] and again.inputs("one") == before
    again.close()
    assert list(yaml.safe_load((root / "dvc.lock").read_text())["stages"]) == ["one", "two"]


def test_links_that_the_file_system_does_not_have_are_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (root / ".dvc/config").open("a") as config:
        config.write("[cache]\n    type = reflink\n")

    def refuse(*_: object, **__: object) -> None:
        raise CacheLinkError(["one.txt"])

    monkeypatch.setattr("dvc.stage.Stage.commit", refuse)  # some file systems have them
    graph = Graph(root)
    with pytest.raises(FinetraceError, match=r"cache\.type reflink: the file system has no such links"):
        graph.record(["one"])
    graph.close()
    assert not (root / "dvc.lock").exists()


def test_what_is_absent_is_named(root: Path) -> None:
    (root / "b.txt").unlink()
    (root / "two.txt").unlink()
    graph = Graph(root)
    with pytest.raises(FinetraceError, match=r"two: b\.txt does not exist"):
        graph.inputs("two")
    assert graph.absent("two") == ["two.txt"] and graph.absent("one") == []
    graph.close()
    (root / "dvc.yaml").write_text("stages: {one: {outs: [x]}}\n")
    with pytest.raises(FinetraceError, match=r"dvc\.yaml"):
        Graph(root)


def test_an_earlier_run_comes_back_from_the_cache(root: Path) -> None:
    graph = Graph(root)
    graph.record(["one", "two"])
    (root / "one.txt").unlink()
    assert graph.restore("one") and (root / "one.txt").read_bytes() == b"one.txt\r\n"
    (root / "a.txt").write_text("other")
    assert not Graph(root).restore("one")
    graph.close()

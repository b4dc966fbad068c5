"""dvc.yaml and dvc.lock as they are read here, against DVC's own reading of them."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.dvcfile import Lockfile
from dvc.repo import Repo
from dvc.utils.serialize import dumps_yaml, load_yaml

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.compile import write_plan
from finetrace.pipeline.graph import Graph
from finetrace.pipeline.items import NotPlain, readers, written_out
from finetrace.pipeline.lockfile import HEAD, Irregular, LockFile
from finetrace.study import load_study

ROOT = Path(__file__).parents[2]
PLAIN = {"cmd": "run ${key}", "deps": ["in/${item.at}"], "outs": ["out/${key}"]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("params", ["params.yaml", "tests/pipeline/params.yaml"])
def test_items_are_those_of_dvc(project: Path, monkeypatch: pytest.MonkeyPatch, params: str) -> None:
    write_plan(Layout(project, project), load_study(ROOT / params))
    ours = Graph(project)
    assert ours._lock is not None, "read here"
    monkeypatch.setattr("finetrace.pipeline.graph.written_out", not_plain)
    of_dvc = Graph(project)
    assert of_dvc._lock is None, "read by DVC"
    assert list(ours.stages) == list(of_dvc.stages) and len(ours.stages) > 40 and ours.after == of_dvc.after
    for name, item in ours.stages.items():
        other = of_dvc.stages[name]
        assert (item.command, item.reads, item.writes) == (other.command, other.reads, other.writes), name
        assert ours.changes(name) == of_dvc.changes(name) != []
    ours.close()
    of_dvc.close()


def not_plain(*_: object) -> None:
    raise NotPlain


@pytest.mark.parametrize("stages", [
    {"a": {"matrix": {"n": [1, 2]}, "cmd": "run", "outs": ["a-${item.n}"]}},
    {"a": {"foreach": ["x", "y"], "do": PLAIN}},
    {"a": {"foreach": "${plan.absent}", "do": PLAIN}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"params": ["x"]}}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"frozen": True}}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"outs": ["out/${item.other}"]}}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"outs": [{"out/${key}": {"push": False}}]}}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"cmd": "echo \\${key}"}}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"cmd": ["one", "two"]}}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"deps": ["s3://bucket/x"]}}},
    {"a": {"foreach": "${plan.a}", "do": PLAIN | {"deps": ["./x"]}}},
    {"a": {"cmd": "run", "deps": ["x"]}},
], ids=lambda stages: str(*stages.values())[:60])
def test_of_what_is_not_in_our_form_nothing_is_said(tmp_path: Path, stages: dict[str, Any]) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("plan:\n  a:\n    x: {at: 1.5}\n    \"1.5\": {at: y}\n")
    with pytest.raises(NotPlain):
        written_out(stages, plan)


def test_lines_of_the_plan_are_read_as_yaml_reads_them(tmp_path: Path) -> None:
    plan, stages = tmp_path / "plan.yaml", {"a": {"foreach": "${plan.a}", "do": PLAIN}}
    for key, path in (("x", "y/z.csv"), ('"no"', "y"), ("no-1", "y"), ("x", '"a: b, c"'), ('"1e5"', "nothing")):
        plan.write_text(f"plan:\n  a:\n    {key}: {{at: {path}}}\n  b: {{}}\n")
        (name, paths), = yaml.safe_load(plan.read_text())["plan"]["a"].items()
        (item, resolved), = written_out(stages, plan).items()
        assert (item, resolved.reads) == (f"a@{name}", (f"in/{paths['at']}",))
    plan.unlink()
    with pytest.raises(NotPlain):
        written_out(stages, plan)


@pytest.mark.parametrize("outs", [("x", "x"), ("x", "x/y"), ("b-out", "a-out")])
def test_outputs_in_each_other_and_circles_are_left_to_dvc(project: Path, outs: tuple[str, str]) -> None:
    first, second = outs
    stages = {"a": {"cmd": "run", "deps": ["a-out"], "outs": [first]},
              "b": {"cmd": "run", "deps": ["b-out"], "outs": [second]}}
    (project / "plan.yaml").write_text("plan:\n  a: {}\n")
    with pytest.raises(NotPlain):
        readers(written_out(stages, project / "plan.yaml"))
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    with pytest.raises(FinetraceError, match=r"dvc\.yaml"):
        Graph(project)


def test_what_reads_a_folder_reads_from_all_that_write_into_it(tmp_path: Path) -> None:
    stages = {"a": {"cmd": "run", "outs": ["out/a"]}, "b": {"cmd": "run", "outs": ["out/b"]},
              "c": {"cmd": "run", "deps": ["out", "out/a/manifest.json"], "outs": ["outer"]}}
    (tmp_path / "plan.yaml").write_text("plan: {}\n")
    assert readers(written_out(stages, tmp_path / "plan.yaml")) == {"a": set(), "b": set(), "c": {"a", "b"}}


def test_a_pipeline_elsewhere_in_the_project_is_seen(project: Path) -> None:
    (project / "plan.yaml").write_text("plan: {}\n")
    (project / "dvc.yaml").write_text("stages:\n  a: {cmd: run, outs: [a-out]}\n")
    (project / "own").mkdir()
    (project / "own" / "dvc.yaml").write_text("stages:\n  b: {cmd: run, deps: [../a-out], outs: [b-out]}\n")
    graph = Graph(project)
    assert graph.after == {"a": set(), "own/dvc.yaml:b": {"a"}}
    graph.close()


def entry(number: int, long: bool = False) -> dict[str, Any]:
    words = " ".join(["word"] * 30) if long else "word"
    return {"cmd": f"python run.py {words}", "deps": [{"path": f"in-{number}", "hash": "md5", "md5": f"{number:032x}",
                                                      "size": number}],
            "outs": [{"path": f"out/{number}: {words}" if long else f"out/{number}", "hash": "md5",
                      "md5": f"a{number:031x}.dir", "size": number, "nfiles": 2}]}


def test_entries_of_a_lock_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    stages = {f"train@{number}_x.y": entry(number, number % 2 == 1) for number in range(1, 6)}
    path = tmp_path / "dvc.lock"
    path.write_text(dumps_yaml({"schema": "2.0", "stages": stages}))
    lock = LockFile(path)
    assert lock.names() == list(stages) and lock.entry("absent") is None and lock.content("absent") == {}
    for name, content in load_yaml(path)["stages"].items():
        read = lock.entry(name)
        assert read is not None and read.command == content["cmd"]
        assert read.hashes == {row["path"]: row["md5"] for row in (*content["deps"], *content["outs"])}
        assert lock.content(name) == content
    legacy = {"cmd": "run", "outs": [{"path": "x", "md5": "1" * 32, "size": 1}]}
    path.write_text(dumps_yaml({"schema": "2.0", "stages": {"a": legacy, "b": {"cmd": "run", "params": {"p": {}}}}}))
    for name in ("a", "b"):
        with pytest.raises(Irregular):
            LockFile(path).entry(name)


def test_a_lock_is_written_as_dvc_writes_it(project: Path) -> None:
    stages = {f"a@{number}": entry(number, number % 2 == 1) for number in range(6)}
    path = project / "dvc.lock"
    path.write_text(dumps_yaml({"schema": "2.0", "stages": stages}))
    before = path.read_bytes()
    lock = LockFile(path)
    lock.put(dumps_yaml({"stages": stages}))
    assert path.read_bytes() == before
    names = list(stages)
    random.Random(0).shuffle(names)
    assert lock.order(names) and not lock.order(names) and list(load_yaml(path)["stages"]) == names
    assert lock.order(names[1:]) and names[0] not in LockFile(path).names()
    lock.put(dumps_yaml({"stages": {"new": entry(9)}}))
    with pytest.raises(Irregular):
        lock.put(dumps_yaml({"stages": {"1.5": entry(9)}}))
    assert Lockfile(Repo(str(project)), str(path)).load()["stages"]["new"] == entry(9)


@pytest.mark.parametrize("text", [
    "schema: '1.0'\n", HEAD + "<<<<<<< HEAD\n  a:\n    cmd: x\n", HEAD + "  a:\n    cmd: x\n  a:\n    cmd: x\n",
    HEAD + "  ? a\n  : cmd: x\n", HEAD + "  a: {cmd: x}\n", HEAD + "  a:\n    cmd: x\ndatasets: []\n"])
def test_a_lock_in_another_form_is_left_to_dvc(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(Irregular):
        LockFile(tmp_path / "dvc.lock")


def test_an_entry_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(HEAD + "  a:\n    cmd: 'x\n")
    with pytest.raises(FinetraceError, match=r"dvc\.lock: a: is no valid YAML; git checkout dvc\.lock"):
        LockFile(tmp_path / "dvc.lock").entry("a")

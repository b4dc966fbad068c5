"""The driver: the order of work, what is left out after a failure, what is recorded, and what a killed run leaves."""

from pathlib import Path
from typing import Any

import pytest

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.executor import Finished
from finetrace.pipeline.needs import Estimate, Machines, Needs
from finetrace.pipeline.repro import Driver, reason_of, repro


class FakeGraph:
    """Items by name -> those that they read; everything in `stale` is out of date."""

    def __init__(self, after: dict[str, set[str]], stale: set[str], *,
                 cached: set[str] = frozenset()):  # type: ignore[assignment]
        self.after, self.stale, self.cached = after, set(stale), cached
        self.stages = dict.fromkeys(after)
        self.recorded: list[list[str]] = []
        self.unwritten: set[str] = set()
        self.unreadable: set[str] = set()
        self.hashes: dict[str, int] = {}

    def command(self, name: str) -> str:
        return f"run {name}"

    def folders(self, name: str) -> list[Path]:
        return []

    def changes(self, name: str) -> list[str]:
        return ["x"] if name in self.stale else []

    def inputs(self, name: str) -> dict[str, Any]:
        if name in self.unreadable:
            raise FinetraceError(f"{name}: reviews.csv does not exist")
        return {"x": self.hashes.get(name, 0)}

    def restore(self, name: str) -> bool:
        return name in self.cached

    def absent(self, name: str) -> list[str]:
        return ["outputs/x"] if name in self.unwritten else []

    def record(self, names: list[str]) -> None:
        if names:
            self.recorded.append(list(names))

    def tidy_lock(self) -> None: ...


class FakeExecutor:
    """Ends items in the order in which they began; those in `broken` fail."""

    def __init__(self, broken: dict[str, str] | None = None):
        self.broken, self.queue, self.begun, self.most = broken or {}, [], [], 0  # type: ignore[var-annotated]

    def prepare(self) -> None: ...

    def room(self) -> None: ...

    def submit(self, name: str, command: str, environment: dict[str, str], needs: Needs) -> None:
        assert command == f"run {name}" and environment["DVC_STAGE"] == name
        self.threads = int(environment["FINETRACE_THREADS"])
        self.queue.append(name)
        self.begun.append(name)
        self.most = max(self.most, len(self.queue))

    def next(self, timeout: float | None = None) -> Finished | None:
        if not self.queue or timeout == 0:
            return None
        name = self.queue.pop(0)
        return Finished(name, 1 if name in self.broken else 0, self.broken.get(name, ""), 0.1)

    def close(self) -> None: ...


def drive(tmp_path: Path, graph: FakeGraph, executor: FakeExecutor, jobs: int = 2) -> tuple[int, list[str]]:
    said: list[str] = []
    driver = Driver(Layout(tmp_path, tmp_path), graph, jobs, said.append,  # type: ignore[arg-type]
                    Estimate(Machines(), micro=True))
    return driver.run(executor), said


CHAIN = {
    "data@t": set(),
    "train@a": {"data@t"},
    "hidden@a": {"train@a"},
    "geometry@a": {"hidden@a"},
    "hulls@a": {"hidden@a"},
    "train@b": {"data@t"},
    "atlas": {"geometry@a", "hulls@a", "train@b"},
}


def test_items_run_after_what_they_read_and_no_more_than_jobs_at_once(tmp_path):
    executor = FakeExecutor()
    code, said = drive(tmp_path, FakeGraph(CHAIN, set(CHAIN)), executor)
    assert code == 0 and sorted(executor.begun) == sorted(CHAIN) and executor.most == 2
    for name, after in CHAIN.items():
        assert all(executor.begun.index(other) < executor.begun.index(name) for other in after)
    assert said[-1] == "done: 7 items"


def test_it_counts_what_the_plan_counts(tmp_path):
    """As `finetrace plan` and `use` do: the two stages that say what is asked are not of it."""
    whole = {"plan": set(), "settings": {"plan"}, **CHAIN}
    _, said = drive(tmp_path, FakeGraph(whole, {"atlas"}), FakeExecutor())
    assert said[0].startswith("1 of 7 items are out of date, 0 more build on them")


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(8, 2, 4), (2, 2, 1), (2, 5, 1), (6, 1, 6)])
def test_items_side_by_side_share_the_cores(tmp_path, monkeypatch, cores, jobs, threads):
    monkeypatch.setattr("finetrace.pipeline.repro.cores", lambda: cores)
    executor = FakeExecutor()
    drive(tmp_path, FakeGraph(CHAIN, set(CHAIN)), executor, jobs)
    assert executor.threads == threads


def test_longer_chains_begin_first(tmp_path):
    executor = FakeExecutor()
    drive(tmp_path, FakeGraph(CHAIN, set(CHAIN)), executor, jobs=1)
    assert executor.begun.index("train@a") < executor.begun.index("train@b")


def test_nothing_out_of_date(tmp_path):
    executor = FakeExecutor()
    assert drive(tmp_path, FakeGraph(CHAIN, set()), executor) == (0, ["Data and pipelines are up to date."])
    assert executor.begun == []


def test_only_what_is_out_of_date_runs_and_what_builds_on_it_only_if_that_changed_it(tmp_path):
    executor, graph = FakeExecutor(), FakeGraph(CHAIN, {"hidden@a"})
    drive(tmp_path, graph, executor)
    assert executor.begun == ["hidden@a"]  # its outputs came out equal: the fake graph sees no changes below

    class Changing(FakeExecutor):
        def next(self, timeout: float | None = None) -> Finished | None:
            ended = super().next(timeout)
            if ended is not None:
                graph.stale |= {name for name, after in CHAIN.items() if ended.name in after}
            return ended

    executor = Changing()
    drive(tmp_path, graph, executor)
    assert executor.begun[0] == "hidden@a" and executor.begun[-1] == "atlas"
    assert sorted(executor.begun) == ["atlas", "geometry@a", "hidden@a", "hulls@a"]


def test_a_failure_leaves_the_others_running_and_the_end_says_why(tmp_path):
    executor = FakeExecutor({"geometry@a": "x\nfinetrace: stage geometry@a failed: too few rows\n  log: somewhere"})
    graph = FakeGraph(CHAIN, set(CHAIN))
    code, said = drive(tmp_path, graph, executor)
    assert code == 1 and "hulls@a" in executor.begun and "train@b" in executor.begun and "atlas" not in executor.begun
    assert "failed: 1; not begun, because they build on these: 1" in said[-1]
    assert "geometry@a: stage geometry@a failed: too few rows" in said[-1] and "geometry@a.log" in said[-1]
    assert "geometry@a" not in [name for names in graph.recorded for name in names]


def test_an_item_that_ends_without_its_outputs_has_failed(tmp_path):
    graph = FakeGraph(CHAIN, set(CHAIN))
    graph.unwritten = {"train@b"}
    code, said = drive(tmp_path, graph, FakeExecutor())
    assert code == 1 and "train@b: did not write outputs/x" in said[-1]


def test_an_input_that_does_not_exist_is_told(tmp_path):
    graph = FakeGraph(CHAIN, set(CHAIN))
    graph.unreadable = {"data@t"}
    code, said = drive(tmp_path, graph, FakeExecutor())
    assert code == 1 and "reviews.csv does not exist" in said[-1] and "because they build on these: 6" in said[-1]


def test_results_of_earlier_runs_come_from_the_cache(tmp_path):
    executor = FakeExecutor()
    graph = FakeGraph(CHAIN, set(CHAIN), cached={"data@t", "train@a"})
    assert drive(tmp_path, graph, executor)[0] == 0
    assert "data@t" not in executor.begun and "hidden@a" in executor.begun
    assert sorted(name for names in graph.recorded for name in names) == sorted(CHAIN)


def test_what_was_edited_while_it_was_read_is_not_recorded(tmp_path):
    graph = FakeGraph(CHAIN, set(CHAIN))

    class Editing(FakeExecutor):
        def next(self, timeout: float | None = None) -> Finished | None:
            graph.hashes["data@t"] = 1
            return super().next(timeout)

    code, said = drive(tmp_path, graph, Editing())
    recorded = [name for names in graph.recorded for name in names]
    assert code == 0 and "data@t" not in recorded and "train@a" in recorded
    assert any("its inputs changed while it ran" in line for line in said)


def test_finished_items_are_recorded_when_the_work_is_interrupted(tmp_path):
    graph = FakeGraph(CHAIN, set(CHAIN))

    class Interrupted(FakeExecutor):
        def next(self, timeout: float | None = None) -> Finished | None:
            if "hidden@a" in self.queue:
                raise KeyboardInterrupt
            return super().next(timeout)

    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, graph, Interrupted(), jobs=1)
    assert {name for names in graph.recorded for name in names} >= {"data@t", "train@a"}


def test_times_are_remembered(tmp_path):
    drive(tmp_path, FakeGraph(CHAIN, set(CHAIN)), FakeExecutor())
    assert '"train@a"' in (tmp_path / ".finetrace/times.json").read_text()


def test_reasons():
    assert reason_of("a\nfinetrace: stage x failed: one\ntwo\n  log: there") == "stage x failed: one\n    two"
    assert reason_of("a\nlast") == "last" and reason_of("") == "ended without a word"


def test_wrong_calls(tmp_path):
    with pytest.raises(FinetraceError, match="take 1 or more"):
        repro(Layout(tmp_path, tmp_path), -1)
    with pytest.raises(FinetraceError, match=r"has no dvc\.yaml"):
        repro(Layout(tmp_path, tmp_path))
    assert not list(tmp_path.iterdir()), "nothing is left in a folder that is no project"


def test_a_study_of_many_items_is_driven_in_one_pass(tmp_path):
    """Each item is looked at once when it becomes ready, and once when it has ended."""
    chain = {"data@t": set()} | {f"{stage}@{number}": {before.format(number)} for number in range(200)
                                 for stage, before in (("train", "data@t"), ("hidden", "train@{}"))}
    chain["atlas"] = set(chain)
    graph, asked = FakeGraph(chain, set(chain)), []
    graph.inputs = lambda name: asked.append(name) or {}
    executor = FakeExecutor()
    code, _ = drive(tmp_path, graph, executor)
    assert code == 0 and sorted(executor.begun) == sorted(chain) and executor.begun[-1] == "atlas"
    assert len(asked) == 2 * len(chain)  # before it begins, and when it is recorded


def test_outputs_of_other_inputs_are_not_restored(tmp_path, monkeypatch):
    """DVC's cache holds the outputs of the inputs before; with other inputs the item has to run."""
    import subprocess
    import sys

    from finetrace.pipeline.graph import opened

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for words in (("git", "init", "-q"), (sys.executable, "-m", "dvc", "init", "-q")):
        subprocess.run(words, check=True)
    (tmp_path / "given").write_text("1")
    (tmp_path / "dvc.yaml").write_text("stages:\n  copy: {cmd: cp given made, deps: [given], outs: [made]}\n")
    (tmp_path / "made").write_text("1")
    with opened(tmp_path) as graph:
        graph.record(["copy"])
    (tmp_path / "given").write_text("2")
    with opened(tmp_path) as graph:
        assert graph.changes("copy") == ["given"] and not graph.restore("copy")
    (tmp_path / "given").write_text("1")
    (tmp_path / "made").unlink()
    with opened(tmp_path) as graph:
        assert graph.changes("copy") == ["made"] and graph.restore("copy")
    assert (tmp_path / "made").read_text() == "1"


@pytest.mark.parametrize("kind", ["list of files", "file"])
def test_damage_in_dvcs_cache_is_not_restored(kind, tmp_path, monkeypatch):
    import shutil

    from dvc.repo import Repo

    from finetrace.pipeline.graph import opened
    from finetrace.store.files import atomic_folder
    from finetrace.store.manifest import Manifest, complete

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "given").write_text("1")
    (tmp_path / "dvc.yaml").write_text("stages:\n  make: {cmd: 'true', deps: [given], outs: [made]}\n")
    with atomic_folder(tmp_path / "made") as folder:
        (folder / "numbers").write_text("1 2 3")
        complete(folder, Manifest("data", "make", "", "0", {}, {}, {}), started=0.0)
    with opened(tmp_path) as graph:
        graph.record(["make"])
        shutil.rmtree(tmp_path / "made")
        assert graph.restore("make") and (tmp_path / "made" / "numbers").read_text() == "1 2 3"
        shutil.rmtree(tmp_path / "made")
        objects = list((tmp_path / ".dvc/cache/files/md5").glob("??/*"))
        (damaged,) = [path for path in objects if (path.suffix == ".dir" if kind != "file" else
                                                   path.read_bytes() == b"1 2 3")]
        mode = damaged.stat().st_mode
        damaged.chmod(0o644)
        damaged.write_bytes(damaged.read_bytes().replace(b"relpath", b"selpath").replace(b"1 2", b"1 3"))
        damaged.chmod(mode)  # DVC does not hash what it has written itself and nobody may write
        assert not graph.restore("make")
        assert not damaged.exists() and sum(path.is_file() for path in objects) == len(objects) - 1


def test_a_stage_that_dvc_yaml_lacks_is_told(tmp_path):
    """A dvc.yaml that lost its end is valid, and would leave out what stood there without a word."""
    from tests.pipeline.test_kill import STUDY

    from finetrace.pipeline.repro import require_stages
    from finetrace.study import load_study
    from finetrace.study.plan import names_of

    (tmp_path / "params.yaml").write_text(STUDY)
    study = load_study(tmp_path / "params.yaml")
    names = set(names_of(study))
    require_stages(names, study)
    with pytest.raises(FinetraceError, match=r"^dvc\.yaml: has no stage atlas, publish, which the study asks for; git "
                                             r"checkout dvc.yaml, or add them$"):
        require_stages(names - {"atlas", "publish"}, study)
    with pytest.raises(FinetraceError, match="has no stage train, which"):
        require_stages({name for name in names if not name.startswith("train@")}, study)

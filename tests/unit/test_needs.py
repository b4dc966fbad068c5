"""What items ask of a machine, and which engine runs them."""

import builtins
import json
from pathlib import Path

import pytest

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.executor import LocalExecutor
from finetrace.pipeline.needs import GIB, Estimate, Machines, Needs, read_machines
from finetrace.pipeline.ray_engine import RayExecutor
from finetrace.pipeline.repro import engine


def machines(folder: Path, text: str) -> Machines:
    (folder / "machines.yaml").write_text(text)
    return read_machines(Layout(folder, folder))


def cost(folder: Path, peak: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "cost.json").write_text(json.dumps({"peak_memory_bytes": peak}))
    return folder


def test_a_micro_bert_asks_for_a_core_and_a_large_model_for_a_gpu() -> None:
    assert Estimate(Machines(), micro=True).of("train@a", []) == Needs(cpus=1, gpus=0.0, memory=2 * GIB)
    large = Estimate(Machines(), micro=False)
    assert large.of("train@a", []).gpus == 1 and large.of("geometry@a", []).gpus == 0


def test_memory_is_what_earlier_runs_took_and_a_quarter_more(tmp_path: Path) -> None:
    estimate = Estimate(Machines(), micro=True)
    own = cost(tmp_path / "a", 4 * GIB)
    assert estimate.of("train@a", [tmp_path / "absent", own]).memory == 5 * GIB
    assert estimate.of("train@b", []).memory == 2 * GIB
    estimate.learn("train@a", [own])
    assert estimate.of("train@b", []).memory == 5 * GIB, "an item of its stage took so much"
    assert estimate.of("hidden@b", [cost(tmp_path / "damaged", "much")]).memory == 2 * GIB


def test_machines_yaml_comes_first_and_its_later_patterns_win(tmp_path: Path) -> None:
    said = machines(tmp_path, "needs:\n  '*': {cpus: 2, gpus: 0}\n  train@big_*: {cpus: 8, memory_gib: 1.5}\n")
    estimate = Estimate(said, micro=False)
    assert estimate.of("train@big_sst2", [cost(tmp_path / "a", 9 * GIB)]) == Needs(8, 0, int(1.5 * GIB))
    assert estimate.of("train@small_sst2", []) == Needs(2, 0, 16 * GIB)
    assert read_machines(Layout(tmp_path / "elsewhere", tmp_path / "elsewhere")) == Machines()


@pytest.mark.parametrize(("text", "told"), [
    ("need: {}", "unknown key 'need'; did you mean 'needs'"),
    ("needs: {train: {cpu: 2}}", "unknown key 'needs.train.cpu'; did you mean 'cpus'"),
    ("needs: {train: {cpus: 0}}", "cpus: 0 is less than 1"),
    ("needs: {train: {gpus: -1}}", "gpus: -1"),
    ("needs: {train: {memory_gib: 0}}", "memory_gib: 0"),
    ("needs: {train: {hours: -2}}", "hours: -2"),
    ("needs: [", "machines.yaml line 1"),
])
def test_what_is_wrong_in_machines_yaml_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FinetraceError, match=r"machines\.yaml") as error:
        machines(tmp_path, text)
    assert told in str(error.value)


def test_engines_by_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path)
    assert isinstance(engine("local", layout), LocalExecutor)
    assert all(isinstance(engine(name, layout), RayExecutor) for name in ("ray", "ray:local", "ray:10.0.0.5:6379"))
    for name in ("dask", "local:2", ""):
        with pytest.raises(FinetraceError, match="take local, ray, or ray:ADDRESS"):
            engine(name, layout)


def test_without_ray_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FinetraceError, match=r"Ray is not installed here; pip install 'finetrace\[ray\]'"):
        RayExecutor(tmp_path).prepare()

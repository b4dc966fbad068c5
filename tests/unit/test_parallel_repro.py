"""Which items the side-by-side driver deals out."""

from pathlib import Path

import pytest
import yaml

from finetrace import repro as module
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.repro import default_jobs, phases, repro

ROOT = Path(__file__).parents[2]


def test_every_item_of_every_group_is_in_exactly_one_chain():
    params, graph = (yaml.safe_load((ROOT / f"{name}.yaml").read_text()) for name in ("params", "dvc"))
    found = [target for phase in phases(ROOT, 2) for chain in phase for target in chain]
    wanted = [f"{name}@{item}" for name, stage in graph["stages"].items() if "foreach" in stage
              for item in params[stage["foreach"].strip("${}")]]
    assert sorted(found) == sorted(["world", *wanted])  # atlas and publish depend on everything: the last repro runs them


def test_phases_follow_dvc_yaml_and_cells_are_chains():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    found = phases(ROOT, 2)
    assert [phase[0][0].split("@")[0] for phase in found] == ["world", "pretrain", "tune", "comparison"]
    assert found[1][:2] == [["pretrain@micro-a", "pretrain@micro-random"], ["pretrain@micro-b"]]
    assert {target.split("@")[0] for chain in found[1][2:] for target in chain} == {"data"}
    chains = found[2]
    assert len(chains) == len(params["cells"])
    assert chains[0][0] == "tune@micro-a_micro-sentiment_ft-tuned"  # searched cells take longest
    two_seeds = next(chain for chain in chains if chain[0] == "tune@micro-a_micro-sentiment_ft")
    order = [target.split("@")[0] for target in two_seeds]
    lenses = ["train", "hidden", "infodynamics", "geometry", "similarity", "hulls", "probes", "convergence"]
    assert order == ["tune", *lenses, *lenses]
    adapted = next(chain for chain in chains if chain[0] == "tune@micro-a_micro-sentiment_lora")
    assert [target.split("@")[0] for target in adapted] == ["tune", "train", "infodynamics", "predictions", "calibration",
                                                            "features", "kernel"]
    assert two_seeds[1].endswith("_s1") and two_seeds[-1].endswith("_s2")
    assert [target.split("@")[0] for target in chains[0]] == ["tune", "train", "infodynamics"]  # it is not inspected


def test_only_chains_that_may_have_work_are_run():
    phases = [[["world"]], [["data@a"], ["data@b"]], [["train@a", "lens@a"], ["train@b", "lens@b"]], [["comparison@x"]]]
    assert module.due(phases, {"lens@b"}) == [[["train@b", "lens@b"]], [["comparison@x"]]]
    assert module.due(phases, {"data@a"}) == [[["data@a"]], *phases[2:]]
    assert module.due(phases, {"comparison@x"}) == [[["comparison@x"]]]
    assert module.due(phases, {"publish"}) == []  # the last repro runs it
    assert module.due(phases, None) == phases


def test_short_stages_alone_are_run_one_by_one():
    assert module.worth_it(None) and module.worth_it({"atlas", "train@a"})
    assert not module.worth_it({"convergence@a", "geometry@b", "atlas"})


def test_micro_studies_use_every_core_and_others_one(tmp_path):
    (tmp_path / "params.yaml").write_text("study: {name: x}\n")
    assert default_jobs(Layout(tmp_path, tmp_path)) >= 1
    (tmp_path / "params.yaml").write_text("study: {name: x}\nmodels: {m: {id: a/b}}\n")
    assert default_jobs(Layout(tmp_path, tmp_path)) == 1


def test_bad_calls_name_the_fix(tmp_path):
    with pytest.raises(FinetraceError, match="take 1 or more"):
        repro(Layout(tmp_path, tmp_path), 0)
    with pytest.raises(FinetraceError, match=r"dvc\.yaml: not found"):
        phases(tmp_path, 2)


class Worker:
    """A process that ends at once with a code and some lines of errors."""

    def __init__(self, code: int, *lines: str):
        self.code, self.stderr = code, list(lines)

    def wait(self) -> int:
        return self.code


def test_a_chain_that_finds_the_lock_taken_is_tried_again(tmp_path, monkeypatch, capsys):
    begun = []

    def start(root, *words, watched):
        begun.append(words[2:])
        return Worker(255, "ERROR: Unable to acquire lock.\n") if begun.count(words[2:]) < 3 else Worker(0, "done\n")

    monkeypatch.setattr(module, "_dvc", start)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    assert module._side_by_side(tmp_path, [["a@1", "b@1"], ["a@2"]], 2) == 0
    assert sorted(begun) == [("a@1", "b@1")] * 3 + [("a@2",)] * 3
    assert "lock" not in capsys.readouterr().err


def test_a_lock_that_is_never_free_is_left_to_the_last_repro(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(module, "_dvc", lambda *a, **k: begun.append(1) or Worker(255, "ERROR: Unable to acquire lock.\n"))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    assert module._side_by_side(tmp_path, [["a@1"]], 2) == 0
    assert len(begun) == module.ATTEMPTS + 1


def test_after_a_failure_no_new_chain_is_begun(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(module, "_dvc", lambda *a, **k: begun.append(a[3]) or Worker(1, "ERROR: stage failed\n"))
    assert module._side_by_side(tmp_path, [["a@1"], ["a@2"], ["a@3"]], 1) == 1
    assert begun == ["a@1"]

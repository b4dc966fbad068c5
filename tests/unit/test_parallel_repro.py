"""Which items the side-by-side driver deals out."""

from pathlib import Path

import pytest
import yaml

from finetrace import repro as module
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.repro import Chain, chains, default_jobs, repro

ROOT = Path(__file__).parents[2]


def test_every_item_of_every_group_is_in_exactly_one_chain():
    params, graph = (yaml.safe_load((ROOT / f"{name}.yaml").read_text()) for name in ("params", "dvc"))
    found = [target for chain in chains(ROOT) for target in chain.stages]
    wanted = [f"{name}@{item}" for name, stage in graph["stages"].items() if "foreach" in stage
              for item in params[stage["foreach"].strip("${}")]]
    assert sorted(found) == sorted(["world", *wanted])  # atlas and publish depend on everything: the last repro runs them


def test_chains_stand_after_those_that_they_build_on():
    done = set()
    for chain in chains(ROOT):
        assert chain.after <= done
        done.add(chain.name)


def test_cells_are_chains():
    found = {chain.name: chain for chain in chains(ROOT)}
    assert next(iter(found)) == "world" and found["pretrain@micro-a"].after == {"world"}
    assert {target.split("@")[0] for target in found["data"].stages} >= {"data"}
    two_seeds = found["cell micro-a_micro-sentiment_ft"]
    assert {"data", "pretrain@micro-a"} <= two_seeds.after and found["cell micro-a_micro-sentiment_ft-tuned"].urgent
    order = [target.split("@")[0] for target in two_seeds.stages]
    lenses = ["train", "hidden", "infodynamics", "geometry", "similarity", "hulls", "probes", "convergence"]
    assert [name for name in order if name not in ("edges", "cloze")] == ["tune", *lenses, *lenses]
    assert [target.split("@")[0] for target in found["cell micro-a_micro-sentiment_lora"].stages] == [
        "tune", "train", "infodynamics", "predictions", "calibration", "features", "kernel"]
    assert two_seeds.stages[1].endswith("_s1") and two_seeds.stages[-1].endswith("_s2")
    assert found["comparison@sentiment-seeds"].after == {two_seeds.name}


def study(folder: Path, **params) -> Path:
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    return folder


def test_adaptation_and_its_lenses_follow_what_they_start_from(tmp_path):
    one = {"model": "m", "task": "t", "method": "ft"}
    found = {chain.name: chain for chain in chains(study(
        tmp_path, pretrain={"m": {"corpus": "world"}}, tasks={"t": {}}, facts={"f": {}}, methods={"ft": {}},
        cells={"m_t_ft": one, "m+_t_ft": {**one, "model": "m+"}}, trajectories={"m_t_ft_s1": {**one, "seed": 1}},
        adapt={"m+": {"start": "m/pretrain", "corpus": "t"}, "after": {"start": "m/t/ft/s1", "corpus": "world"}},
        edge_probes={"m": {"trajectory": "m/pretrain"}, "tuned": {"trajectory": "m/t/ft/s1"}},
        cloze_probes={"m": {"trajectory": "m/pretrain", "facts": "f", "corpus": "world"}},
        dynamics={"d": {"original": ["m/pretrain"]}}))}
    assert found["place m/pretrain"].stages == ["edges@m", "cloze@m"]
    assert found["place m/pretrain"].after == {"data", "pretrain@m", "world"}
    assert found["adapt@m+"].after == {"data", "pretrain@m"} and "adapt@m+" in found["cell m+_t_ft"].after
    assert found["cell m_t_ft"].stages == ["tune@m_t_ft", "train@m_t_ft_s1", "edges@tuned", "infodynamics@m_t_ft_s1"]
    assert "cell m_t_ft" in found["adapt@after"].after
    assert found["dynamics@d"].after == set(found) - {"dynamics@d", "data", "world"}


def test_stages_in_a_circle_are_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"in a circle: (adapt@[ab], ){1}adapt@[ab]"):
        chains(study(tmp_path, adapt={"a": {"start": "b/adapt", "corpus": "x"}, "b": {"start": "a/adapt", "corpus": "x"}}))


def test_only_chains_that_may_have_work_are_run():
    found = [Chain("data", ["data@a"]), Chain("p", ["pretrain@m"]), Chain("a", ["train@a", "lens@a"], {"data"}),
             Chain("b", ["train@b", "lens@b"], {"p"}), Chain("x", ["comparison@x"], {"a", "b"})]

    def names(stale):
        return [chain.name for chain in module.due(found, stale)]

    assert names({"lens@b"}) == ["b", "x"]
    assert names({"data@a"}) == ["data", "a", "x"]
    assert names({"comparison@x"}) == ["x"]
    assert names({"publish"}) == []  # the last repro runs it
    assert names(None) == ["data", "p", "a", "b", "x"]


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
        chains(tmp_path)


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
    assert module._side_by_side(tmp_path, [Chain("a", ["a@1", "b@1"]), Chain("b", ["a@2"])], 2) == 0
    assert sorted(begun) == [("a@1", "b@1")] * 3 + [("a@2",)] * 3
    assert "lock" not in capsys.readouterr().err


def test_a_lock_that_is_never_free_is_left_to_the_last_repro(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(module, "_dvc", lambda *a, **k: begun.append(1) or Worker(255, "ERROR: Unable to acquire lock.\n"))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    assert module._side_by_side(tmp_path, [Chain("a", ["a@1"])], 2) == 0
    assert len(begun) == module.ATTEMPTS + 1


def test_after_a_failure_no_new_chain_is_begun(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(module, "_dvc", lambda *a, **k: begun.append(a[3]) or Worker(1, "ERROR: stage failed\n"))
    assert module._side_by_side(tmp_path, [Chain(name, [name]) for name in ("a@1", "a@2", "a@3")], 1) == 1
    assert begun == ["a@1"]


def test_a_chain_waits_for_those_that_it_builds_on(tmp_path, monkeypatch):
    events = []

    class Slow(Worker):
        def wait(self):
            module.time.sleep(0.05)
            events.append(("end", self.code))
            return 0

    def start(root, *words, watched):
        events.append(("begin", words[2]))
        return Slow(words[2])

    monkeypatch.setattr(module, "_dvc", start)
    assert module._side_by_side(tmp_path, [Chain("a", ["a@1"]), Chain("b", ["b@1"]), Chain("c", ["c@1"], {"a", "b"})], 2) == 0
    assert [what for what, _ in events[-2:]] == ["begin", "end"] and events[-1] == ("end", "c@1")


def test_workers_wait_for_the_lock_and_the_last_repro_does_not(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(module.subprocess, "Popen", lambda command, **_: begun.append(command[3:]))
    module._dvc(tmp_path, "repro", "--single-item", "a@1", watched=True)
    module._dvc(tmp_path, "repro")
    assert begun == [["--wait-for-lock", "repro", "--single-item", "a@1"], ["repro"]]

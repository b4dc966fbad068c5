"""The search: seeded, inside its space, pruned, safe from crashes, shared by workers."""

import dataclasses
import gc
import json
import signal
import warnings

import pytest
import torch
import yaml
from tests.training_drills import digests, run, tune_job
from tests.training_fixtures import model_folder, recording, settings, task_folder

from finetrace.config.base import parse
from finetrace.config.training import Dimension, MethodSettings, TrainSettings, TuneSettings
from finetrace.errors import FinetraceError
from finetrace.inference.targets import Target
from finetrace.store.tables import read_table
from finetrace.training import tuning
from finetrace.training.finetune import RunSeeds, finetune

SPACE = {"learning_rate": Dimension(low=1e-4, high=1e-2, log=True), "batch_size": Dimension(low=4, high=12, type="int"),
         "warmup": Dimension(low=0.0, high=0.4), "order": Dimension(choices=["length", "random"])}
TUNE = TuneSettings(trials=5, space=SPACE, startup_trials=2, evaluations=2, max_rows=32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("tuning")
    model_folder(root / "model")
    task_folder(root / "task", {"train": 64, "validation": 50})
    return root


def wanted(root, scratch, tune=TUNE, seed=3, **train):
    return tuning.Search(root / "model", root / "task", settings(epochs=1.0, **train), tune, seed, scratch, "key" * 20,
                         "cell", MethodSettings())


def table(study):
    return tuning.trials_table(study).to_pylist()


@pytest.fixture(scope="module")
def calm(root):
    assert run(tune_job, root / "calm", wanted(root, root / "calm" / "scratch")) == 0
    trials = read_table(root / "calm" / "trials.parquet")
    return yaml.safe_load((root / "calm" / "best.yaml").read_text()), trials.to_pylist()


@pytest.mark.slow
def test_equal_seeds_give_equal_trials_and_others_do_not(root, calm, tmp_path):
    _, again = tuning.search(wanted(root, tmp_path / "a"))
    assert table(again) == calm[1]
    assert all(0 < t["started_at_ms"] <= t["finished_at_ms"] for t in tuning.timing_table(again).to_pylist())
    _, other = tuning.search(wanted(root, tmp_path / "b", seed=4))
    assert table(other) != calm[1]


def test_settings_come_from_the_space_and_differ(calm):
    params = [json.loads(t["params_json"]) for t in calm[1]]
    assert len(params) == 5
    for p in params:
        assert set(p) == set(SPACE)
        assert 1e-4 <= p["learning_rate"] <= 1e-2
        assert isinstance(p["batch_size"], int) and 4 <= p["batch_size"] <= 12
        assert 0.0 <= p["warmup"] <= 0.4
        assert p["order"] in ("length", "random")
    assert len({p["learning_rate"] for p in params}) == 5


def test_the_best_settings_can_be_trained_with(root, calm):
    best, trials = calm
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    assert best["value"] == max(t["value"] for t in complete)
    assert best["settings"] == "tuned"
    train = parse(TrainSettings, best["train"], "best.yaml")
    assert train == tuning.apply(settings(epochs=1.0), best["params"])
    assert train.max_length == 16


def test_the_value_is_that_of_the_training_it_names(root, tmp_path):
    """The best trial's value is the validation metric of a fine-tuning with its settings and the trial's seeds."""
    best, study = tuning.search(wanted(root, tmp_path / "s", dataclasses.replace(TUNE, trials=2, max_rows=0)))
    (tmp_path / "out").mkdir()
    finetune(root / "model", root / "task", best, recording(), RunSeeds.of(3, 0), scratch=tmp_path / "t",
             out=tmp_path / "out", name="x")
    assert (
        json.loads((tmp_path / "out" / "metrics.json").read_text())["validation/accuracy"]
        == tuning.best_trial(study).value
    )


def test_hopeless_trials_are_pruned_and_recorded(root, tmp_path, monkeypatch):
    values = iter([0.9, 0.95, 0.9, 0.9, 0.1, 0.2, 0.99])  # the third trial is below the median at its first evaluation
    monkeypatch.setattr(Target, "evaluate", lambda *_: {"accuracy": next(values)})
    _, study = tuning.search(wanted(root, tmp_path, dataclasses.replace(TUNE, trials=4)))
    rows = table(study)
    assert [r["state"] for r in rows] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert rows[2]["intermediate_json"] == '{"1": 0.1}'
    assert rows[2]["value"] is None
    assert tuning.best_trial(study).value == 0.95
    events = (tmp_path / "live.jsonl").read_text()
    assert events.count('"KILLED"') == 2
    assert events.count('"FINISHED"') == 2
    assert f'"id": "{"key" * 20}:3"' in events, "the id by which publish finds the trial's run"


@pytest.mark.parametrize("fault", [("step", 11), ("trial about to be told", 3),
                                   pytest.param(("look", 1), marks=pytest.mark.slow)],
                         ids=["in a trial", "at its end", "not at all"])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(root, calm, tmp_path, fault):
    what = wanted(root, root / tmp_path.name / "scratch")
    if fault[0] != "look":
        assert run(tune_job, root / tmp_path.name, what, fault) == -signal.SIGKILL
    assert run(tune_job, root / tmp_path.name, what) == 0
    after, undisturbed = digests(root / tmp_path.name), digests(root / "calm")
    for name in ("best.yaml", "trials.parquet"):  # its settings are tried again; killed trials do not count
        assert after[name] == undisturbed[name], name


def test_a_finished_search_is_not_searched_again(root, tmp_path, monkeypatch):
    tune = dataclasses.replace(TUNE, trials=2)
    first, _ = tuning.search(wanted(root, tmp_path, tune))
    monkeypatch.setattr(tuning, "_train", lambda *_: pytest.fail("a trial was run"))
    second, _ = tuning.search(wanted(root, tmp_path, tune))
    assert first == second


def test_a_diverging_trial_fails_and_the_search_goes_on(root, tmp_path):
    space = {"learning_rate": Dimension(choices=[1e-3, 1e30])}
    tune = TuneSettings(trials=3, space=space, sampler="random", evaluations=1, max_rows=16, pruner="none")
    best, study = tuning.search(wanted(root, tmp_path, tune, max_grad_norm=0.0))
    states = [t["state"] for t in table(study)]
    assert states.count("COMPLETE") == 3
    assert "FAIL" in states, "with this seed, at least one trial should diverge"
    assert best.learning_rate == 1e-3
    assert all(("FAIL" if "1e+30" in t["params_json"] else "COMPLETE") == t["state"] for t in table(study))


@pytest.mark.parametrize("sampler", [pytest.param("random", marks=pytest.mark.slow), "tpe"])
def test_a_search_in_which_nothing_completes_says_so(root, tmp_path, sampler):
    tune = TuneSettings(trials=1, space={"learning_rate": Dimension(low=1e29, high=1e30, log=True)}, sampler=sampler,
                        evaluations=1, max_rows=16)
    with pytest.raises(FinetraceError, match=r"none of 4 trials completed; widen or lower tune.space"):
        tuning.search(wanted(root, tmp_path, tune, max_grad_norm=0.0))


def test_two_workers_share_the_trials(root, tmp_path):
    """Run in a process of its own, as the workers are started with it as their parent."""
    tune = dataclasses.replace(TUNE, trials=3, workers=2, pruner="none")
    assert run(tune_job, root / tmp_path.name, wanted(root, root / tmp_path.name / "scratch", tune)) == 0
    trials = read_table(root / tmp_path.name / "trials.parquet").to_pylist()
    assert [t["state"] for t in trials] == ["COMPLETE"] * 3
    assert len({json.loads(t["params_json"])["learning_rate"] for t in trials}) == 3, "no two workers try the same"


@pytest.mark.slow
def test_a_searched_input_length_has_an_effect(root, tmp_path):
    seen = []
    tune = TuneSettings(trials=2, space={"max_length": Dimension(choices=[5, 14])}, sampler="random", evaluations=1,
                        max_rows=16)
    original = tuning.prepare

    def spy(*args):
        prepared = original(*args)
        seen.append((args[2].max_length, int(prepared.splits["validation"].lengths.max())))
        return prepared

    tuning.prepare = spy
    try:
        for seed in range(1, 5):
            tuning.search(wanted(root, tmp_path / str(seed), tune, seed=seed))
    finally:
        tuning.prepare = original
    assert dict(seen) == {5: 5, 14: 14}


def test_importances_need_completed_trials(root, tmp_path):

    _, study = tuning.search(wanted(root, tmp_path, dataclasses.replace(TUNE, trials=1)))
    assert tuning.importances(study) == {}


def test_a_search_leaves_no_file_open(root, tmp_path):
    gc.collect()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tuning.search(wanted(root, tmp_path, dataclasses.replace(TUNE, trials=1, evaluations=1)))
        gc.collect()
    assert [str(w.message) for w in said if issubclass(w.category, ResourceWarning)] == []


def test_importances_are_shares(root, tmp_path, monkeypatch):
    values = iter([0.1, 0.3, 0.5, 0.7, 0.2, 0.9])
    monkeypatch.setattr(Target, "evaluate", lambda *_: {"accuracy": next(values)})
    _, study = tuning.search(wanted(root, tmp_path, dataclasses.replace(TUNE, trials=6, evaluations=1, pruner="none")))
    shares = tuning.importances(study)
    assert set(shares) == set(SPACE)
    assert sum(shares.values()) == pytest.approx(1.0)

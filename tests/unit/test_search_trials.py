"""Which trials of a search count, which fail for good, and when none of them is called the best. No training is run
here."""

import dataclasses

import numpy as np
import optuna
import pytest
from tests.training_fixtures import model_folder, settings, task_folder

from finetrace.config.base import parse
from finetrace.config.training import Dimension, MethodSettings, TuneSettings
from finetrace.config.written import written
from finetrace.errors import FinetraceError
from finetrace.training import tuning
from finetrace.training.trainer import NonFiniteError

SPACE = {"learning_rate": Dimension(low=1e-4, high=1e-2, log=True), "batch_size": Dimension(choices=[8, 12, 16])}
TUNE = TuneSettings(trials=4, space=SPACE, sampler="random", evaluations=1, pruner="none")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    model_folder(root / "model")
    task_folder(root / "task", {"train": 16, "validation": 400})
    return root


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """A trial's value follows from its learning rate; nothing is tokenised."""
    monkeypatch.setattr(tuning, "_prepare", lambda *_: dataclasses.make_dataclass("Prepared", ["metric"])("accuracy"))
    monkeypatch.setattr(tuning, "_train", lambda _, train, *__: value_of(train))


def value_of(train):
    return 0.7 + 0.1 * np.log10(train.learning_rate / 1e-3)


def search(root, scratch, tune=TUNE, seed=3, **train):
    return tuning.search(tuning.Search(root / "model", root / "task", settings(**train), tune, seed, scratch, "key",
                                       "cell", MethodSettings()))


def table(study):
    return tuning.trials_table(study).to_pylist()


def test_more_trials_continue_the_finished_ones(root, tmp_path, monkeypatch):
    _, eight = search(root, tmp_path / "a", dataclasses.replace(TUNE, trials=8))
    first = table(eight)
    tried = []
    monkeypatch.setattr(tuning, "_train", lambda _, train, *__: tried.append(train) or value_of(train))
    best, twelve = search(root, tmp_path / "a", dataclasses.replace(TUNE, trials=12))
    assert len(tried) == 4
    assert table(twelve)[:8] == first and len(table(twelve)) == 12
    best_at_once, at_once = search(root, tmp_path / "b", dataclasses.replace(TUNE, trials=12))
    assert (table(at_once), best_at_once) == (table(twelve), best)


def test_fewer_trials_are_those_of_a_search_that_never_had_more(root, tmp_path):
    search(root, tmp_path / "a", dataclasses.replace(TUNE, trials=9))
    best, four = search(root, tmp_path / "a", dataclasses.replace(TUNE, trials=5))
    best_at_once, at_once = search(root, tmp_path / "b", dataclasses.replace(TUNE, trials=5))
    assert (table(four), best) == (table(at_once), best_at_once)
    assert tuning.importances(four) == tuning.importances(at_once)
    assert tuning.timing_table(four).num_rows == 5
    _, nine = search(root, tmp_path / "a", dataclasses.replace(TUNE, trials=9))
    assert len(table(nine)) == 9


def test_values_that_do_not_go_together_fail_their_trial_and_are_not_tried_again(root, tmp_path, caplog):
    _, study = search(root, tmp_path, dataclasses.replace(TUNE, trials=6), accumulate=8)
    rows = table(study)
    failed = [r for r in rows if r["state"] == "FAIL"]
    assert failed and all('"batch_size": 12' in r["params_json"] for r in failed)
    assert sum(r["state"] == "COMPLETE" for r in rows) == 6
    assert "accumulate: 8 does not divide batch_size 12" in caplog.text
    states = [t.state.name for t in study.get_trials()]
    assert "RUNNING" not in states and "WAITING" not in states
    _, again = search(root, tmp_path, dataclasses.replace(TUNE, trials=6), accumulate=8)
    assert [t.state.name for t in again.get_trials()] == states


def test_an_error_of_the_task_or_the_training_fails_its_trial_only(root, tmp_path, monkeypatch):
    def train(_, wanted, *__):
        if wanted.batch_size == 8:
            raise NonFiniteError("step 3: the loss is nan")
        if wanted.batch_size == 12:
            raise FinetraceError("the sentence 'a b c'... has 90 tokens")
        return value_of(wanted)

    monkeypatch.setattr(tuning, "_train", train)
    _, study = search(root, tmp_path)
    assert {r["state"] for r in table(study) if '"batch_size": 16' not in r["params_json"]} == {"FAIL"}
    assert sum(r["state"] == "COMPLETE" for r in table(study)) == 4


def test_a_search_whose_every_trial_fails_names_the_last_error(root, tmp_path):
    tune = dataclasses.replace(TUNE, trials=1, space={"batch_size": Dimension(choices=[12])})
    with pytest.raises(FinetraceError, match=r"none of 4 trials completed; .*accumulate: 8 does not divide batch_size "
                                             r"12"):
        search(root, tmp_path, tune, accumulate=8)


def test_kills_do_not_use_up_a_search(root, tmp_path):
    """A trial that was killed is tried again, however often that happens."""
    what = tuning.Search(root / "model", root / "task", settings(), dataclasses.replace(TUNE, trials=1), 3,
                         tmp_path / "a", "key", "cell", MethodSettings())
    (tmp_path / "a").mkdir()
    for _ in range(5):
        study = what.storage.open()
        tuning._retry_stale(what, study)
        study.sampler = tuning._sampler(what, study)
        trial = study.ask()
        for name, dimension in SPACE.items():
            tuning._suggest(trial, name, dimension)
    _, study = search(root, tmp_path / "a", what.tune)
    _, calm = search(root, tmp_path / "b", what.tune)
    assert table(study) == table(calm)


# --- no best


def values(monkeypatch, *given):
    left = iter(given)
    monkeypatch.setattr(tuning, "_train", lambda *_: next(left))


def test_a_best_trial_that_stands_out_is_called_so(root, tmp_path, monkeypatch, caplog):
    values(monkeypatch, 0.7, 0.75, 0.9, 0.8)
    with caplog.at_level("INFO", "finetrace"):
        _, study = search(root, tmp_path)
    assert tuning.undecided(study) == ""
    assert tuning.importances(study)
    assert "best accuracy 0.9000" in caplog.text


def test_trials_within_noise_have_no_best_and_no_importances(root, tmp_path, monkeypatch, caplog):
    values(monkeypatch, 0.80, 0.81, 0.82, 0.79)
    best, study = search(root, tmp_path)
    assert "lie between 0.7900 and 0.8200, which is within noise on 400 validation rows" in tuning.undecided(study)
    assert tuning.importances(study) == {}
    assert "no trial is called the best" in caplog.text
    assert tuning.best_trial(study).number == 2 and best == tuning.apply(settings(), tuning.best_trial(study).params)
    written = tuning.settings_yaml("tuned", best, tuning.best_trial(study), tuning.undecided(study))
    assert written["undecided"] == tuning.undecided(study)
    assert "undecided" not in tuning.settings_yaml("tuned", best, tuning.best_trial(study))


def test_trials_at_the_most_frequent_class_have_no_best(root, tmp_path, monkeypatch):
    constant = tuning.majority(root / "task")["validation"]["accuracy"]
    values(monkeypatch, constant, 0.2, constant - 0.1, 0.3)
    _, study = search(root, tmp_path)
    assert f"always naming the most frequent class (accuracy {constant:.4f})" in tuning.undecided(study)
    assert tuning.importances(study) == {}


@pytest.mark.parametrize(("metric", "value", "expected"), [
    ("accuracy", 0.5, 0.025), ("accuracy", 0.9, 0.015), ("f1", 0.9, 0.015), ("matthews", 0.0, 0.05),
    ("matthews", 0.6, 0.04), ("accuracy", 1.0, 1 / 800),
])
def test_the_standard_error_of_a_metric(metric, value, expected):
    assert tuning.value_error(value, 400, metric) == pytest.approx(expected)


def test_two_equal_shares_differ_by_more_than_noise_in_one_of_twenty_cases():
    drawn = np.random.default_rng(0).binomial(400, 0.8, (2, 20_000)) / 400
    limit = [tuning.NOISE * tuning.value_error(max(pair), 400, "accuracy") for pair in drawn.T]
    assert 0.03 < np.mean(np.abs(drawn[0] - drawn[1]) > limit) < 0.08


def test_optuna_is_asked_with_the_trials_that_count_only(root, tmp_path, monkeypatch):
    seen = []
    original = optuna.importance.get_param_importances
    monkeypatch.setattr(optuna.importance, "get_param_importances", lambda s: seen.append(len(s.trials)) or original(s))
    search(root, tmp_path, dataclasses.replace(TUNE, trials=7))
    _, study = search(root, tmp_path, dataclasses.replace(TUNE, trials=5))
    tuning.importances(study)
    assert seen == [5]


@pytest.mark.parametrize(("address", "told"), [
    ("postgresql://me:secret@host/searches", "has a password in it.*PGPASSWORD"),
    ("postgresql://me@host/searches?password=secret", "has a password in it.*PGPASSWORD"),
    ("mysql://me:secret@host/searches", "is no PostgreSQL database"),
    ("postgresql://host", "is no PostgreSQL database"),
    ("searches.db", "is no PostgreSQL database"),
    ("postgresql://[host/searches", "is no address"),
])
def test_a_database_is_named_without_its_password(address, told):
    with pytest.raises(FinetraceError, match=told) as error:
        parse(TuneSettings, {"storage": address}, "params.yaml: tune")
    assert "secret" not in str(error.value)


def test_where_trials_are_kept_is_written_only_where_it_is_said():
    assert not {"storage", "heartbeat"} & set(written(TUNE))
    assert written(dataclasses.replace(TUNE, storage="postgresql://me@host/x"))["storage"] == "postgresql://me@host/x"

"""The stage predictions on real tiny trainings: files, equality with the training's own numbers, continuation, clear
errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.hidden_outputs import load_script
from tests.stages import ask, of_run, stage_of
from tests.training_fixtures import SEEDS, model_folder, recording, settings, task_folder
from tests.word_tasks import word_task_folder

from finetrace.config.base import as_dict, parse
from finetrace.config.predictions import PredictionsSettings
from finetrace.config.training import MethodSettings
from finetrace.errors import FinetraceError
from finetrace.inference import predictions as training
from finetrace.inference.evaluate import predict
from finetrace.layout import Layout
from finetrace.lenses.calibration.settings import CalibrationSettings
from finetrace.lenses.features.settings import FeaturesSettings
from finetrace.models.head import last_linear
from finetrace.models.rows import Collator, encode
from finetrace.models.saved import load_trained
from finetrace.pipeline.stage import AlreadyThere
from finetrace.store.checkpoints import list_weights
from finetrace.store.manifest import Manifest, complete, read_manifest
from finetrace.store.predictions import Predictions, read_predictions
from finetrace.store.tables import read_table, write_table
from finetrace.training.finetune import finetune

NAMES = {"ft": "text", "lp": "text", "lora": "text", "words": "words"}


def shifted(task: Path, name: str, source: str, rows: int) -> None:
    """A set out of distribution: the first rows of a split; of `far` in reversed order."""
    order = list(range(rows))
    write_table(task / "ood" / f"{name}.parquet",
                read_table(task / f"{source}.parquet").take(order[::-1] if name == "far" else order))
    complete(task / "ood", Manifest("data", "data", task.name, "0", {}, {}, {}), started=0.0)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A model, a task of texts and one of words, and a finished trajectory of each kind."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("project")
    layout = Layout(root, root)
    model = model_folder(layout.model("tiny"))
    complete(model, Manifest("model", "model", "tiny", "0", {}, {}, {}), started=0.0)
    tasks = {"text": task_folder(layout.task("text")), "words": word_task_folder(layout.task("words"), spans=2)}
    shifted(tasks["text"], "near", "test", 10)
    shifted(tasks["text"], "far", "validation", 20)
    shifted(tasks["words"], "near", "test", 7)
    for name, task in NAMES.items():
        out = layout.run("tiny", task, name, 1) / "trajectory"
        out.mkdir(parents=True)
        train = settings(keep="best", head="family" if name == "ft" else "linear", lora_rank=2, lp_folds=2,
                         lp_strengths=(0.1, 10.0, 2))
        kind = name if name in ("lora", "lp") else "ft"
        facts = finetune(model, tasks[task], train, recording(checkpoints={"steps": [2]}, evaluate="epochs"), SEEDS,
                         scratch=root / "scratch" / name, out=out, name=name, method=MethodSettings(kind=kind))
        facts |= {"train": as_dict(train), "model": "tiny"}
        complete(out, Manifest("trajectory", "train", name, "0", {}, {}, {}, facts), started=0.0)
    return layout


def made(layout: Layout, name: str, **changes: Any) -> Predictions:
    """Run the stage, also where the same was made before."""
    settings = PredictionsSettings(**{"train_rows": 30, "feature_rows": 12} | changes)
    place = f"tiny/{NAMES[name]}/{name}/s1"
    ask(layout.root, "predictions", name, study_seed=3, **of_run(place), predictions=as_dict(settings))
    folder = layout.place(place) / "predictions"
    shutil.rmtree(folder, ignore_errors=True)
    load_script("predictions").main(stage_of(layout.root, "predictions", name))
    return read_predictions(folder)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_each_checkpoint_and_the_head_gives_them_from_the_features(project: Layout,
                                                                                       name: str) -> None:
    found = made(project, name)
    task, trajectory = project.task(NAMES[name]), project.run("tiny", NAMES[name], name, 1) / "trajectory"
    weights = list_weights(trajectory / "checkpoints")
    assert found.steps == list(weights) and found.steps[0] == 0
    from finetrace.models.load import forward_names, load_tokenizer

    tokenizer = load_tokenizer(project.model("tiny"))
    for step, folder in weights.items():
        model = load_trained(folder, project.model("tiny"))
        rows = encode(task / "test.parquet", tokenizer, 16, forward_names(model))
        np.testing.assert_allclose(found.logits(step)[found.rows("test")], predict(model, rows, Collator(tokenizer)),
                                   atol=1e-5)
        np.testing.assert_array_equal(found.weight(step), last_linear(model).weight.detach().numpy())
        for part in found.names:
            logits = found.features(step, part) @ found.weight(step).T + found.bias(step)
            np.testing.assert_allclose(logits, found.logits(step)[found.with_features(part)], atol=1e-4)
    assert found.features(0, "test").shape == (min(12, len(found.rows("test"))), found.manifest.facts["dim"])


def test_sets_are_the_splits_and_what_lies_out_of_distribution(project: Layout) -> None:
    found = made(project, "ft")
    assert found.names == ["train", "validation", "test", "far", "near"]
    counts = {name: len(found.rows(name)) for name in found.names}
    assert counts == {"train": 30, "validation": 24, "test": 10, "far": 20, "near": 10} == found.manifest.facts["rows"]
    for name, path in (("test", "test"), ("far", "ood/far"), ("near", "ood/near")):
        table = read_table(project.task("text") / f"{path}.parquet")
        np.testing.assert_array_equal(found.example_ids[found.rows(name)], table["example_id"].to_numpy())
        np.testing.assert_array_equal(found.labels[found.rows(name)], table["label"].to_numpy())
    near, test = (found.logits(found.kept_step)[found.rows(name)] for name in ("near", "test"))
    np.testing.assert_allclose(near, test, atol=1e-6)  # the same texts
    labels = read_table(project.task("text") / "train.parquet")["label"].to_numpy()
    chosen = found.labels[found.rows("train")]
    assert abs(chosen.mean() - labels.mean()) < 0.04  # classes in their own shares
    assert sorted(found.feature_rows[found.feature_rows >= 0]) == list(range(3 * 12 + 2 * 10))


def test_metrics_are_those_of_the_training_at_its_kept_step(project: Layout) -> None:
    found = made(project, "ft")
    folder = found.folder.parent
    own, metrics = (json.loads((folder / part / "metrics.json").read_text()) for part in ("trajectory", "predictions"))
    assert found.kept_step == own["kept_step"] == read_manifest(folder / "trajectory").facts["kept_step"]
    for split in ("validation", "test"):
        for key in ("accuracy", "loss"):
            assert metrics[f"{split}/{key}"] == pytest.approx(own[f"{split}/{key}"], abs=1e-6)
    assert {key.split("/")[1] for key in metrics} == {"accuracy", "loss"}
    logits, labels = found.logits(found.kept_step), found.labels
    assert training._metrics(logits, labels, "matthews").keys() == {"accuracy", "loss", "matthews"}
    right = found.logits(found.kept_step)[found.rows("far")].argmax(axis=1) == found.labels[found.rows("far")]
    assert metrics["far/accuracy"] == pytest.approx(right.mean()) and "train/accuracy" in metrics


def test_in_a_task_of_words_examples_share_sentences(project: Layout) -> None:
    found = made(project, "words", train_rows=0)
    table = read_table(project.task("words") / "test.parquet")
    np.testing.assert_array_equal(found.sentences[found.rows("test")], table["sentence"].to_numpy())
    assert len(set(found.sentences[found.rows("test")])) < len(found.rows("test"))
    assert found.manifest.facts["dim"] == 32 and len(found.rows("near")) == 7  # two words of 16 dimensions
    assert len(found.rows("train")) == read_table(project.task("words") / "train.parquet").num_rows


def test_a_frozen_encoder_runs_once_for_all_checkpoints(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], training.predict_with_features
    monkeypatch.setattr(training, "predict_with_features", lambda *args: calls.append(1) or real(*args))
    found = made(project, "lp")
    assert len(calls) == len(found.names) and len(found.steps) > 2
    for step in found.steps[1:]:
        np.testing.assert_array_equal(found.features(step, "test"), found.features(0, "test"))
        assert not np.array_equal(found.weight(step), found.weight(0))
    alone = made(project, "lp", checkpoints="ends").logits(found.kept_step)
    np.testing.assert_array_equal(alone, found.logits(found.kept_step))  # whichever checkpoint ran the encoder
    calls.clear()
    monkeypatch.setattr(training, "_same_features", lambda *_: False)
    made(project, "lp")
    assert len(calls) == len(found.names) * len(found.steps)


def test_settings_choose_sets_checkpoints_and_rows(project: Layout) -> None:
    found = made(project, "ft", sets=["validation", "near", "nowhere"], checkpoints="ends", max_rows=8, feature_rows=0)
    last = max(list_weights(found.folder.parent / "trajectory" / "checkpoints"))
    assert found.names == ["validation", "near"] and found.steps == sorted({0, found.kept_step, last})
    assert (
        len(found.rows("validation"))
        == 8
        == len(found.with_features("validation"))
        == len(found.features(0, "validation"))
    )
    assert set(found.example_ids[found.rows("validation")]) < set(range(1000, 1024))


def test_first_last_and_kept_checkpoints_are_always_in(tmp_path: Path) -> None:
    recorded = {step: tmp_path / str(step) for step in (0, 4, 8, 16)}
    for wanted, steps in (("ends", [0, 4, 16]), ([8, 99], [0, 4, 8, 16]), ("all", [0, 4, 8, 16]), ([], [0, 4, 16])):
        assert list(training.chosen_checkpoints(recorded, wanted, 4, tmp_path)) == steps
    with pytest.raises(FinetraceError, match="step 5 was not recorded"):
        training.chosen_checkpoints(recorded, "ends", 5, tmp_path)


def test_the_same_seed_gives_the_same_files(project: Layout) -> None:
    first = made(project, "ft").manifest.files
    again = made(project, "ft").manifest.files
    assert {k: v["sha256"] for k, v in first.items()} == {k: v["sha256"] for k, v in again.items()}


def test_a_killed_run_continues_after_the_last_finished_checkpoint(project: Layout,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(project, "ft").manifest.files
    shutil.rmtree(project.run("tiny", "text", "ft", 1) / "predictions")
    original, looked_at = training._predict_checkpoint, []

    def watched(*args: object) -> None:
        if len(looked_at) == 2:
            raise KeyboardInterrupt
        looked_at.append(args[5])
        original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_predict_checkpoint", watched)
    with pytest.raises(KeyboardInterrupt):
        made(project, "ft")
    assert not (project.run("tiny", "text", "ft", 1) / "predictions").exists()
    before = list(looked_at)
    looked_at.clear()
    monkeypatch.setattr(training, "_predict_checkpoint", lambda *args: (looked_at.append(args[5]), original(*args)))
    found = made(project, "ft")
    assert not set(before) & set(looked_at) and len(before) + len(looked_at) == len(found.steps)
    assert {k: v["sha256"] for k, v in whole.items()} == {k: v["sha256"] for k, v in found.manifest.files.items()}
    assert not list((project.home / ".finetrace" / "scratch" / "predictions").iterdir())


def test_a_changed_set_out_of_distribution_is_another_input(project: Layout) -> None:
    before = made(project, "ft").manifest.inputs
    assert {"data/text", "data/text/ood"} < set(before)
    with pytest.raises(AlreadyThere):
        load_script("predictions").main(stage_of(project.root, "predictions", "ft"))
    shifted(project.task("text"), "near", "test", 9)
    try:
        after = made(project, "ft").manifest.inputs
    finally:
        shifted(project.task("text"), "near", "test", 10)
    assert {name for name in before if before[name] != after[name]} == {"data/text/ood"}


def test_what_is_missing_or_wrong_is_named(project: Layout, tmp_path: Path) -> None:
    found = made(project, "ft")
    with pytest.raises(FinetraceError, match="has no set 'dev'; it has train, validation, test, far, near"):
        found.rows("dev")
    with pytest.raises(FinetraceError, match="has no checkpoint 5"):
        found.logits(5)
    with pytest.raises(FinetraceError, match="text has none of nowhere; it has train"):
        made(project, "ft", sets=["nowhere"])
    with pytest.raises(FinetraceError, match=r"step 3 was not recorded .* add the step to record.checkpoints"):
        made(project, "ft", checkpoints=[3])
    with pytest.raises(FinetraceError, match=r"needs 8000000.0 GB of disk for me, .* lower predictions.feature_rows"):
        training._fits_disk(8 * 10**15, tmp_path, "me")
    with pytest.raises(FinetraceError, match=r"has no checkpoints; set record.checkpoints"):
        training.chosen_checkpoints({}, "all", 4, tmp_path)
    clash = project.task("text") / "ood" / "test.parquet"
    shutil.copy(project.task("text") / "test.parquet", clash)
    try:
        with pytest.raises(FinetraceError, match="cannot be called test; rename it"):
            made(project, "ft")
    finally:
        clash.unlink()
    table = read_table(project.task("text") / "test.parquet").to_pydict()
    write_table(tmp_path / "bad.parquet", {**table, "label": [7] * 10})
    with pytest.raises(FinetraceError, match=r"bad.parquet: label 7 is none of the 2 classes \(negative, positive\)"):
        training._labels(tmp_path / "bad.parquet", ["negative", "positive"])


def test_logits_that_are_not_finite_or_not_of_the_head_are_refused(project: Layout,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.predict_with_features

    def broken(model: object, rows: object, collator: object):
        logits, features = real(model, rows, collator)
        logits[3] = np.nan
        return logits, features

    monkeypatch.setattr(training, "predict_with_features", broken)
    with pytest.raises(FinetraceError, match=r"step-00000000: its logits of validation example 1003 are NaN"):
        made(project, "ft", sets=["validation"])
    monkeypatch.setattr(training, "predict_with_features", lambda *args: (real(*args)[0], real(*args)[1] + 1))
    with pytest.raises(FinetraceError, match=r"BertForSequenceClassification does not give its logits.* set "
                                             r"train.head: linear"):
        made(project, "ft", sets=["validation"])


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (PredictionsSettings, {"sets": []}, r"sets: names no set"),
        (PredictionsSettings, {"sets": ["a", "a"]}, "stands twice"),
        (PredictionsSettings, {"train_rows": -1}, "train_rows: -1 is negative"),
        (PredictionsSettings, {"max_length": 2}, "max_length: 2"),
        (PredictionsSettings, {"checkpoints": [-2]}, "not a list of steps"),
        (PredictionsSettings, {"featur_rows": 2}, "did you mean 'feature_rows'"),
        (CalibrationSettings, {"bins": 0}, "bins: 0 is less than 1"),
        (CalibrationSettings, {"groups": 1}, "groups: 1 gives no interval"),
        (FeaturesSettings, {"rcond": 0}, "rcond: 0.0 is not between"),
        (FeaturesSettings, {"ridge": 0}, "ridge: 0.0 is not above"),
        (FeaturesSettings, {"figure_rows": 4}, "figure_rows: 4 is too few"),
        (FeaturesSettings, {"groups": 0}, "groups: 0"),
    ],
)
def test_wrong_settings_are_refused_with_the_fix(kind: type, values: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(kind, values, "params.yaml: here")

"""Scores on a task from each checkpoint: the table, what is kept between runs, and the stages adapt and downstream
themselves."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.hidden_outputs import check_redrawn, run_main
from tests.masked_fixtures import corpus_folder, pretrained
from tests.pictures import assert_drawn
from tests.stages import ask
from tests.training_fixtures import sentences, task_folder

from finetrace.config.base import as_dict, parse
from finetrace.config.downstream import DownstreamSettings
from finetrace.config.models import AdaptSettings
from finetrace.config.training import RecordSettings, TrainSettings
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.models.sources import Published
from finetrace.models.timeline import open_timeline, whole_model
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.files import sha256_folder
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table
from finetrace.training import downstream
from finetrace.training.downstream import learn, majority, plan_work
from finetrace.training.finetune import RunSeeds, finetune

TOLD = ("cost.json", "figures/cost.json")
"""What differs between equal runs."""
TRAIN = TrainSettings(learning_rate=5e-3, batch_size=8, max_steps=3, precision="fp32", max_length=16)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("downstream")
    pretrained(root)
    task_folder(root / "data/tiny", {"train": 40, "validation": 12, "test": 9})
    return root


def work_of(root, wanted="all", train=TRAIN, seeds=(1, 2), code="c", name="toy"):
    timeline = open_timeline(root / f"outputs/{name}/pretrain/trajectory", root / "models", wanted)
    return timeline, plan_work(timeline, root / "data/tiny", train, 7, seeds, code)


def go(root, where, *args, **options):
    timeline, work = work_of(root, *args, **options)
    return learn(timeline, root / "data/tiny", options.get("train", TRAIN), 7, work,
                 results=lambda key: where / "results" / key, scratch=lambda key: where / "scratch" / key, name="d")


@pytest.fixture(scope="module")
def found(root):
    torch.set_num_threads(1)
    return go(root, root / "calm")


def test_every_checkpoint_is_learned_from_with_every_seed(root, found):
    assert list(found) == [(s, seed) for s in (0, 4, 9) for seed in (1, 2)]
    for one in found.values():
        assert {k: v.shape for k, v in one.hits.items()} == {"validation": (12,), "test": (9,)}
        for split, hits in one.hits.items():
            assert hits.dtype == np.uint8 and hits.mean() == pytest.approx(one.metrics[f"{split}/accuracy"])
    assert not any((root / "calm/scratch").iterdir()), "nothing unfinished is left"


def test_a_score_is_that_of_a_fine_tuning_of_this_checkpoint(root, found, tmp_path):
    timeline, _ = work_of(root)
    record = RecordSettings(signals=False, probe_rows=0, probe="none", evaluate="none", checkpoints="none")
    with whole_model(timeline, 4, tmp_path) as model:
        (tmp_path / "out").mkdir()
        finetune(model, root / "data/tiny", TRAIN, record, RunSeeds.of(7, 2), scratch=tmp_path / "s",
                 out=tmp_path / "out", name="x")
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == found[4, 2].metrics


def test_a_further_checkpoint_costs_only_itself(root, found, tmp_path, monkeypatch, caplog):
    begun = []
    original = downstream.finetune
    monkeypatch.setattr(downstream, "finetune", lambda *a, **k: (begun.append(k["name"]), original(*a, **k))[1])
    with caplog.at_level(logging.INFO, logger="finetrace"):
        go(root, tmp_path, "ends", seeds=(1,))
        assert begun == ["d from step 0, seed 1", "d from step 9, seed 1"]
        assert (
            "2 checkpoints x 1 seeds, 0 of these trainings are done already; 2 to do, each 3 steps of 8 of 40"
            in caplog.text
        )
        again = go(root, tmp_path, "all", seeds=(1,))
    assert begun[2:] == ["d from step 4, seed 1"]
    assert {key: one.metrics for key, one in again.items()} == {key: one.metrics for key, one in found.items()
                                                                if key[1] == 1}


def test_a_training_that_broke_off_is_continued_and_leaves_no_result(root, found, tmp_path, monkeypatch):
    original = downstream.finetune

    def breaks(*args, **options):
        original(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(downstream, "finetune", breaks)
    with pytest.raises(KeyboardInterrupt):
        go(root, tmp_path, "ends", seeds=(2,))
    assert not any((tmp_path / "results").iterdir()) and any((tmp_path / "scratch").iterdir())
    monkeypatch.setattr(downstream, "finetune", original)
    assert {k: v.metrics for k, v in go(root, tmp_path, "ends", seeds=(2,)).items()} == {
        k: found[k].metrics for k in ((0, 2), (9, 2))}


def test_the_key_covers_what_decides_and_nothing_else(root, tmp_path):
    keys = {(w.step, w.seed): w.key for w in work_of(root)[1]}
    assert len(set(keys.values())) == 6
    assert {(w.step, w.seed): w.key for w in work_of(root, "ends", seeds=(1,))[1]} == {k: keys[k]
                                                                                       for k in ((0, 1), (9, 1))}
    for options in ({"code": "d"}, {"train": TrainSettings(max_steps=7)}):
        assert not set(keys.values()) & {w.key for w in work_of(root, **options)[1]}
    other = tmp_path / "other"
    pretrained(other, "twin")
    task_folder(other / "data/tiny", {"train": 40, "validation": 12, "test": 9})
    assert keys == {(w.step, w.seed): w.key
                    for w in work_of(other, name="twin")[1]}, "equal checkpoints of another trajectory"
    pretrained(other, "calmer", dropout=0.0)
    assert not set(keys.values()) & {w.key for w in work_of(other, name="calmer")[1]}, "dropout decides too"


def test_published_checkpoints_have_keys_before_they_are_fetched(root):
    timeline, work = work_of(root, seeds=(1,))
    keys = set()
    for revision in ("a", "b"):
        timeline.sources = {s: Published("lab/model", f"{revision}{s}", {}) for s in timeline.steps}
        keys |= {w.key for w in plan_work(timeline, root / "data/tiny", TRAIN, 7, [1], "c")}
    assert len(keys) == 6 and not keys & {w.key for w in work}


def test_the_majority_baseline_names_the_most_frequent_class_of_training(root):
    found = majority(root / "data/tiny")
    labels = {s: read_table(root / f"data/tiny/{s}.parquet")["label"].to_numpy()
              for s in ("train", "validation", "test")}
    most = int(labels["train"].mean() > 0.5)
    assert set(found) == {"validation", "test"}
    assert found["test"]["accuracy"] == pytest.approx((labels["test"] == most).mean()) and "loss" not in found["test"]


def test_settings_that_no_training_knows_are_errors():
    entry = {"trajectory": "toy/pretrain", "task": "tiny"}
    with pytest.raises(FinetraceError, match=r"train\.learning_rat: is not a key of train"):
        parse(DownstreamSettings, {**entry, "train": {"learning_rat": 1}}, "params.yaml")
    with pytest.raises(FinetraceError, match="is a fine-tuning; name"):
        parse(DownstreamSettings, {**entry, "trajectory": "toy/tiny/ft/s1"}, "params.yaml")


def stage_of(project: Path, script: str, item: str, home: Path | None = None) -> Stage:
    return open_stage(script, item, Layout(project, home or project))


@pytest.fixture
def project(root, tmp_path):
    """A project that asks for toy/pretrain adapted, and for scores on the task tiny from what comes of it."""
    project = tmp_path / "project"
    for part in ("outputs", "models", "data"):
        shutil.copytree(root / part, project / part)
    corpus_folder(project, "text", sentences(40, 9)[0])
    adapted = AdaptSettings("toy/pretrain", "text", from_steps="all", steps=2, batch_size=8, accumulate=2)
    ask(project, "adapt", "toy-tapt", adapt=as_dict(adapted))
    scores = DownstreamSettings("toy-tapt/adapt", "tiny", checkpoints="ends", seeds=2, train={"epochs": 0.4})
    train = TrainSettings(learning_rate=1e-3, batch_size=8, precision="fp32", epochs=0.4)
    ask(project, "downstream", "scores", downstream=as_dict(scores), train=as_dict(train))
    return project


def test_the_stages_from_texts_to_scores(project, caplog):
    run_main(stage_of(project, "adapt", "toy-tapt"))
    run_main(stage_of(project, "downstream", "scores"), figures=True)
    trajectory = read_manifest(project / "outputs/toy-tapt/adapt/trajectory")
    assert trajectory.facts["model"] == "toy-tapt" and trajectory.facts["axis"] == "pre-training steps"
    assert set(trajectory.inputs) == {"outputs/toy/pretrain/trajectory", "data/text"} and trajectory.seeds
    assert read_manifest(project / "models/toy-tapt").kind == "model"
    out = project / "outputs/downstream/scores"
    facts, made = read_manifest(out).facts, read_manifest(out)
    assert (facts["axis"], facts["steps"], facts["seeds"], facts["split"]) == ("pre-training steps", [0, 9], [1, 2],
                                                                               "test")
    assert set(made.inputs) == {"outputs/toy-tapt/adapt/trajectory", "models/toy-tapt", "data/tiny"}
    assert made.settings["train"]["epochs"] == 0.4 and made.device.startswith("cpu")
    hits, rows = np.load(out / "hits.npy"), read_table(out / "table.parquet").to_pylist()
    assert hits.shape == (2, 2, 9) and hits.dtype == np.uint8
    assert list(rows[0]) == ["step", "seed", "split", "statistic", "value", "low", "high", "n"]
    for r in rows:
        if (r["split"], r["statistic"]) == ("test", "accuracy"):
            assert r["value"] == pytest.approx(hits[[0, 9].index(r["step"]), r["seed"] - 1].mean()) and r["n"] == 9
            assert r["low"] < r["value"] < r["high"] or r["value"] in (0.0, 1.0)
    assert {r["statistic"] for r in rows} == {"accuracy", "macro_f1", "f1", "matthews", "loss", "majority"}
    assert {(r["step"], r["seed"]) for r in rows if r["statistic"] == "majority"} == {(0, 1), (0, 2), (9, 1), (9, 2)}
    assert (out / "curves.csv").read_text().splitlines()[
        0
    ] == "step,accuracy,accuracy_low,accuracy_high,accuracy_majority"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["gain/accuracy"] == pytest.approx(metrics["last/accuracy"] - metrics["first/accuracy"])
    assert_drawn(out / "figures/downstream.png")
    before = sha256_folder(out, skip=TOLD)
    shutil.rmtree(out)
    shutil.rmtree(project / ".finetrace/measured")
    with caplog.at_level(logging.INFO, logger="finetrace"):
        run_main(stage_of(project, "downstream", "scores"), figures=True)
    assert "4 of these trainings are done already; 0 to do" in caplog.text
    assert sha256_folder(out, skip=TOLD) == before


def test_figures_are_drawn_from_the_stored_measurement(project):
    shutil.copytree(project / "outputs/toy", project / "outputs/toy-tapt")
    (project / "outputs/toy-tapt/pretrain").rename(project / "outputs/toy-tapt/adapt")
    stage = stage_of(project, "downstream", "scores")
    check_redrawn(stage, project / "outputs/downstream/scores", "finetrace.training.downstream.learn")


def test_the_figure_tells_seeds_and_baseline():
    from finetrace.figures.downstream import downstream as draw

    scores = np.array([[0.3, 0.35], [0.5, 0.45], [0.8, 0.9], [0.95, 0.93]])
    panel = draw([0, 10, 100, 2000], scores, 0.31, metric="macro_f1", split="test", axis="pre-training steps").axes[0]
    assert panel.get_xscale() == "symlog"
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("pre-training steps", "macro f1 on test")
    assert [t.get_text() for t in panel.get_legend().get_texts()] == ["majority class", "mean of the seeds"]
    line = next(l for l in panel.lines if l.get_label() == "mean of the seeds")
    assert line.get_ydata().tolist() == pytest.approx(scores.mean(axis=1).tolist())
    single = draw([0, 1], scores[:2, :1], 0.31, metric="accuracy", split="test", axis="adaptation steps").axes[0]
    assert single.get_xscale() == "linear"

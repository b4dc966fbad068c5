"""Checkpoints as MLflow's LoggedModels, with what the lenses measured at them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.outputs import empty_store, make_lens, make_project, make_training, weights_sha
from tests.publishing import NAME, opened, quiet, snapshot

from finetrace.layout import Layout
from finetrace.store.files import write_text
from finetrace.store.manifest import complete, read_manifest
from finetrace.study import Study

BEST = [{"field_name": "metrics.geometry/rank", "ascending": False}]
RUN = "micro-a/micro-sentiment/ft/s1"


def measure(layout: Layout, place: str, ranks: dict[int, str]) -> None:
    """The lens geometry at a place: step -> rank."""
    folder = layout.place(place) / "geometry"
    make_lens(folder, "geometry", place.replace("/", "_"), 4)
    lines = [f"{step},0.5,9.0,{rank}" for step, rank in ranks.items()]
    write_text(folder / "curves.csv", "\n".join(
        ["step,cosine_mean_layer_02,effective_rank_layer_9,effective_rank_layer_10", *lines, ""]))
    complete(folder, read_manifest(folder, verify=False))


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    layout, study = make_project(tmp_path / "project", steps=20, examples=4, lenses=("infodynamics",), tuned=False,
                                 atlas=False)
    for seed, ranks in ((1, {0: "3.5", 20: "2.5"}), (2, {0: "nan", 20: "7.25"})):
        measure(layout, f"micro-a/micro-sentiment/ft/s{seed}", ranks)
    empty_store(layout.home)
    return layout, study


def models(layout: Layout, study: Study, **asked: Any) -> list[Any]:
    store = opened(layout, study)
    return list(store.client.search_logged_models([store.experiment_id], **asked))


def told(layout: Layout, study: Study) -> dict[str, tuple[dict[str, str], dict[str, float]]]:
    """Name -> params and numbers of every model."""
    return {one.name: (one.params, {m.key: m.value for m in one.metrics}) for one in models(layout, study)}


def test_the_best_checkpoint_is_found(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    found = models(layout, study, filter_string="params.task = 'micro-sentiment'", order_by=BEST)
    # a number that is not finite is no number: MLflow would keep NaN as 0
    assert [one.name for one in found] == [f"step {step} {run} micro-a micro-sentiment ft" for run, step in (
        ("s2", 20), ("s1", 0), ("s1", 20), ("s2", 0))]
    best = found[0]
    assert str(best.status) == "READY" and best.model_type == "checkpoint"
    folder = "outputs/micro-a/micro-sentiment/ft/s2/trajectory/checkpoints/step-00000020"
    assert best.params == {"model": "micro-a", "task": "micro-sentiment", "method": "ft", "seed": "2", "step": "20",
                           "weights": folder}
    assert json.loads(best.tags["sha256"])["model.safetensors"] == weights_sha(
        layout, "micro-a", "micro-sentiment", "ft", 2, 20)
    numbers = {m.key: m.value for m in best.metrics}
    assert numbers["geometry/rank"] == 7.25 and numbers["geometry/cosine"] == 0.5
    assert numbers["validation/accuracy"] == pytest.approx(0.9) and len(numbers) == 4
    assert [one.name for one in models(layout, study, filter_string="metrics.`geometry/rank` < 3")] == [
        "step 20 s1 micro-a micro-sentiment ft"]
    store = opened(layout, study)
    run = store.client.get_run(best.source_run_id)
    assert run.data.tags["finetrace.name"] == "micro-a_micro-sentiment_ft_s2"
    assert [m.step for m in store.client.get_metric_history(run.info.run_id, "geometry/cosine")] == [0, 20]
    assert not Path(best.artifact_location).exists()
    assert {"step 0 micro-a pretrain", "step 20 micro-a pretrain"} < {one.name for one in models(layout, study)}


def test_publishing_twice_keeps_every_model(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    before, ids = snapshot(layout, study), {one.model_id for one in models(layout, study)}
    quiet(layout, study)
    assert {one.model_id for one in models(layout, study)} == ids and len(ids) == 6
    assert snapshot(layout, study) == before


def test_new_results_of_a_lens_are_told(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    first = told(layout, study)
    ids = {one.name: one.model_id for one in models(layout, study)}
    measure(layout, RUN, {0: "1.5", 20: "2.5"})
    quiet(layout, study)
    second, name = told(layout, study), "step 0 s1 micro-a micro-sentiment ft"
    assert second[name][1]["geometry/rank"] == 1.5 and first[name][1]["geometry/rank"] == 3.5
    assert {n: v for n, v in second.items() if n != name} == {n: v for n, v in first.items() if n != name}
    kept = {n for n, model_id in ids.items() if model_id in {one.model_id for one in models(layout, study)}}
    assert len(kept) == 4 and name not in kept  # only this training's models are made anew
    store = opened(layout, study)
    run = next(run for run in store.runs() if run.name == NAME and not run.superseded)
    points = sorted((m.step, m.timestamp, m.value)
                    for m in store.client.get_metric_history(run.run_id, "geometry/rank"))
    assert [value for *_, value in points] == [3.5, 1.5, 2.5]  # the newer one later; what has not changed once
    measure(layout, RUN, {0: "3.5", 20: "2.5"})
    quiet(layout, study)
    assert told(layout, study) == first


def test_models_of_a_replaced_training_go_and_come_back_with_it(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    first = told(layout, study)
    folder = layout.place(RUN) / "trajectory"
    shutil.copytree(folder, layout.home / "old")
    make_training(folder, "train", NAME, 30, {}, version=2)
    quiet(layout, study)
    names = {f"step {step} s1 micro-a micro-sentiment ft" for step in (0, 30)}
    assert set(told(layout, study)) == {n for n in first if " s1 " not in n} | names
    shutil.rmtree(folder)
    shutil.move(layout.home / "old", folder)
    quiet(layout, study)
    assert told(layout, study) == first


def test_an_interrupted_publication_goes_on(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    first, store = told(layout, study), opened(layout, study)
    run = next(run for run in store.runs() if run.name == NAME)
    store.client.delete_tag(run.run_id, "finetrace.checkpoints")  # set last
    before = snapshot(layout, study)
    store.client.delete_logged_model(next(one.model_id for one in models(layout, study)
                                          if one.source_run_id == run.run_id))
    quiet(layout, study)
    assert told(layout, study) == first
    after = snapshot(layout, study)
    assert after[NAME]["tags"].pop("finetrace.checkpoints") and after == before


def test_models_of_a_run_that_was_deleted_in_mlflow_go(project: tuple[Layout, Study]) -> None:
    layout, study = project
    quiet(layout, study)
    store = opened(layout, study)
    store.client.delete_run(next(run.run_id for run in store.runs() if run.name == NAME))
    quiet(layout, study)
    assert not [name for name in told(layout, study) if " s1 " in name] and len(told(layout, study)) == 4

"""Outputs as records: what is read, how it is named, what is refused."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.outputs import PNG, STARTED_MS, make_lens, make_project, make_training, manifest

from finetrace.errors import FinetraceError
from finetrace.lenses.comparison.settings import ComparisonSettings
from finetrace.store.files import write_text, write_yaml
from finetrace.store.manifest import complete
from finetrace.store.tables import write_table
from finetrace.tracking import collect as module
from finetrace.tracking.collect import collect, flat_params
from finetrace.tracking.curves import curves_series, history_series
from finetrace.tracking.described import TAG, description, warn_of_few
from finetrace.tracking.records import RunRecord


def by_name(records: list[RunRecord]) -> dict[str, RunRecord]:
    assert len({r.name for r in records}) == len({r.identity for r in records}) == len(records)
    return {r.name: r for r in records}


def test_reads_files_without_mlflow(tmp_path: Path) -> None:
    make_project(tmp_path / "p")
    code = ("import sys; from pathlib import Path; from finetrace.study import load_study;"
            "from finetrace.layout import Layout; from finetrace.tracking.collect import collect; import finetrace.cli;"
            "import finetrace.tracking.publish, finetrace.tracking.live, finetrace.tracking.store;"
            f"p = Path({str(tmp_path / 'p')!r});"
            "[r.load() for r in collect(Layout(p, p), load_study(p / 'params.yaml')).records];"
            "assert not {'mlflow', 'torch', 'dvc', 'optuna'} & set(sys.modules)")
    source = Path(module.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})


def test_every_output_becomes_a_record_with_its_parent_first(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, seeds=(1, 2), lenses=("infodynamics", "geometry"))
    found = collect(layout, study)
    assert not found.problems and not found.absent
    kinds = [r.kind for r in found.records]
    assert {k: kinds.count(k) for k in kinds} == {"pretrain": 1, "tune": 1, "trial": 5, "trajectory": 2, "lens": 4,
                                                  "atlas": 1, "cell": 1}
    seen = {""}
    for record in found.records:
        assert record.parent in seen
        seen.add(record.identity)


def test_without_runs_of_lenses_the_trainings_tell_their_headline_metrics(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, seeds=(1, 2), lenses=("infodynamics", "geometry"))
    every = by_name(collect(layout, study).records)
    study = dataclasses.replace(study, tracking=dataclasses.replace(study.tracking, lens_runs=False))
    few = by_name(collect(layout, study).records)
    lenses = {name for name, record in every.items() if record.kind == "lens"}
    assert lenses and set(few) == set(every) - lenses
    for name, record in few.items():
        assert record.identity == every[name].identity and record.headlines == every[name].headlines
    assert few["micro-a_micro-sentiment_ft_s1"].headlines


def test_trajectory_content(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, steps=40)
    record = by_name(collect(layout, study).records)["micro-a_micro-sentiment_ft_s1"]
    content = record.load()
    assert record.ended_at_ms == record.started_at_ms + 12_500
    assert content.params["train.learning_rate"] == "5e-05" and content.params["seed"] == "1"
    names = {s.name for s in content.series}
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "train/head_norm", "validation/loss",
            "validation/accuracy", "timing/tokens_per_second"} == names
    assert content.final_step == 40
    # a final number that is also a curve stays apart; null (NaN in metrics.json) is no number
    assert content.finals["final/validation/accuracy"] == 0.91 and content.finals["test/accuracy"] == 0.9
    assert "test/loss" not in content.finals
    assert content.finals["cost/wall_seconds"] == 12.5 and content.finals["cost/peak_memory_mib"] == 300
    assert content.tags["model"] == "micro-a" and content.tags["task"] == "micro-sentiment"
    assert content.tags["dvc.stage"] == "train@micro-a_micro-sentiment_ft_s1"
    assert len(content.tags["data_hash"]) == len(content.tags["model_hash"]) == 64
    assert content.data is not None and content.data.source == "data/micro-sentiment"


def test_weights_are_pointers_and_large_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, study = make_project(tmp_path, steps=40)
    trajectory = "outputs/micro-a/micro-sentiment/ft/s1/trajectory"
    content = by_name(collect(layout, study).records)["micro-a_micro-sentiment_ft_s1"].load()
    listed = json.loads(str(content.artifacts["checkpoints.json"]))
    assert [(c["path"], c["step"], c["bytes"]) for c in listed] == [
        (f"{trajectory}/checkpoints/step-00000000/model.safetensors", 0, 0),
        (f"{trajectory}/checkpoints/step-00000040/model.safetensors", 40, 280)]
    assert not any("safetensors" in name for name in content.artifacts)
    assert {"history.parquet", "signals.parquet", "metrics.json", "manifest.json", "provenance.json"} <= set(
        content.artifacts)
    monkeypatch.setattr(module, "LARGEST_ARTIFACT", 1000)
    content = by_name(collect(layout, study).records)["micro-a_micro-sentiment_ft_s1"].load()
    assert "history.parquet" not in content.artifacts
    assert f"{trajectory}/history.parquet" in str(content.artifacts["pointers.json"])


def test_the_pages_of_the_atlas_open_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, study = make_project(tmp_path)
    write_text(layout.atlas / "index.html", "x" * 2000)
    write_text(layout.atlas / "runs" / "a.html", "y")
    complete(layout.atlas, manifest("atlas", "atlas", ""))
    monkeypatch.setattr(module, "LARGEST_ARTIFACT", 1000)
    content = by_name(collect(layout, study).records)["atlas"].load()
    assert {"index.html", "runs/a.html", "figures/all.png"} <= set(content.artifacts)


def test_lens_content(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, examples=100)
    record = by_name(collect(layout, study).records)["infodynamics@micro-a_micro-sentiment_ft_s1"]
    content = record.load()
    assert {s.name for s in content.series} == {"infodynamics/novelty", "infodynamics/resonance"}  # no text column
    assert content.series[0].steps.tolist() == list(range(0, 100, 2))
    assert content.finals["infodynamics/slope"] == 0.5 and content.finals["final/infodynamics/novelty"] == 0.25
    assert content.tags["lens"] == "infodynamics" and content.tags["seed"] == "1"
    described = content.tags["mlflow.note.content"].splitlines()
    assert described[0] == "- **novelty** (`infodynamics/novelty_mean`): mean novelty of the training logits (nats)"
    assert described[-1].endswith("(share; higher is better)") and record.load().tags == content.tags
    assert {"figures/main.png", "table.parquet", "results.json", "metrics.json", "curves.csv",
            "manifest.json", "provenance.json"} == set(content.artifacts)


def test_descriptions_are_those_of_the_lens_and_lenses_without_headlines_have_none() -> None:
    assert description("edges", "edges/")[TAG].startswith(
        "- **words, first** (mean of `edges/*/f1/full/first`): edge probes on the mix of all layers")
    similar = description("similarity", "similarity/")[TAG]
    assert "(`similarity/cka/cls/layer-*/last` or `similarity/cka/span/layer-*/last`)" in similar
    assert description("cross-task", "cross-task/") == description("no such lens", "x/") == {}


def test_a_lens_that_looked_at_few_examples_is_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_few("hulls", {"points_train": 12}, "outputs/a/hulls")
    assert [record.message for record in caplog.records] == [
        "outputs/a/hulls: looked at 12 training examples; what it does not find counts from 20 on (docs/grounding.md)"]
    caplog.clear()
    warn_of_few("hulls", {"points_train": 20}, "outputs/a/hulls")
    warn_of_few("cross-task", {"points_train": 2}, "cross-tasks/a")
    assert not caplog.records


def test_trials_have_their_states_times_and_points(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path)
    records = by_name(collect(layout, study).records)
    trials = [records[f"trial-{n:04d}@micro-a_micro-sentiment_ft"] for n in range(5)]
    tune = records["micro-a_micro-sentiment_ft_tune"]
    assert [t.state for t in trials] == ["FINISHED", "KILLED", "FAILED", "RUNNING", "SCHEDULED"]
    assert [t.parent for t in trials] == [tune.identity] * 5
    assert trials[1].key == f"{tune.key}:1" and trials[1].started_at_ms == STARTED_MS + 1000
    content = trials[0].load()
    assert content.params == {"learning_rate": "0.0001"} and content.finals == {"objective/value": 0.7}
    assert content.series[0].name == "objective/intermediate" and content.series[0].steps.tolist() == [10, 20, 30]
    assert trials[1].load().finals == {}
    assert tune.load().series[0].name == "objective/value"


def test_fixed_settings_make_no_run(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, tuned=False)
    assert not {"tune", "trial"} & {r.kind for r in collect(layout, study).records}


def test_absent_outputs_are_named_and_damage_is_a_problem(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, outputs=False)
    found = collect(layout, study)
    assert found.records == [] and found.problems == []
    assert found.absent == ["pretrain micro-a", "tune micro-a_micro-sentiment_ft",
                            "trajectory micro-a_micro-sentiment_ft_s1", "trajectory micro-a_micro-sentiment_ft_s2"]
    layout, study = make_project(tmp_path)
    (layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory" / "history.parquet").write_bytes(b"short")
    found = collect(layout, study)
    assert len(found.problems) == 1 and "history.parquet" in found.problems[0]
    assert "micro-a_micro-sentiment_ft_s2" in by_name(found.records)


def test_identity_is_content_not_time(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path)
    folder = layout.run("micro-a", "micro-sentiment", "ft", 1)
    before = by_name(collect(layout, study).records)
    again = manifest("trajectory", "train", "micro-a_micro-sentiment_ft_s1",
                     train={"learning_rate": 5e-5, "version": 1}, seed=1)
    write_table(folder / "trajectory" / "timing.parquet", {"step": [1], "seconds": [9.0], "tokens_per_second": [1.0]})
    again.started_at_ms, again.wall_seconds = 5, 99.0
    complete(folder / "trajectory", again)
    after = by_name(collect(layout, study).records)
    assert {n: r.identity for n, r in after.items()} == {n: r.identity for n, r in before.items()}
    make_training(folder / "trajectory", "train", "micro-a_micro-sentiment_ft_s1", 40, {}, version=2)
    changed = by_name(collect(layout, study).records)
    different = {n for n in changed if changed[n].identity != before[n].identity}
    assert different == {"micro-a_micro-sentiment_ft_s1", "infodynamics@micro-a_micro-sentiment_ft_s1",
                         "micro-a_micro-sentiment_ft_cell"}


def test_a_figure_that_is_drawn_anew_is_shown_by_a_new_run(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path)
    before = by_name(collect(layout, study).records)
    figures = layout.run("micro-a", "micro-sentiment", "ft", 1) / "infodynamics" / "figures"
    (figures / "main.png").write_bytes(PNG + b"in red")
    complete(figures, manifest("figures", "infodynamics", "x"))
    after = by_name(collect(layout, study).records)
    assert {n for n in after if after[n].identity != before[n].identity} == {
        "infodynamics@micro-a_micro-sentiment_ft_s1"
    }
    (figures / "main.png").write_bytes(b"short")
    found = collect(layout, study)
    assert len(found.problems) == 1 and "figures/main.png: 5 instead of" in found.problems[0]


def test_a_folder_that_dvc_restored_has_no_costs(tmp_path: Path) -> None:
    """cost.json is not in DVC's cache."""
    layout, study = make_project(tmp_path)
    folder = layout.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory"
    before = by_name(collect(layout, study).records)["micro-a_micro-sentiment_ft_s1"]
    curves = {s.name for s in before.load().series}
    for name in ("cost.json", "timing.parquet"):
        (folder / name).unlink()
    os.utime(folder / "manifest.json", (1_000.0, 1_000.0))
    record = by_name(collect(layout, study).records)["micro-a_micro-sentiment_ft_s1"]
    assert record.identity == before.identity
    assert record.started_at_ms == record.ended_at_ms == 1_000_000
    content = record.load()
    assert not [name for name in content.finals if name.startswith("cost/")]
    assert {s.name for s in content.series} == curves - {"timing/tokens_per_second"}


def test_a_search_without_its_times_has_its_trials(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path)
    folder = layout.tune("micro-a", "micro-sentiment", "ft")
    before = by_name(collect(layout, study).records)
    (folder / "timing.parquet").unlink()
    after = by_name(collect(layout, study).records)
    assert {n: r.identity for n, r in after.items()} == {n: r.identity for n, r in before.items()}
    trial = after["trial-0001@micro-a_micro-sentiment_ft"]
    assert (trial.started_at_ms, trial.ended_at_ms) == (after["micro-a_micro-sentiment_ft_tune"].started_at_ms, None)


def test_results_of_other_code_say_why_they_stand(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path)
    code = {"measure": "c" * 64, "draw": "d" * 64}  # of what make_project writes
    now = dict.fromkeys(code, "e" * 64)
    write_yaml(layout.root / "accepted.yaml", {"train": {"because": "a rename", "content": code, **now},
                                               "tune": {"because": "x", "content": now, **code}})
    records = by_name(collect(layout, study).records)
    assert {n for n, r in records.items() if r.accepted} == {f"micro-a_micro-sentiment_ft_s{seed}" for seed in (1, 2)}
    assert records["micro-a_micro-sentiment_ft_s1"].accepted == "a rename"
    folder = layout.run("micro-a", "micro-sentiment", "ft", 1) / "infodynamics"
    made = manifest("lens", "infodynamics", "x")
    made.accepted = "other words"
    complete(folder, made)
    records = by_name(collect(layout, study).records)
    assert records["infodynamics@micro-a_micro-sentiment_ft_s1"].accepted == "other words"


def test_history_nulls_are_absent_nan_stays_and_infinity_becomes_nan(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    write_table(path, pa.table({
        "step": [1, 2, 3, 3, 3], "kind": ["train", "train", "train", "eval", "eval"],
        "split": [None, None, None, "test", None], "examples": [1, 2, 3, 3, 3],
        "loss": [1.0, float("nan"), float("inf"), 0.5, 0.25], "accuracy": [None, None, None, 0.75, 0.5],
        "learning_rate": [0.1, 0.2, 0.3, float("nan"), float("nan")]}))
    found = {s.name: (s.steps.tolist(), s.values.tolist()) for s in history_series(path)}
    assert set(found) == {"train/loss", "test/loss", "eval/loss", "test/accuracy", "eval/accuracy",
                          "train/learning_rate"}
    assert found["train/loss"][0] == [1, 2, 3] and np.isnan(found["train/loss"][1][1:]).all()
    assert found["test/accuracy"] == ([3], [0.75])


def test_curves_keep_the_last_value_of_a_step(tmp_path: Path) -> None:
    write_text(tmp_path / "curves.csv", "example,a\n3,1\n1,2\n3,5\n2,\n")
    one, = curves_series(tmp_path / "curves.csv", "x/")
    assert one.name == "x/a" and one.steps.tolist() == [1, 3] and one.values.tolist() == [2, 5]


@pytest.mark.parametrize(("text", "said"), [("name,a\nx,1\n", "no x axis"), ("a,b\n1\n1,2,3\n", "not a readable CSV")])
def test_wrong_curves_are_refused(tmp_path: Path, text: str, said: str) -> None:
    write_text(tmp_path / "curves.csv", text)
    with pytest.raises(FinetraceError, match=said):
        curves_series(tmp_path / "curves.csv", "x/")


def test_params_are_flat_and_fit() -> None:
    found = flat_params({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None, "f": "text", "g": {}, "h@": True,
                         "i": "x" * 7000})
    assert found == {"a.b": "1", "a.c.d": "[1, 2]", "e": "null", "f": "text", "g": "{}", "h_": "true",
                     "i": "x" * 5997 + "..."}


def test_folders_that_are_no_lens_are_passed_over(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, lenses=())
    folder = layout.run("micro-a", "micro-sentiment", "ft", 1) / "hidden"
    made = make_lens(folder, "hidden", "x", 10)
    made.kind = "hidden"
    complete(folder, made)
    assert "lens" not in {r.kind for r in collect(layout, study).records}


def test_a_comparison_of_two_trajectories_becomes_a_run_of_its_own(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, seeds=(1, 2))
    sides = {"first": "micro-a/micro-sentiment/ft/s1", "second": "micro-a/micro-sentiment/ft/s2"}
    study = dataclasses.replace(study, comparisons={"seeds": ComparisonSettings(**sides)})
    assert collect(layout, study).absent == ["comparison seeds"]
    make_lens(layout.comparison("seeds"), "comparison", "seeds", 100)
    record = by_name(collect(layout, study).records)["comparison@seeds"]
    assert (record.kind, record.parent) == ("comparison", "")
    content = record.load()
    assert content.finals["comparison/slope"] == 0.5 and "figures/main.png" in content.artifacts
    assert {s.name for s in content.series} == {"comparison/novelty", "comparison/resonance"}

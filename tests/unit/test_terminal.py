"""`finetrace show` and `finetrace compare`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.outputs import fresh, make_project, manifest

from finetrace.cli import main
from finetrace.layout import Layout
from finetrace.store.arrays import write_array
from finetrace.store.files import write_json
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import write_table

PLACES = [f"micro-a/micro-sentiment/ft/s{seed}" for seed in (1, 2)]
LABELS = np.array([0, 1, 1, 0])
ANSWERS = {PLACES[0]: {0: [0, 0, 0, 0], 40: [0, 1, 1, 0]}, PLACES[1]: {0: [1, 1, 1, 1], 40: [1, 1, 1, 0]}}


def predictions(layout: Layout, place: str, names: tuple[str, str] = ("no", "yes")) -> None:
    folder = fresh(layout.place(place) / "predictions")
    for step, answers in ANSWERS[place].items():
        write_array(folder / f"step-{step:08d}" / "logits.npy", np.eye(2, dtype=np.float32)[answers])
    write_table(folder / "index.parquet", {"set": ["validation"] * 4, "example_id": [5, 6, 7, 8], "label": LABELS,
                                           "sentence": [0, 1, 2, 3], "feature_row": [-1] * 4})
    facts = {"kept_step": 40, "label_names": list(names)}
    complete(folder, replace(manifest("predictions", "predictions", place), facts=facts))


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout, _ = make_project(tmp_path, atlas=False, tuned=False)
    for place, accuracy in zip(PLACES, (0.75, 0.5), strict=True):
        folder = layout.place(place) / "trajectory"
        write_json(folder / "metrics.json", {"validation/accuracy": accuracy, "steps": 40})
        facts = {"metric": "accuracy", "steps": 40, "train": {"learning_rate": 1e-4 * accuracy}}
        complete(folder, replace(read_manifest(folder, verify=False), facts=facts))
    write_table(layout.task("micro-sentiment") / "validation.parquet", pa.table({
        "example_id": [5, 6, 7, 8], "text_a": ["fine [b]film[/b]", "dull", "so", "la"], "text_b": [None] * 3 + ["la"]}))
    monkeypatch.chdir(tmp_path)
    return layout


def out(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_seeds_of_a_cell_are_one_row(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "show")
    row = next(line for line in text.splitlines() if "micro-sentiment" in line)
    assert [part.strip() for part in row.strip("│").split("│")][:5] == [
        "micro-a", "micro-sentiment", "ft", "1, 2", "0.625 ± 0.177"]
    assert "micro-a/pretrain" in text


def test_json_has_mean_spread_and_every_seed(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out(capsys, "show", "--json"))
    number = found["cells"][0]["metrics"]["trajectory/validation/metric"]
    assert number == {"mean": 0.625, "sd": pytest.approx(np.std([0.75, 0.5], ddof=1)), "n": 2,
                      "values": {"1": 0.75, "2": 0.5}}
    assert found["missing"] == [] and found["masked_words"][0]["place"] == "micro-a/pretrain"


def test_what_is_not_finished_is_named(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    (layout.place(PLACES[1]) / "trajectory" / "manifest.json").unlink()
    assert f"not finished: {PLACES[1]}" in out(capsys, "show")
    assert f"{PLACES[1]}: its training is not finished" in out(capsys, "show", PLACES[1], code=1)


def test_a_place_and_a_lens(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "show", f"outputs/{PLACES[0]}/")
    assert "slope of resonance on novelty" in text and "0.500" in text
    assert json.loads(out(capsys, "show", PLACES[0], "--json"))["metrics"]["infodynamics"]["slope"] == 0.5
    assert "0.500 ± 0.000" in out(capsys, "show", "--lens", "infodynamics")
    assert "there are those of infodynamics, trajectory" in out(capsys, "show", "--lens", "hulls", code=1)
    assert f"near: {PLACES[0]}" in out(capsys, "show", "micro-a/micro-sentimnt/ft/s1", code=1)


def test_one_lens_of_a_place(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "show", PLACES[0], "--lens", "infodynamics")
    assert "slope of resonance" in text and "trajectory " not in text
    assert list(json.loads(out(capsys, "show", PLACES[0], "--lens", "infodynamics", "--json"))["metrics"]) == [
        "infodynamics"]
    assert "no headline metrics of the lens nix are there" in out(capsys, "show", PLACES[0], "--lens", "nix", code=1)


def test_what_stands_for_the_accuracy_of_a_regression_is_said(layout: Layout, capsys: pytest.CaptureFixture[str]):
    for place in PLACES:
        folder = layout.place(place) / "trajectory"
        made = read_manifest(folder, verify=False)
        write_json(folder / "metrics.json", {"validation/pearson": 0.25, "steps": 40})
        complete(folder, replace(made, facts={**made.facts, "metric": "pearson", "target": "regression"}))
    text = " ".join(out(capsys, "show", PLACES[0]).replace("│", " ").split())
    assert "of a regression: Pearson's correlation" in text
    assert "answers are compared where a task has classes, and micro-sentiment has none" in out(
        capsys, "compare", *PLACES)


def test_a_set_that_is_asked_for_and_not_there_is_an_error(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    for place in PLACES:
        predictions(layout, place)
    assert "--set nix: " in (text := out(capsys, "compare", *PLACES, "--set", "nix", code=1)) and "it has valid" in text
    assert "accuracy 1.000" in out(capsys, "compare", *PLACES, "--set", "validation")
    assert "--examples: -2 is below 0" in out(capsys, "compare", *PLACES, "--examples", "-2", code=1)


def test_compare_tells_settings_numbers_and_examples(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    for place in PLACES:
        predictions(layout, place)
    text = out(capsys, "compare", *PLACES)
    assert "train.learning_rate" in text and "-0.250" in text
    assert "accuracy 1.000 -> 0.750, difference -0.250" in text and "fine [b]film[/b]" in text
    found = json.loads(out(capsys, "compare", *PLACES, "--json"))["examples"]
    assert found["lost"] == [{"example_id": 5, "text": "fine [b]film[/b]", "label": "no", "first": "no",
                              "second": "yes", "flipped": 0}] and found["won"] == []
    back = json.loads(out(capsys, "compare", *reversed(PLACES), "--json"))
    assert [e["flipped"] for e in back["examples"]["won"]] == [0] and back["examples"]["lost"] == []
    assert back["settings"]["seed"] == [2, 1]


def test_compare_without_predictions_says_what_is_missing(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "compare", *PLACES)
    assert "which examples changed is not known" in text and "params.yaml: look" in text
    predictions(layout, PLACES[0])
    predictions(layout, PLACES[1], ("yes", "no"))
    assert "tell other classes apart" in out(capsys, "compare", *PLACES)
    assert "not fine-tunings on one task" in out(capsys, "compare", PLACES[0], "micro-a/pretrain")

"""What is told of checkpoints: numbers from curves of lenses, files and hashes of weights."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from tests.outputs import make_project, manifest

from finetrace.errors import FinetraceError
from finetrace.lenses.headline import AtCheckpoint, columns_of
from finetrace.store.files import write_json, write_text
from finetrace.store.manifest import complete, read_manifest
from finetrace.tracking.checkpoints import checkpoints_of, numbers_at
from finetrace.tracking.described import LENSES, at_checkpoints_of, headline_metrics, headlines_of
from finetrace.tracking.series import metric_name

DECLARED = {path.parent.name: at_checkpoints_of(path.parent.name) for path in LENSES.glob("*/headlines.py")}


def test_columns_by_name_layer_and_text() -> None:
    names = ["a_layer_9", "a_layer_10", "b", "x/own_layer1", "y/own_layer2", "y/own_layer0", "y/own_any_layer"]
    assert columns_of("a_layer_{layer}", names) == [["a_layer_9", "a_layer_10"]]
    assert columns_of("*/own_layer{layer}", names) == [["x/own_layer1"], ["y/own_layer0", "y/own_layer2"]]
    assert columns_of("c|b", names) == [["b"]] and columns_of("c", names) == []


def test_numbers_of_a_step(tmp_path: Path) -> None:
    curves = tmp_path / "curves.csv"
    curves.write_text("step,a_layer_0,a_layer_1,f1_x,f1_y,g\n0,0.5,0.25,1,3,\n8,0.5,nan,2,inf,7\n")
    asked = (AtCheckpoint("last", "a_layer_{layer}"), AtCheckpoint("best", "a_layer_{layer}", largest=True),
             AtCheckpoint("f1", "f1_*"), AtCheckpoint("g", "g"), AtCheckpoint("absent", "h"))
    assert numbers_at(curves, "x", asked) == {
        0: {"x/last": 0.25, "x/best": 0.5, "x/f1": 2.0}, 8: {"x/best": 0.5, "x/f1": 2.0, "x/g": 7.0}}
    curves.write_text("example,g\n1,2\n")
    assert numbers_at(curves, "x", asked) == {}
    curves.write_text("step,g\n0,1,2\n")
    with pytest.raises(FinetraceError, match=r"curves\.csv: not a readable CSV file"):
        numbers_at(curves, "x", asked)


def test_every_lens_that_compares_checkpoints_names_few_numbers() -> None:
    names = [metric_name(f"{lens}/{one.name}") for lens, declared in DECLARED.items() for one in declared]
    assert len(names) == len(set(names)) and 10 < len(names) <= 25 and not [n for n in names if " " in n]
    assert not hasattr(import_module("finetrace.lenses.infodynamics.headlines"), "AT_CHECKPOINTS")  # over examples


def test_what_a_number_at_a_checkpoint_says_is_declared_once() -> None:
    """The headline metric that is the same number is one that the lens declares."""
    for lens, numbers in DECLARED.items():
        metrics = {headline.metric for headline in headlines_of(lens)}
        assert {number.metric for number in numbers} - {""} <= metrics, lens
    assert "metric" not in repr(AtCheckpoint("ece", "test_ece", metric="test/ece"))  # no reason to tell a model anew


def test_no_two_names_in_mlflow_look_alike(tmp_path: Path) -> None:
    """Headline metrics and numbers at checkpoints, both on the run of the training."""
    folder = tmp_path / "calibration"
    write_json(folder / "metrics.json", {"test/ece": 0.1, "test/ece_scaled": 0.05})
    assert headline_metrics(folder) == {"calibration/ece": 0.1, "calibration/ece_scaled": 0.05}
    for lens, numbers in DECLARED.items():
        write_json(tmp_path / lens / "metrics.json", {part.replace("*", "x"): 1.0 for headline in headlines_of(lens)
                                                      for part in (headline.mean_of or headline.metric).split("|")})
        names = {*headline_metrics(tmp_path / lens), *(f"{lens}/{number.name}" for number in numbers)}
        assert len({name.casefold().replace(" ", "_") for name in names}) == len(names), names


def test_checkpoints_are_folders_and_hashes(tmp_path: Path) -> None:
    layout, _ = make_project(tmp_path, outputs=True, steps=40)
    folder = layout.place("micro-a/micro-sentiment/ft/s1") / "trajectory"
    found = checkpoints_of(layout, folder, read_manifest(folder), {}, {"model": "micro-a"})
    assert found is not None
    first, last = found.load()
    assert (first.step, last.step) == (0, 40) and last.weights.endswith("ft/s1/trajectory/checkpoints/step-00000040")
    assert set(last.sha256) == {"config.json", "model.safetensors"} and last.numbers["validation/accuracy"] == 0.9
    other = checkpoints_of(layout, folder, read_manifest(folder), {"geometry": manifest("lens", "geometry", "x")}, {})
    assert other is not None and other.digest != found.digest


def test_checkpoints_of_a_series_lie_elsewhere(tmp_path: Path) -> None:
    layout, _ = make_project(tmp_path, outputs=False)
    folder = layout.pretrain("pythia")
    folder.mkdir(parents=True)
    checkpoints = {"8": {"id": "o/m", "revision": "abc", "sha256": {"model.safetensors": "1"}},
                   "16": {"path": "models/x", "sha256": {"model.safetensors": "2"}, "base": None}}
    write_text(folder / "series.json", json.dumps({"checkpoints": checkpoints}))
    complete(folder, replace(manifest("trajectory", "series", "pythia"), inputs={}))
    found = checkpoints_of(layout, folder, read_manifest(folder), {}, {"model": "pythia"})
    assert found is not None
    assert [(one.step, one.weights, one.sha256["model.safetensors"]) for one in found.load()] == [
        (8, "o/m@abc", "1"), (16, "models/x", "2")]
    (folder / "series.json").unlink()
    complete(folder, manifest("trajectory", "pretrain", "pythia"))
    assert checkpoints_of(layout, folder, read_manifest(folder), {}, {}) is None

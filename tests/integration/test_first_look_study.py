"""A first look says what a study says with the same rows: every lens's table, number for number."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.first_looks import NAMES, as_checkpoint, classifier_folder, encoder_folder
from tests.hidden_outputs import run_main
from tests.stages import ask, of_run
from tests.training_fixtures import task_folder

from finetrace import seeds
from finetrace.config.hidden import HiddenSettings
from finetrace.config.predictions import PredictionsSettings
from finetrace.first_look.request import LENSES, Request
from finetrace.first_look.run import Look, comparison_name, look
from finetrace.inference.predictions import predict_trajectory
from finetrace.inference.trajectory import extract_trajectory
from finetrace.layout import Layout
from finetrace.lenses.calibration.settings import CalibrationSettings
from finetrace.lenses.convergence.settings import ConvergenceSettings
from finetrace.lenses.geometry.settings import GeometrySettings
from finetrace.lenses.hulls.settings import HullsSettings
from finetrace.lenses.probes.settings import ProbesSettings
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.pipeline.stage import open_stage
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import read_long_table, write_table

pytestmark = pytest.mark.slow  # several trainings; tests/unit has the parts

TASK, SEED, MAX_LENGTH = "tiny", 0, 128
SETTINGS: dict[str, Any] = {
    "geometry": GeometrySettings(), "similarity": SimilaritySettings(), "hulls": HullsSettings(),
    "probes": ProbesSettings(), "convergence": ConvergenceSettings(split="validation"),
    "calibration": CalibrationSettings()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's outputs of two models on one task: what the stages hidden, predictions and the lenses wrote."""
    root = tmp_path_factory.mktemp("project")
    task_folder(root / "data" / TASK)
    for name in ("plain", "tuned"):
        model = (encoder_folder if name == "plain" else classifier_folder)(root / "models" / name)
        run = root / "outputs" / name / TASK / "ft" / "s1"
        facts = {"train": {"max_length": MAX_LENGTH, "pieces": "mean"}, "kept_step": 0, "label_names": list(NAMES),
                 "metric": "accuracy"}
        as_checkpoint(model, run / "trajectory", facts)
        write_table(run / "trajectory" / "history.parquet", {"step": [0], "kind": ["eval"], "split": ["validation"],
                                                             "accuracy": [0.5]})
        settings = HiddenSettings(rows={"train": 0, "validation": 0}, token_rows={"validation": 24})
        with atomic_folder(run / "hidden") as out:
            made = extract_trajectory(run / "trajectory", model, root / "data" / TASK, settings, MAX_LENGTH,
                                      seeds.derive(SEED, "hidden", TASK), scratch=root / "scratch", out=out, name=name)
            complete(out, Manifest("hidden", "hidden", name, name, {}, {}, {}, made), started=0.0)
        if name == "tuned":
            with atomic_folder(run / "predictions") as out:
                made, _ = predict_trajectory(run / "trajectory", model, root / "data" / TASK, PredictionsSettings(),
                                             seeds.derive(SEED, "predictions", TASK), scratch=root / "scratch-p",
                                             out=out, name=name)
                complete(out, Manifest("predictions", "predictions", name, name, {}, {}, {}, made), started=0.0)
        for lens in LENSES:
            if lens != "calibration" or name == "tuned":
                ask(root, lens, name, **of_run(f"{name}/{TASK}/ft/s1"), **{lens: asdict(SETTINGS[lens])})
                run_main(open_stage(lens, name, Layout(root, root)))
    item = comparison_name("plain", "tuned")
    ask(root, "comparison", item, comparison={side: f"{name}/{TASK}/ft/s1" for side, name in
                                              (("first", "plain"), ("second", "tuned"))},
        similarity=asdict(SETTINGS["similarity"]))
    run_main(open_stage("comparison", item, Layout(root, root)))
    return root


@pytest.fixture(scope="module")
def found(project: Path) -> Look:
    """A first look at the same models, all rows."""
    models = tuple(str(project / "models" / name) for name in ("plain", "tuned"))
    return look(Request(models, str(project / "data" / TASK), rows=0, seed=SEED))


def assert_equal(ours: pd.DataFrame, study: pd.DataFrame) -> None:
    """Equal rows, but for changes against a first checkpoint, which the look leaves out."""
    columns = [name for name in study if not name.startswith("change")]
    keys = [name for name in columns if name not in ("value", "low", "high", "n", "p", "clusters")]
    first, second = (frame[columns].astype({name: str for name in keys if frame[name].dtype.name == "category"})
                     .sort_values(keys).reset_index(drop=True) for frame in (ours, study))
    pd.testing.assert_frame_equal(first, second, check_dtype=False, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lens", [lens for lens in LENSES if lens != "similarity"])
def test_numbers_of_one_model_are_those_of_a_study(project: Path, found: Look, lens: str) -> None:
    looked = {name: parts[lens] for name, parts in found.of_model.items() if lens in parts}
    assert list(looked) == (["tuned"] if lens == "calibration" else ["plain", "tuned"])
    for name, part in looked.items():
        study = read_long_table(project / "outputs" / name / TASK / "ft/s1" / lens / "table.parquet").frame
        if lens == "convergence":
            study = study[(study["over"] == "layers") & (study["of"] == "level")]
            assert len(study) == 2
        if lens == "hulls":  # validation rows are not probed by themselves
            study = study[(study["split"] == "train") & (study["statistic"] != "similarity_between_splits")]
        if lens == "calibration":
            study = study[study["set"] == "validation"]
        assert len(study) >= 2
        assert_equal(part.table.frame, study)


def test_similarity_of_two_models_is_that_of_a_comparison(project: Path, found: Look) -> None:
    study = read_long_table(project / "comparisons" / comparison_name("plain", "tuned") / "table.parquet").frame
    (part,) = found.of_pair.values()
    assert set(study["representation"]) == {"cls", "tokens"} and set(study["statistic"]) > {"cka", "rsa"}
    assert_equal(part.table.frame, study)


def test_similarity_of_one_model_is_that_of_the_lens(project: Path) -> None:
    alone = look(Request((str(project / "models/plain"),), str(project / "data" / TASK), rows=0, seed=SEED,
                       lenses=("similarity",)))
    study = read_long_table(project / "outputs/plain" / TASK / "ft/s1/similarity/table.parquet").frame
    assert list(alone.of_model["plain"]) == ["similarity"]
    assert_equal(alone.of_model["plain"]["similarity"].table.frame, study)


def test_metrics_have_the_names_and_values_of_a_study(project: Path, found: Look) -> None:
    import json

    for lens in ("geometry", "hulls", "probes", "calibration"):
        study = json.loads((project / "outputs/tuned" / TASK / "ft/s1" / lens / "metrics.json").read_text())
        ours = found.of_model["tuned"][lens].metrics
        shared = {name for name in ours if name in study}
        assert len(shared) >= 6, lens
        for name in shared:
            np.testing.assert_allclose(ours[name], study[name], rtol=1e-12, err_msg=name)

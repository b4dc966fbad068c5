"""The published tables from synthetic outputs: cells, hidden sizes, cross-task effect, counts, and what is missing."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.hidden_outputs import TRAJECTORY, hidden_stage, run_main, stage_output
from tests.markdown import plain
from tests.outputs import history, manifest

from finetrace.cli import main
from finetrace.layout import Layout
from finetrace.lenses.hulls.settings import HullsSettings
from finetrace.lenses.probes.settings import MlpSettings, ProbesSettings
from finetrace.reports.closer_look import Cell, State, counts, tables
from finetrace.store.files import write_yaml
from finetrace.store.manifest import complete
from finetrace.store.tables import write_table
from finetrace.study import Study, parse_study

TASKS = ("pos", "dep")
MODELS = ("tiny", "base")


def params(**changes: Any) -> dict[str, Any]:
    return {"study": {"name": "demo"}, "models": {m: {"id": m} for m in MODELS},
            "task_files": {t: {"path": f"sources/{t}.csv", "text": ["text"], "label": "label"} for t in TASKS},
            "runs": [{"model": list(MODELS), "task": list(TASKS)}], "look": {"hulls, probes": "all"},
            "probes": {"test_splits": ["validation", "test"]},
            "cross_tasks": {"pos-after-dep": {"tuned": "base/dep/ft/s1", "task": "pos"}}, **changes}


def finished(folder: Path, rows: list[dict]) -> None:
    """A lens's finished folder with these rows."""
    columns = ("step", "layer", "statistic", "value", "split", "label")
    folder.mkdir(parents=True)
    write_table(folder / "table.parquet", pa.table({name: [row.get(name, "") for row in rows] for name in columns}))
    complete(folder, manifest("lens", folder.name, "x"))


def hulls(layout: Layout, model: str, task: str, first: tuple, last: tuple) -> None:
    """first, last: clusters, linear, similarity of the last layer."""
    rows = [{"step": step, "layer": layer, "statistic": name, "value": value + 100 * (layer == 3), "split": "train"}
            for step, values in ((0, first), (4, last), (9, last)) for layer in (3, 7)
            for name, value in zip(("clusters", "linear", "similarity_between_splits"), values, strict=True)]
    rows += [{"step": 0, "layer": 7, "statistic": "clusters", "value": 5.0, "split": "train", "label": "NOUN"},
             {"step": 0, "layer": 7, "statistic": "clusters", "value": 6.0, "split": "validation"}]
    finished(layout.run(model, task, "ft", 1) / "hulls", rows)


def probes(layout: Layout, model: str, task: str, first: dict, last: dict) -> None:
    rows = [{"step": step, "layer": 7, "statistic": name, "value": value,
             "split": "train" if "hidden" in name else "test"}
            for step, values in ((0, first), (9, last)) for name, value in values.items()]
    rows += [{"step": step, "layer": 7, "statistic": "mlp_accuracy", "value": 0.1, "split": "validation"}
             for step in (0, 9)]
    finished(layout.run(model, task, "ft", 1) / "probes", rows)


def networks(accuracy: float, sd: float, first: int, second: int) -> dict[str, float]:
    return {"accuracy": 0.5, "mlp_accuracy": accuracy, "mlp_accuracy_sd": sd, "mlp_hidden_1": first,
            "mlp_hidden_2": second}


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    """Published cells of tiny and base on POS; tiny on DEP with logistic probes; base on DEP without outputs."""
    layout, study = Layout(tmp_path, tmp_path), parse_study(params(), "params.yaml")
    hulls(layout, "tiny", "pos", (3936, 0, 0.9), (20, 0, 0.8))
    probes(layout, "tiny", "pos", networks(0.9076, 0.0024, 256, 64), networks(0.9167, 0.0029, 64, 64))
    hulls(layout, "base", "pos", (17, 1, 0.97), (17, 1, 0.70))
    probes(layout, "base", "pos", networks(0.9339, 0.0031, 256, 128), networks(0.9568, 0.0002, 128, 0))
    hulls(layout, "tiny", "dep", (653, 0, np.nan), (46, 1, 0.88))
    probes(layout, "tiny", "dep", {"accuracy": 0.86}, {"accuracy": 0.85})
    rows = [{"step": step, "layer": 7, "statistic": name, "value": value, "split": "test"} for step, name, value in (
        (0, "mlp_accuracy", 0.8775), (9, "mlp_accuracy", 0.8324), (9, "labels_grown", 0), (9, "labels_shrunk", 40),
        (9, "mean_growth", -1.68))]
    finished(layout.cross_task("pos-after-dep"), rows)
    return layout, study


def test_the_published_form(project: tuple[Layout, Study]) -> None:
    text = plain(tables(*project))
    assert "| model | pos | dep |\n| --- | --- | --- |\n" in text
    assert ("| tiny | 90.76 (0.24) / 3,936 / N / -; 91.67 (0.29) / 20 / N / - | 86.00* / 653 / N / -; 85.00* / 46 / Y "
            "/ 0.88 |\n| base | 93.39 (0.31) / 17 / Y / 0.97; 95.68 (0.02) / 17 / Y / 0.70 | - |") in text
    assert "| tiny | 256,64; 64,64 | - |\n| base | 256,128; 128 | - |" in text
    assert ("**Cross-task effect on pos**\n\n| tuned on | labels up | labels down | mean change of min distance | "
            "accuracy |\n| --- | --- | --- | --- | --- |\n| none | - | - | - | 87.75 |\n| dep | 0 | 40 | -1.68 | "
            "83.24 |") in text
    assert "accuracy in % on test, in brackets the standard deviation over seeds; *: logistic regression." in text
    assert ("raised the accuracy in 2 of 3 cells; the number of clusters fell in 2 of 3, rose in 0 and stayed in 1; "
            "the similarity of training and test fell in 1 of the 1 cells") in text


def test_what_is_missing_is_named_with_the_stages_that_fill_it(project: tuple[Layout, Study]) -> None:
    layout, _ = project
    study = parse_study(params(cross_tasks={"later": {"tuned": "tiny/dep/ft/s1", "task": "dep"}}), "params.yaml")
    text = plain(tables(layout, study))
    assert "- base_dep_ft_s1: dvc repro hulls@base_dep_ft_s1 probes@base_dep_ft_s1\n" in text
    assert "- cross-task effect later: dvc repro cross-task@later\n" in text
    assert "tiny_dep_ft_s1:" not in text and "Cross-task effect on" not in text
    text = plain(tables(layout, study, split="train"))
    assert "- tiny_dep_ft_s1: has no accuracy on train; add it to probes.test_splits" in text


def test_nothing_at_all_is_a_table_of_dashes(tmp_path: Path) -> None:
    text = plain(tables(Layout(tmp_path, tmp_path), parse_study(params(cross_tasks={}), "params.yaml")))
    assert "| tiny | - | - |\n| base | - | - |" in text and "No cell is complete." in text
    assert text.count("dvc repro hulls@") == 4 and "hidden sizes" not in text


def test_another_layer_and_split(project: tuple[Layout, Study]) -> None:
    layout, study = project
    assert "/ 4,036 /" in tables(layout, study, layer=0) and "/ 3,936 /" in tables(layout, study, layer=1)
    assert "90.76" not in tables(layout, study, split="validation") and "10.00" in tables(layout, study,
                                                                                          split="validation")
    text = plain(tables(layout, study, layer=5))  # further than there are layers
    assert "- tiny_pos_ft_s1: dvc repro hulls@tiny_pos_ft_s1 probes@tiny_pos_ft_s1" in text


def test_several_seeds_are_rows_of_their_own(tmp_path: Path) -> None:
    more = [*params()["runs"], {"model": "tiny", "task": "pos", "seed": 2}]
    text = plain(tables(Layout(tmp_path, tmp_path), parse_study(params(runs=more), "params.yaml")))
    assert "| tiny s1 | - | - |" in text and "| tiny s2 | - | - |" in text


def test_only_what_hulls_or_probes_look_at_is_a_cell(tmp_path: Path) -> None:
    look = {"hulls": "tiny/pos/ft/s1", "probes": "base/dep/ft/s1", "infodynamics": "all"}
    text = plain(tables(Layout(tmp_path, tmp_path), parse_study(params(look=look, cross_tasks={}), "params.yaml")))
    assert [line for line in text.splitlines() if line.startswith("- ")] == [  # items that the study has
        "- tiny_pos_ft_s1: dvc repro hulls@tiny_pos_ft_s1", "- base_dep_ft_s1: dvc repro probes@base_dep_ft_s1"]


def test_counts_look_only_at_what_is_known_and_at_linear_pairs() -> None:
    def cell(accuracies: tuple, clusters: tuple, linear: tuple = (1, 1), alike: tuple = (0.9, 0.5)) -> Cell:
        return Cell("m", "t", *(State(a, 0.1, (), c, flag, r) for a, c, flag, r in
                                zip(accuracies, clusters, linear, alike, strict=True)))

    sentence = counts([cell((0.5, 0.6), (9, 3)), cell((0.5, 0.5), (3, 4), alike=(0.5, 0.6)),
                       cell((np.nan, 0.9), (np.nan, 3)), cell((0.7, 0.6), (3, 3), linear=(0, 1))])
    assert sentence == ("Tuning raised the accuracy in 1 of 3 cells; the number of clusters fell in 1 of 3, rose in 1 "
                        "and stayed in 1; the similarity of training and test fell in 2 of the 3 cells that are "
                        "linear before and after.")
    assert counts([cell((np.nan, 1), (np.nan, 1))]) == "No cell is complete."


def test_what_the_stages_hulls_and_probes_write_is_read(tmp_path: Path) -> None:
    made = {"hulls": HullsSettings(layers=[-1], predict_rows=0),
            "probes": ProbesSettings(layers=[-1], mlp=MlpSettings(hidden=[[8, 4]], l2=[1e-3], seeds=2, max_epochs=20))}
    layout = Layout(tmp_path, tmp_path)
    for lens, settings in made.items():
        stage = hidden_stage(tmp_path, lens, settings, spans=1, classes=3, token_rows={}, steps=(0, 64))
        if lens == "probes":
            write_table(stage_output(stage).parent / "trajectory" / "history.parquet", history(20))
        run_main(stage)
    study = parse_study({"study": {"name": "x"}, "pretrain": {TRAJECTORY["model"]: {}}, "runs": [TRAJECTORY],
                         "tasks": {TRAJECTORY["task"]: {"source": "micro"}}, "look": {"hulls, probes": "all"}}, "x")
    text = plain(tables(layout, study))
    state = r"\d+\.\d\d \(\d+\.\d\d\) / 3 / Y / -?\d\.\d\d"
    assert re.search(rf"\| {TRAJECTORY['model']} \| {state}; {state} \|", text), text
    assert "| 8,4; 8,4 |" in text and "Missing" not in text and "logistic" not in text


def test_the_command_prints_the_tables(project: tuple[Layout, Study], monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    layout, study = project
    write_yaml(layout.params, params())
    monkeypatch.chdir(layout.root)
    assert main(["table", "closer-look"]) == 0
    assert capsys.readouterr().out == tables(layout, study)
    (layout.run("tiny", "pos", "ft", 1) / "hulls" / "table.parquet").unlink()
    assert main(["table", "closer-look"]) == 1
    assert "hulls/table.parquet: absent instead of" in capsys.readouterr().err

"""The tables of linear probing then fine-tuning, from synthetic outputs."""

from pathlib import Path
from typing import Any

import pytest
from tests.markdown import plain
from tests.outputs import manifest

from finetrace.cli import main
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.reports import markdown
from finetrace.reports.lp_ft import tables
from finetrace.store.files import write_json, write_yaml
from finetrace.store.manifest import complete
from finetrace.study import Study, parse_study

METHODS = ("lp", "lp-ft")
TASKS = ("cb", "amazon", "cola", "rte")


def params(**changes: Any) -> dict[str, Any]:
    return {"study": {"name": "demo"}, "models": {"roberta": {"id": "roberta-base"}},
            "tasks": {t: {"source": "micro", "config": "micro-sentiment"} for t in TASKS},
            "runs": [{"model": "roberta", "task": list(TASKS), "method": list(METHODS), "seed": [1, 2]}],
            "look": {"answers": "all", "kernel": "roberta/cb/*/s1"}, **changes}


def finished(folder: Path, stage: str, metrics: dict[str, float], **facts: object) -> None:
    """A stage's finished folder with these metrics."""
    made = manifest(stage, stage, "x")
    made.facts = {**made.facts, **facts}
    write_json(folder / stage / "metrics.json", metrics)
    complete(folder / stage, made)


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    """cb: all of lp-ft's two seeds, one of lp's; amazon: with sets out of distribution; cola: another metric; rte:
    nothing."""
    layout, study = Layout(tmp_path, tmp_path), parse_study(params(), "params.yaml")
    for task, method, seed, accuracy in (("cb", "lp-ft", 1, 0.8), ("cb", "lp-ft", 2, 0.9), ("cb", "lp", 1, 0.7)):
        folder = layout.run("roberta", task, method, seed)
        finished(folder, "trajectory", {"test/accuracy": accuracy, "validation/accuracy": accuracy / 2},
                 metric="accuracy")
        finished(folder, "predictions", {"test/accuracy": 0.1, "train/accuracy": 0.2})
        finished(folder, "calibration", {"test/accuracy": accuracy, "test/ece": 0.1 + seed / 100,
                                         "test/ece_scaled": 0.05,
                                         "test/mce": 0.7, "test/mce_scaled": 0.6, "temperature": 1.0 + seed})
        ratio = {"test/fdr/first": 81400.0, "test/fdr/kept": 7.39e8} if method == "lp-ft" else {}
        finished(folder, "features", {"test/cosine/first": 0.997, "test/cosine/kept": 0.336 + seed / 1000,
                                      "test/diff": 22.1,
                                      "test/fdr_ridge/first": 3.0, "test/fdr_ridge/kept": 4.0, "head_norm/first": 24.8,
                                      "head_norm/kept": 24.9, **ratio})
    finished(layout.run("roberta", "cb", "lp-ft", 1), "kernel", {
        "ft_effective/rank/first": 344.0, "ft_effective/frobenius_norm/first": 7.25e6,
        "ft_effective/accuracy_flat_train/first": 1.0, "ft_effective/accuracy_flat_eval/first": 0.86314,
        "ft_effective/accuracy_train/first": 1.0, "ft_ratio/first": 0.99996,
        "full/rank/first": 345.0, "full/frobenius_norm/first": 7.28e6, "ft_ratio/last": 0.5})
    folder = layout.run("roberta", "amazon", "lp-ft", 1)
    finished(folder, "trajectory", {"validation/accuracy": 0.88}, metric="accuracy")
    finished(folder, "predictions", {"validation/accuracy": 0.5, "sst5/accuracy": 0.7378, "dynasent/accuracy": 0.4541})
    finished(folder, "calibration", {"sst5/accuracy": 0.7378, "sst5/ece": 0.25, "sst5/ece_scaled": 0.2})
    finished(folder, "features", {"sst5/cosine/first": 0.998, "sst5/cosine/kept": 0.997, "sst5/diff": 1.86})
    finished(layout.run("roberta", "cola", "lp-ft", 1), "trajectory", {"test/accuracy": 0.1, "test/matthews": 0.5795},
             metric="matthews")
    return layout, study


def lines(text: str, heading: str) -> list[str]:
    """The lines of the table below a heading, without its header."""
    block = text.split(f"**{heading}", 1)[1].split("\n\n", 2)[1]
    return block.split("\n")[2:]


def test_accuracy_by_set_and_method(project):
    text = plain(tables(*project))
    assert "| data | lp | lp-ft |\n| --- | --- | --- |\n" in text
    assert lines(text, "Accuracy") == [
        "| cb | 70.00 (1/2) | 85.00 ± 7.07 |",
        "| amazon, validation | - | 88.00 (1/2) |",
        "| amazon → dynasent | - | 45.41 (1/2) |",
        "| amazon → sst5 | - | 73.78 (1/2) |",
        "| cola (matthews) | - | 57.95 (1/2) |",
        "| rte | - | - |",
    ]


def test_calibration_before_and_after(project):
    text = plain(tables(*project))
    found = lines(text, "Expected calibration error")
    assert found[0] == "| cb | 11.00 → 5.00 | 11.50 → 5.00 |" and found[3] == "| amazon → sst5 | - | 25.00 → 20.00 |"
    assert lines(text, "Maximum calibration error")[0] == "| cb | 70.00 → 60.00 | 70.00 → 60.00 |"
    assert lines(text, "Temperature") == ["| cb | 2.00 | 2.50 |",
                                          "| amazon, validation | - | - |"]  # nobody looked at the others


def test_features_of_every_set(project):
    assert lines(plain(tables(*project)), "Features") == [
        "| cb | lp | 0.997 → 0.337 | 22.1 | 3 → 4* | 24.8 → 24.9 |",
        "| cb | lp-ft | 0.997 → 0.338 | 22.1 | 8.14e+04 → 7.39e+08 | 24.8 → 24.9 |",
        "| amazon, validation | lp-ft | - | - | - | - |",
        "| amazon → dynasent | lp-ft | - | - | - | - |",
        "| amazon → sst5 | lp-ft | 0.998 → 0.997 | 1.86 | - | - |",
    ]


def test_kernel_at_the_start(project):
    found = lines(plain(tables(*project)), "Neural tangent kernel")
    assert found == [
        "| cb | lp-ft | P | - | - | - / - | - / - |  |",
        "| cb | lp-ft | F | 344 | 7.25e+06 | 100.00 / 86.31 | 100.00 / - |  |",
        "| cb | lp-ft | NTK | 345 | 7.28e+06 | - / - | - / - | 1.0000 |",
    ]
    assert lines(plain(tables(*project, split="validation")),
                 "Neural tangent kernel") == found, "it has rows of its own"


def test_a_lens_that_looks_nowhere_is_said(tmp_path):
    text = tables(Layout(tmp_path, tmp_path), parse_study(params(look={}), "params.yaml"))
    assert all(f"The lens {lens} has looked at none of these trainings." in text for lens in ("features", "kernel"))


def test_another_split(project):
    found = lines(plain(tables(*project, split="validation")), "Accuracy")
    assert (
        found[0] == "| cb, validation | 35.00 (1/2) | 42.50 ± 3.54 |"
        and found[4] == "| cola (matthews), validation | - | - |"
    )


def test_what_is_missing_is_said_with_its_command(project):
    text = plain(tables(*project))
    assert ("- roberta_cb_lp_s1: dvc repro kernel@roberta_cb_lp_s1\n"
            "- roberta_cb_lp_s2: dvc repro train@roberta_cb_lp_s2\n") in text
    assert text.endswith("\n- and 3 more\n") and text.count("\n- ") == 11
    assert (
        "roberta_cola_lp-ft_s1: dvc repro predictions@roberta_cola_lp-ft_s1 calibration@roberta_cola_lp-ft_s1" in text
    )


def test_stages_of_searched_settings_are_named_as_dvc_does(project):
    study = parse_study(params(methods={"lp-ft": {"kind": "lp-ft", "settings": "tuned"}}), "params.yaml")
    key = "roberta_amazon_lp-ft_s2"
    assert f"- {key}: dvc repro train-tuned@{key}\n" in tables(project[0], study)
    assert f"- {key}: dvc repro train@{key}\n" in tables(*project)


def test_several_models_are_named(project):
    layout, _ = project
    content = params(models={"roberta": {"id": "roberta-base"}, "bert": {"id": "bert-base-cased"}}, look={})
    content["runs"] += [{"model": "bert", "task": "cb", "method": "lp"}]
    found = lines(plain(tables(layout, parse_study(content, "params.yaml"))), "Accuracy")
    assert found[0] == "| cb in roberta | 70.00 (1/2) | 85.00 ± 7.07 |" and found[-1] == "| cb in bert | - | - |"


def test_a_broken_file_is_named(project):
    folder = project[0].run("roberta", "cb", "lp", 1) / "features"
    (folder / "metrics.json").write_text("{")
    with pytest.raises(FinetraceError, match=r"features/metrics\.json: 1 instead of .*run its stage again"):
        tables(*project)


def test_the_command(project, monkeypatch, capsys):
    write_yaml(project[0].params, params())
    monkeypatch.chdir(project[0].root)
    assert main(["table", "lp-ft"]) == 0
    assert capsys.readouterr().out == tables(*project)
    assert main(["table", "lp-ft", "--split", "validation"]) == 0
    assert capsys.readouterr().out == tables(*project, split="validation")
    assert main(["table", "lp-ft", "--layer", "0"]) == 1
    assert "--layer: the tables of lp-ft are not about a layer" in capsys.readouterr().err


@pytest.mark.parametrize(("values", "wanted", "text"), [
    ([], 2, "-"), ([float("nan")], 1, "-"), ([0.5], 1, "0.50"), ([0.5], 2, "0.50 (1/2)"),
    ([1.0, 2.0], 2, "1.50 ± 0.71"), ([1.0, float("nan"), 2.0], 3, "1.50 ± 0.71 (2/3)"),
])
def test_mean_and_standard_deviation(values, wanted, text):
    assert markdown.mean_sd(values, wanted) == text


def test_bars_in_cells_do_not_break_a_table():
    assert plain(markdown.table(("a", "b"), [("x|y", "z")])) == "| a | b |\n| --- | --- |\n| x/y | z |"


def test_columns_are_aligned_and_texts_stay_as_they_are():
    rows = [("0.10", "1e3"), ("", "1.50 ± 0.71")]
    assert markdown.table(("n", "value"), rows).split("\n") == [
        "| n    | value       |", "|------|-------------|", "| 0.10 | 1e3         |", "|      | 1.50 ± 0.71 |"]
    assert plain(markdown.table(("a", "b"), [])) == "| a | b |\n| --- | --- |"

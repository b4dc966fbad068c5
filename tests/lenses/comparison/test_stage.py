"""The stage comparison on synthetic hidden states of two trajectories: files, numbers, choices of rows, clear
errors."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tests.hidden_outputs import check_redrawn, make_hidden, run_main
from tests.lenses.similarity.test_stage import LEAST, columns, one, select
from tests.pictures import assert_drawn
from tests.stages import ask

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.comparison.settings import ComparisonSettings
from finetrace.lenses.similarity import measures as lens
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.hidden import read_hidden
from finetrace.store.manifest import read_manifest

PLACES = {"first": "a/micro-sentiment/ft/s1", "second": "b/micro-sentiment/ft/s1"}


def comparison(root: Path, first: dict, second: dict, **settings: object) -> Stage:
    """The stage comparison@pair of two synthetic trajectories."""
    layout = Layout(root, root)
    for place, hidden in zip(PLACES.values(), (first, second), strict=True):
        make_hidden(layout.place(place) / "hidden", **hidden)
    chosen = SimilaritySettings(**LEAST | {"rows": 1000} | settings)  # type: ignore[arg-type]
    ask(root, "comparison", "pair", comparison=PLACES, similarity=asdict(chosen))
    return open_stage("comparison", "pair", layout)


def test_models_of_other_width_depth_and_length_are_compared(tmp_path: Path) -> None:
    stage = comparison(tmp_path, {"layers": 3, "dim": 16, "steps": (0, 8, 64)},
                       {"layers": 5, "dim": 12, "steps": (0, 4, 8, 90)})
    run_main(stage)
    out = tmp_path / "comparisons" / "pair"
    table, metrics = columns(out), json.loads((out / "metrics.json").read_text())
    assert set(zip(table["other_step"].tolist(), table["step"].tolist(), strict=True)) == {(0, 0), (8, 8), (64, 90)}
    matched = {(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)}
    part = select(table, statistic="rsa", step=8)
    assert set(zip(part["other_layer"].tolist(), part["layer"].tolist(), strict=True)) == matched
    for step in (0, 90):
        part = select(table, statistic="cka", step=step, representation="cls")
        assert len(part["value"]) == 15 and (part["n"] == 80).all()
    a, b = (read_hidden(stage.layout.run(model, "micro-sentiment", "ft", 1) / "hidden") for model in "ab")
    value = lens.linear_cka(a.vectors(64)[2], b.vectors(90)[4])
    assert metrics["cka/cls/layer-04/last"] == pytest.approx(value, abs=1e-12)
    assert metrics["pwcca/cls/layer-04/first"] == pytest.approx(lens.pwcca(a.vectors(0)[2], b.vectors(0)[4]), abs=1e-12)
    assert value > metrics["cka/cls/layer-04/first"] + 0.3  # both learn the same classes
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [0, 8, 90]
    assert float(rows[2]["cka_cls_layer_04"]) == metrics["cka/cls/layer-04/last"]
    assert set(read_manifest(out).inputs) == {f"outputs/{model}/micro-sentiment/ft/s1/hidden" for model in "ab"}


def test_comparisons_have_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # no sketches
    stage = comparison(tmp_path, {"steps": (0, 8)}, {"steps": (0, 9), "layers": 2}, representations=["cls"],
                       measures=["cka"])
    run_main(stage, figures=True)
    figures = sorted((tmp_path / "comparisons/pair/figures").glob("*.png"))
    assert [path.name for path in figures] == ["layers.png", "measures.png", "steps.png"]
    for path in figures:
        assert_drawn(path)


def test_figures_of_a_comparison_are_drawn_from_the_stored_measurement(tmp_path: Path) -> None:
    stage = comparison(tmp_path, {"steps": (0, 8)}, {"steps": (0, 9), "layers": 2}, representations=["cls"])
    check_redrawn(stage, tmp_path / "comparisons" / "pair", "finetrace.lenses.similarity.summary.between")


def test_rows_are_matched_by_split_and_example(tmp_path: Path) -> None:
    stage = comparison(tmp_path, {"rows": {"train": 30, "validation": 20}}, {"rows": {"validation": 25, "train": 10}},
                       representations=["cls"])
    run_main(stage)
    table = columns(tmp_path / "comparisons" / "pair")
    assert (table["n"] == 30).all()
    a, b = (read_hidden(stage.layout.run(model, "micro-sentiment", "ft", 1) / "hidden") for model in "ab")
    rows_a, rows_b = np.r_[0:10, 30:50], np.r_[25:35, 0:20]
    assert one(table, statistic="cka", step=64, layer=2, other_layer=2) == pytest.approx(
        lens.linear_cka(a.vectors(64)[2][rows_a], b.vectors(64)[2][rows_b]), abs=1e-12)


def test_tokens_are_compared_where_both_models_cut_texts_alike(tmp_path: Path) -> None:
    same = {"rows": {"validation": 30}, "token_rows": {"validation": 10}}
    stage = comparison(tmp_path / "same", same, same | {"token_rows": {"validation": 30}})
    run_main(stage)
    table = columns(tmp_path / "same/comparisons/pair")
    a = read_hidden(stage.layout.run("a", "micro-sentiment", "ft", 1) / "hidden")
    assert (select(table, representation="tokens")["n"] == (~a.special).sum()).all()
    other = comparison(tmp_path / "other", same, same | {"seed": 1})  # other token ids
    run_main(other)
    assert set(columns(tmp_path / "other/comparisons/pair")["representation"]) == {"cls"}


@pytest.mark.parametrize(
    ("second", "settings", "message"),
    [
        ({"labels": np.arange(80) // 40}, {}, "different labels, e.g. example 1 of train"),
        ({"labels": np.tile(np.arange(40) % 2, 2), "classes": 3}, {}, "different labels; they were made from"),
        ({"rows": {"test": 40}, "token_rows": {}}, {}, "share 0 examples, 4 are needed"),
        ({"seed": 1}, {"representations": ["tokens"]}, "tokens differ; add cls to similarity.representations"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(tmp_path: Path, second: dict, settings: dict, message: str) -> None:
    stage = comparison(tmp_path, {}, second, **settings)
    with pytest.raises(
        FinetraceError, match=rf"a/micro-sentiment/ft/s1 and b/.*/ft/s1 cannot be compared: .*{message}"
    ):
        run_main(stage)
    assert not list(tmp_path.glob("comparisons/*"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first": "a_b_ft_s1", "second": "a/b/ft/s2"}, "did you mean 'a/b/ft/s1'"),
        ({"first": "a/b/ft/s1", "second": "a/b/ft"}, "second: 'a/b/ft' is not a trajectory's folder"),
        ({"first": "a/b/ft/s1", "second": "a/b/ft/s1"}, "the same trajectory as first"),
    ],
)
def test_wrong_settings_are_refused_with_the_fix(values: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(ComparisonSettings, values, "params.yaml: here")


def test_comparisons_name_their_trajectories() -> None:
    assert ComparisonSettings("a/b/ft/s1", "a-2/b.c/lp-ft/s12").trajectories == ("a_b_ft_s1", "a-2_b.c_lp-ft_s12")

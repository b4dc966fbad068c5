"""The stage similarity on synthetic hidden states: files, numbers, choices of rows, clear errors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tests.hidden_outputs import check_redrawn, hidden_stage, run_main, stage_output

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.similarity import measures as lens
from finetrace.lenses.similarity import summary, work
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.store.hidden import HiddenStates, read_hidden
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table

STEPS, LAYERS, KINDS = (0, 8, 64), 3, ("cls", "mean", "tokens")
LEAST = {"rows": 10, "groups": 4, "rsa_rows": 30}


def columns(folder: Path) -> dict[str, np.ndarray]:
    table = read_table(folder / "table.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def select(table: dict[str, np.ndarray], **where: object) -> dict[str, np.ndarray]:
    keep = np.logical_and.reduce([table[name] == value for name, value in where.items()])
    return {name: values[keep] for name, values in table.items()}


def one(table: dict[str, np.ndarray], **where: object) -> float:
    found = select(table, **where)["value"]
    assert len(found) == 1, f"{len(found)} rows of {where}"
    return float(found[0])


def constant_embeddings(values: np.ndarray) -> None:
    values[0] = values[0, 0]


@pytest.fixture(scope="module")
def within(tmp_path_factory: pytest.TempPathFactory) -> tuple[HiddenStates, Path]:
    stage = hidden_stage(tmp_path_factory.mktemp("within"), "similarity",
                         SimilaritySettings(representations=["cls", "mean", "tokens"], groups=5, rows=60), steps=STEPS,
                         layers=LAYERS, damage={("cls", step): constant_embeddings for step in STEPS})
    run_main(stage)
    return read_hidden(stage_output(stage).parent / "hidden"), stage_output(stage)


def test_the_table_compares_with_the_first_the_one_before_and_across_layers(within: tuple[HiddenStates, Path]) -> None:
    _, out = within
    table = columns(out)
    assert {name: str(values.dtype) for name, values in table.items()} == {
        "step": "int64", "layer": "int32", "other_step": "int64", "other_layer": "int32", "representation": "object",
        "statistic": "object", "value": "float64", "low": "float64", "high": "float64", "n": "int64"}
    keys = list(zip(*(table[name].tolist() for name in list(table)[:6]), strict=True))
    assert len(set(keys)) == len(keys)
    same_layer = {(step, layer, other, layer, kind, measure) for step, other in ((0, 0), (8, 0), (64, 0), (64, 8))
                  for layer in range(LAYERS) for kind in KINDS for measure in lens.MEASURES}
    across = {(64, i, 0, j, kind, "cka") for i in range(LAYERS) for j in range(LAYERS) if i != j for kind in KINDS}
    assert set(keys) == same_layer | across


def test_values_are_those_of_the_lens(within: tuple[HiddenStates, Path]) -> None:
    hidden, out = within
    table = columns(out)
    chosen, groups = summary.choose(np.arange(80), 60, 5, read_manifest(out).seeds["rows"])
    assert len(chosen) == 60 and (select(table, representation="mean")["n"] == 60).all()
    first, last = (hidden.vectors(step, "mean")[2][chosen] for step in (0, 64))
    assert one(table, step=64, other_step=0, layer=2, other_layer=2, representation="mean",
               statistic="cka") == pytest.approx(lens.linear_cka(first, last), abs=1e-12)
    assert one(table, step=64, other_step=0, layer=2, other_layer=2, representation="mean",
               statistic="pwcca") == pytest.approx(lens.pwcca(first, last),
                                                   abs=1e-12)  # weights of the first checkpoint
    assert one(table, step=64, other_step=0, layer=1, other_layer=2, representation="mean",
               statistic="cka") == pytest.approx(
        lens.linear_cka(first, hidden.vectors(64, "mean")[1][chosen]), abs=1e-12)
    row = select(table, step=64, other_step=8, layer=2, other_layer=2, representation="mean", statistic="cka")
    assert row["low"][0] < row["value"][0] < row["high"][0]
    both = [lens.represent(hidden.vectors(step, "mean")[2][chosen], groups) for step in (8, 64)]
    assert row["low"][0] == pytest.approx(lens.compare(*both, ["cka"])["cka"].low, abs=1e-12)


def test_tokens_are_words_and_their_groups_whole_sentences(within: tuple[HiddenStates, Path]) -> None:
    hidden, out = within
    assert (select(columns(out), representation="tokens")["n"] == 60).all()
    sentences, items = work.candidates(hidden, "tokens")
    assert not hidden.special[items].any() and len(items) == (~hidden.special).sum()
    for sentence in np.unique(sentences):
        span = np.flatnonzero(hidden.sentence_rows == sentence)[0]
        np.testing.assert_array_equal(items[sentences == sentence],
                                      np.arange(hidden.offsets[span] + 1, hidden.offsets[span + 1] - 1))
    chosen, groups = summary.choose(sentences, 60, 5, seed=3)
    assert set(chosen) != set(summary.choose(sentences, 60, 5, seed=4)[0]) and chosen[-1] > 60
    assert (np.diff(chosen) > 0).all() and set(groups) == set(range(5))
    for sentence in np.unique(sentences):
        assert len(set(groups[sentences[chosen] == sentence])) <= 1


def test_embeddings_that_are_the_same_everywhere_are_undefined_and_nothing_else(within: tuple[HiddenStates,
                                                                                              Path]) -> None:
    _, out = within
    table = columns(out)
    undefined = (table["representation"] == "cls") & ((table["layer"] == 0) | (table["other_layer"] == 0))
    np.testing.assert_array_equal(np.isnan(table["value"]), undefined)


def test_metrics_and_curves(within: tuple[HiddenStates, Path]) -> None:
    _, out = within
    table, metrics = columns(out), json.loads((out / "metrics.json").read_text())
    expected = {f"cka/{kind}/layer-{layer:02d}/last" for kind in KINDS for layer in range(LAYERS)}
    expected |= {f"{measure}/{kind}/layer-02/last" for kind in KINDS for measure in lens.MEASURES}
    assert set(metrics) == expected - {"cka/cls/layer-00/last"}
    assert metrics["cka/tokens/layer-01/last"] == one(table, step=64, other_step=0, layer=1, other_layer=1,
                                                      statistic="cka", representation="tokens")
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [f"cka_{kind}_layer_{layer:02d}" for kind in KINDS for layer in range(LAYERS)]
    assert list(rows[0]) == ["step", *names[1:]]  # the embedding of [CLS] has no value
    assert [int(row["step"]) for row in rows] == list(STEPS)
    assert float(rows[0]["cka_mean_layer_02"]) == pytest.approx(1)
    assert float(rows[2]["cka_tokens_layer_01"]) == metrics["cka/tokens/layer-01/last"]


def test_fine_tuning_changes_the_deeper_layers(within: tuple[HiddenStates, Path]) -> None:
    table = columns(within[1])
    for kind in ("mean", "tokens"):
        values = [one(table, step=64, other_step=0, layer=layer, other_layer=layer, statistic="cka",
                      representation=kind)
                  for layer in range(LAYERS)]
        assert values[0] == pytest.approx(1) and values[0] > values[1] > values[2]


def test_other_measures_and_rows_by_settings(tmp_path: Path) -> None:
    stage = hidden_stage(tmp_path, "similarity",
                         SimilaritySettings(representations=["mean"], measures=["rsa", "procrustes"], **LEAST))
    run_main(stage, figures=True)
    table, metrics = columns(stage_output(stage)), json.loads((stage_output(stage) / "metrics.json").read_text())
    assert set(table["statistic"]) == {"rsa", "procrustes"} and set(table["n"]) == {10}
    assert (
        table["statistic"][table["layer"] != table["other_layer"]] == "rsa"
    ).all()  # the first one stands in for cka
    assert "rsa/mean/layer-00/last" in metrics and "procrustes/mean/layer-00/last" not in metrics
    assert sorted(p.stem for p in (stage_output(stage) / "figures").glob("*.png")) == ["changes", "layers", "measures",
                                                                                       "steps"]


@pytest.mark.parametrize("spans", [1, 2])
def test_a_task_of_words_compares_its_words(tmp_path: Path, spans: int) -> None:
    settings = SimilaritySettings(representations=["cls", "mean"], groups=4, rows=30)
    stage = hidden_stage(tmp_path, "similarity", settings, spans=spans)
    run_main(stage)
    table = columns(stage_output(stage))
    hidden = read_hidden(stage_output(stage).parent / "hidden")
    assert set(table["representation"]) == {"span"}
    sentences = hidden.sentence_codes(np.arange(80))
    chosen, groups = summary.choose(sentences, 30, 4, read_manifest(stage_output(stage)).seeds["rows"])
    first, last = (hidden.vectors(s)[2][chosen] for s in (0, 64))
    assert first.shape == (30, 16 * spans)
    assert one(table, statistic="cka", step=64, other_step=0, layer=2, other_layer=2) == pytest.approx(
        lens.linear_cka(first, last), abs=1e-12)
    pairs = set(zip(sentences[chosen].tolist(), groups.tolist(), strict=True))
    assert len(pairs) == len(set(sentences[chosen].tolist())) < 30  # a group holds whole sentences


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path) -> None:
    stage = hidden_stage(tmp_path, "similarity", SimilaritySettings(representations=["mean"], **LEAST),
                         steps=(0, 4, 8, 9))
    check_redrawn(stage, stage_output(stage), "finetrace.lenses.similarity.summary.within")


def test_one_checkpoint_is_enough(tmp_path: Path) -> None:
    stage = hidden_stage(tmp_path, "similarity", SimilaritySettings(representations=["mean"], **LEAST), steps=(5,))
    run_main(stage, figures=True)
    assert one(columns(stage_output(stage)), layer=1, other_layer=1, statistic="cka") == pytest.approx(1)
    assert sorted(p.stem for p in (stage_output(stage) / "figures").glob("*.png")) == ["layers", "measures", "steps"]


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        stage = hidden_stage(tmp_path / name, "similarity", SimilaritySettings(**LEAST))
        run_main(stage)
        made.append([(stage_output(stage) / file).read_bytes()
                     for file in ("table.parquet", "metrics.json", "curves.csv")])
    assert made[0] == made[1]


def not_a_number(values: np.ndarray) -> None:
    values[1, 7, 0] = np.nan


@pytest.mark.parametrize(
    ("hidden", "settings", "message"),
    [
        ({"damage": {("cls", 8): not_a_number}}, {}, "cls.npy layer 1 row 7: holds NaN"),
        ({"rows": {"train": 3}, "token_rows": {}}, {"representations": ["cls"]},
         r"3 examples \(cls\) are too few.*hidden.rows"),
        ({"token_rows": {}}, {}, r"0 examples \(tokens\) are too few.*hidden.token_rows .* take tokens out of "
                                 r"similarity"),
        ({"vectors": ("cls",)}, {"representations": ["mean"]}, "was not extracted; add mean to hidden.vectors"),
    ],
)
def test_what_is_missing_or_broken_is_named(tmp_path: Path, hidden: dict, settings: dict, message: str) -> None:
    stage = hidden_stage(tmp_path, "similarity", SimilaritySettings(**settings), **hidden)
    with pytest.raises(FinetraceError, match=message):
        run_main(stage)
    assert not stage_output(stage).exists()


def test_matched_layers_keep_the_share_of_the_depth() -> None:
    assert summary.matched_layers(4, 4) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert summary.matched_layers(13, 7) == [(0, 0), (2, 1), (4, 2), (6, 3), (8, 4), (10, 5), (12, 6)]
    assert summary.matched_layers(7, 1) == [(0, 0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"representations": []}, r"representations: is empty; write e.g. \[cls\]"),
        ({"representations": ["cls", "cls"]}, "names something twice"),
        ({"measures": ["cka", "cosine"]}, "measures.1"),
        ({"variance": 0}, "variance: 0.0 is not a share"),
        ({"rows": 9}, "rows: 9 examples are too few"),
        ({"groups": 1}, "groups: 1 gives no interval"),
        ({"rsa_rows": 3}, "rsa_rows: 3"),
    ],
)
def test_wrong_settings_are_refused_with_the_fix(values: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(SimilaritySettings, values, "params.yaml: here")


def test_any_two_checkpoints_are_compared() -> None:
    random = np.random.default_rng(0)
    states = {(step, layer): random.normal(size=(30, 5)) for step in (0, 1, 2, 3, 4) for layer in range(2)}
    comparisons = list(summary.within(lambda step, layer: lens.represent(states[step, layer]), [0, 1, 2, 3, 4], 2,
                                      lens.MEASURES, 0.99))
    assert len(comparisons) == 2 * (5 * 4 // 2 + 2)
    found = {(r["other_step"], r["step"], r["layer"], r["statistic"]): r["value"] for rows in comparisons for r in rows
             if r["layer"] == r["other_layer"]}
    pairs = {(a, b) for a in range(5) for b in range(a + 1, 5)}
    assert {key[:2] for key in found if key[3] == "cka"} == pairs | {(0, 0)}
    assert {key[:2] for key in found if key[3] == "rsa"} == {(0, 0)} | {(a, b) for a, b in pairs if a == 0 or b == a
                                                                        + 1}
    assert found[1, 4, 1, "cka"] == pytest.approx(lens.linear_cka(states[1, 1], states[4, 1]), abs=1e-12)

"""The stage geometry on synthetic hidden states: what it writes, against the oracles, and what it refuses."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hidden_outputs import check_redrawn, hidden_stage, run_main, stage_output
from tests.oracles import geometry as oracle
from tests.pictures import assert_drawn

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.geometry import summary
from finetrace.lenses.geometry.settings import GeometrySettings
from finetrace.lenses.intervals import bootstrap_weights, groups_of
from finetrace.store.hidden import HiddenStates, read_hidden
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table

QUICK = {"draws": 100, "groups": 4}


def run_stage(root: Path, settings: dict[str, Any] | None = None, *, figures: bool = False, **hidden: Any
              ) -> tuple[Path, HiddenStates]:
    """Run the stage, with its figures only where they matter; its folder and the hidden states that it read."""
    stage = hidden_stage(root, "geometry", GeometrySettings(**{**QUICK, **(settings or {})}), **hidden)
    run_main(stage, figures=figures)
    out = stage_output(stage)
    return out, read_hidden(out.parent / "hidden")


def read(out: Path) -> dict[str, np.ndarray]:
    table = read_table(out / "table.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def at(table: dict[str, np.ndarray], step: int, layer: int, statistic: str, column: str = "value") -> float:
    (row,) = np.flatnonzero((table["step"] == step) & (table["layer"] == layer) & (table["statistic"] == statistic))
    return float(table[column][row])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HiddenStates]:
    return run_stage(tmp_path_factory.mktemp("geometry"), figures=True)


def test_the_table_holds_what_the_oracles_say(done: tuple[Path, HiddenStates]) -> None:
    out, hidden = done
    table = read(out)
    step, layer = 64, 2
    tokens = hidden.tokens(step)[layer].astype(np.float64)
    parts = [tokens[a:b] for a, b in zip(hidden.offsets, hidden.offsets[1:], strict=False)]
    owner = np.repeat(np.arange(len(parts)), np.diff(hidden.offsets))
    pairs = [oracle.cosine_pairs(part) for part in parts]
    norms = [np.linalg.norm(part, axis=1) for part in parts]
    intra = np.mean([oracle.intra_sentence_similarity(part) for part in parts])
    anisotropy = oracle.anisotropy(tokens, owner)
    vectors, labels = hidden.vectors(step)[layer][hidden.rows("validation")], hidden.labels[hidden.rows("validation")]
    cones = oracle.cones(vectors.astype(np.float64), labels)
    expected = {
        "cosine_mean": np.mean([p.mean() for p in pairs]), "cosine_median": np.mean([np.median(p) for p in pairs]),
        "cosine_variance": np.mean([p.var() for p in pairs]),
        "covariance_trace": np.mean([oracle.covariance_trace(part) for part in parts]),
        "scaled_trace": np.mean([oracle.covariance_trace(p) / np.mean(n**2)
                                 for p, n in zip(parts, norms, strict=True)]),
        "norm_mean": np.mean([n.mean() for n in norms]), "norm_sd": np.mean([n.std() for n in norms]),
        "intra_sentence_similarity": intra, "anisotropy": anisotropy,
        "corrected_intra_sentence_similarity": intra - anisotropy,
        "corrected_cosine_mean": np.mean([p.mean() for p in pairs]) - anisotropy,
        "self_similarity": np.mean(oracle.self_similarity(tokens, hidden.token_ids, owner, 5)),
        "effective_rank": oracle.effective_rank(tokens),
        "effective_rank_centred": oracle.effective_rank(tokens, centre=True),
        "effective_rank_squared_weights": oracle.effective_rank(tokens, squared=True),
        "top_singular_share": np.linalg.svd(tokens)[1][0] / np.linalg.svd(tokens)[1].sum(),
        "participation_ratio": oracle.participation_ratio(tokens), "iso_score": oracle.iso_score(tokens),
        "intrinsic_dimension": oracle.two_nn(tokens), "within_class_cosine": cones["within"],
        "between_class_cosine": cones["between"], "class_angle_degrees": cones["angle"],
        "scatter_ratio": cones["scatter_ratio"],
        "class_cosine/class-0/class-1": cones["similarity"][0, 1]}  # type: ignore[index]
    for statistic, value in expected.items():
        assert at(table, step, layer, statistic) == pytest.approx(value, rel=1e-5, abs=1e-6), statistic
    for statistic, share in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
        assert at(table, step, layer, f"cosine_pooled_{statistic}") == pytest.approx(
            np.quantile(np.concatenate(pairs), share), abs=1e-3)
    assert at(table, step, layer, "cosine_mean", "n") == 12 and at(table, step, layer, "effective_rank",
                                                                   "n") == len(tokens)
    assert at(table, step, layer, "within_class_cosine", "n") == 40


def test_intervals_hold_the_value_and_the_change_is_paired(done: tuple[Path, HiddenStates]) -> None:
    table = read(done[0])
    known = np.isfinite(table["low"])
    assert known.mean() > 0.9
    outside = known & ~((table["low"] <= table["value"] + 1e-9) & (table["value"] <= table["high"] + 1e-9))
    assert not outside.any(), table["statistic"][outside]
    assert np.isnan(table["change"][table["step"] == 0]).all()
    later = table["step"] > 0
    first = {(layer, s): v for step, layer, s, v in zip(*(table[c] for c in ("step", "layer", "statistic", "value")),
                                                        strict=True)
             if step == 0}
    columns = (table[name][later] for name in ("layer", "statistic", "value", "change"))
    for layer, statistic, value, change in zip(*columns, strict=True):
        if np.isfinite(value):
            assert change == pytest.approx(value - first[layer, statistic], abs=1e-9), statistic
    assert at(table, 64, 0, "cosine_mean", "change_low") == 0 == at(table, 64, 0, "cosine_mean",
                                                                    "change_high")  # embeddings stay
    width = at(table, 64, 2, "cosine_mean", "change_high") - at(table, 64, 2, "cosine_mean", "change_low")
    alone = [at(table, s, 2, "cosine_mean", "high") - at(table, s, 2, "cosine_mean", "low") for s in (0, 64)]
    assert 0 < width < sum(alone)


def test_training_makes_cones_and_the_metrics_say_so(done: tuple[Path, HiddenStates]) -> None:
    out, _ = done
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["within_class_cosine/layer-02/last"] > 0.8 > 0.2 > metrics["between_class_cosine/layer-02/last"]
    assert metrics["class_angle_degrees/layer-02/first"] < 60 < metrics["class_angle_degrees/layer-02/last"]
    assert metrics["cosine_mean/layer-00/first"] == metrics["cosine_mean/layer-00/last"]
    assert set(read(out)["step"]) == {0, 8, 64} and len(metrics) == 2 * (2 * 3 + 12)


def test_curves_have_a_row_per_checkpoint_and_step_first(done: tuple[Path, HiddenStates]) -> None:
    out, _ = done
    rows = list(csv.DictReader((out / "curves.csv").read_text("utf-8").splitlines()))
    assert next(iter(rows[0])) == "step" and [int(row["step"]) for row in rows] == [0, 8, 64]
    table = read(out)
    assert float(rows[1]["effective_rank_layer_02"]) == at(table, 8, 2, "effective_rank")
    assert float(rows[2]["anisotropy_layer_01"]) == at(table, 64, 1, "anisotropy")


def test_everything_is_written(done: tuple[Path, HiddenStates]) -> None:
    out, _ = done
    figures = {path.stem: path for path in (out / "figures").glob("*.png")}
    assert figures.keys() == {"cosines", "spread", "trajectories", "cones"}
    for path in figures.values():
        assert_drawn(path)
    manifest = read_manifest(out)
    assert manifest.kind == "lens" and manifest.facts["sentences"] == 12 and manifest.facts["cone_rows"] == 40
    assert set(manifest.inputs) == {"outputs/micro-a/micro-sentiment/ft/s1/hidden"}


@pytest.mark.parametrize("hidden", [{}, {"classes": 3}])
def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path, hidden: dict) -> None:
    stage = hidden_stage(tmp_path, "geometry", GeometrySettings(**QUICK), steps=(0, 8), **hidden)
    check_redrawn(stage, stage_output(stage), "finetrace.lenses.geometry.summary.sentence_estimates")


def test_equal_input_gives_equal_bytes(done: tuple[Path, HiddenStates], tmp_path: Path) -> None:
    again, _ = run_stage(tmp_path)
    for name in ("table.parquet", "metrics.json", "curves.csv", "measured.npz"):
        assert (again / name).read_bytes() == (done[0] / name).read_bytes(), name


def test_special_tokens_can_be_left_out(done: tuple[Path, HiddenStates], tmp_path: Path) -> None:
    table = read(run_stage(tmp_path, {"special_tokens": False})[0])
    hidden = done[1]
    assert at(table, 0, 1, "effective_rank", "n") == len(hidden.token_ids) - 2 * 12
    words = hidden.tokens(0)[1][~hidden.special].astype(np.float64)
    assert at(table, 0, 1, "effective_rank") == pytest.approx(oracle.effective_rank(words), rel=1e-6)
    assert at(table, 0, 1, "norm_mean") < at(read(done[0]), 0, 1, "norm_mean")  # [SEP] is long


def test_the_first_sentences_alone_can_be_taken_as_in_the_study(done: tuple[Path, HiddenStates],
                                                                tmp_path: Path) -> None:
    table = read(run_stage(tmp_path, {"choose": "first", "sentences": 5, "rank_sentences": 3})[0])
    hidden = done[1]
    parts = [hidden.tokens(8)[1][a:b].astype(np.float64)
             for a, b in zip(hidden.offsets[:5], hidden.offsets[1:6], strict=True)]
    assert at(table, 8, 1, "cosine_mean") == pytest.approx(np.mean([oracle.cosine_pairs(p).mean() for p in parts]),
                                                           abs=1e-6)
    assert at(table, 8, 1, "effective_rank") == pytest.approx(oracle.effective_rank(np.concatenate(parts[:3])),
                                                              rel=1e-6)


def test_spread_sentences_cover_the_split() -> None:
    assert summary.choose_sentences(np.arange(100, 200), 4).tolist() == [100, 133, 166, 199]
    assert summary.choose_sentences(np.arange(3), 0).tolist() == summary.choose_sentences(np.arange(3),
                                                                                          9).tolist() == [0, 1, 2]


def test_one_checkpoint_half_precision_and_many_classes_work(tmp_path: Path) -> None:
    settings = {"cones_splits": ["train", "validation"], "cones_vectors": "mean"}
    out, hidden = run_stage(tmp_path, settings, figures=True, steps=(5,), classes=4, dtype="float16", length=(3, 4))
    table = read(out)
    vectors = hidden.vectors(5, "mean")[2].astype(np.float64)
    assert at(table, 5, 2, "between_class_cosine") == pytest.approx(oracle.cones(vectors, hidden.labels)["between"],
                                                                    abs=1e-5)
    tokens, owner = hidden.tokens(5)[2].astype(np.float64), np.repeat(np.arange(12), np.diff(hidden.offsets))
    assert at(table, 5, 2, "self_similarity") == pytest.approx(
        np.mean(oracle.self_similarity(tokens, hidden.token_ids, owner, 5)), abs=1e-5)
    assert at(table, 5, 2, "cosine_mean", "n") == 12 and (out / "figures" / "cones.png").is_file()


@pytest.mark.parametrize("spans", [1, 2])
def test_class_cones_of_a_task_of_words_are_those_of_the_words(tmp_path: Path, spans: int) -> None:
    out, hidden = run_stage(tmp_path, figures=True, spans=spans, classes=3)
    table, rows = read(out), hidden.rows("validation")
    vectors, labels = hidden.vectors(64)[2][rows].astype(np.float64), hidden.labels[rows]
    assert vectors.shape[1] == 16 * spans
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rest = np.array([units[labels == c].sum(axis=0) for c in range(3)])[labels] - units  # a row is left out of its mean
    own = (units * rest).sum(axis=1) / np.linalg.norm(rest, axis=1)
    assert at(table, 64, 2, "own_class_cosine") == pytest.approx(own.mean())
    assert (hidden.sentence_codes(rows) == np.arange(40) // 2).all()  # resampled together


def test_cones_can_be_left_out_even_without_cls_vectors(tmp_path: Path) -> None:
    out, _ = run_stage(tmp_path, {"cones_splits": []}, figures=True, vectors=("mean",))
    assert not any("class" in name for name in read(out)["statistic"]) and not (out / "figures" / "cones.png").exists()


def spoil(row: int, value: float) -> Callable[[np.ndarray], None]:
    def change(states: np.ndarray) -> None:
        states[1, row] = value
    return change


@pytest.mark.parametrize(("settings", "hidden", "message"), [
    ({}, {"damage": {("tokens", 8): spoil(7, np.nan)}}, r"step-00000008/tokens.npy layer 1 row 7: holds NaN"),
    ({}, {"damage": {("cls", 64): spoil(50, np.inf)}}, r"step-00000064/cls.npy layer 1 row 50: holds NaN or infinity"),
    ({"split": "train"}, {}, r"no tokens of the split 'train' .*geometry.split.*hidden.token_rows"),
    ({}, {"token_rows": {}}, r"no tokens of the split 'validation'"),
    ({}, {"token_rows": {"validation": 1}}, r"only 1 of 1 sentences have more than one token.*hidden.token_rows"),
    ({"special_tokens": False}, {"length": (3, 3)},
     r"only 0 of 12 sentences .* that is not special.*count special tokens"),
    ({}, {"labels": np.zeros(80, dtype=int)},
     r"40 rows of validation have one class only \(class-0\).*cones_splits: \[\]"),
    ({"cones_splits": ["test"]}, {}, r"no rows of the split 'test'"),
    ({}, {"vectors": ("mean",)}, r"cls.npy: was not extracted; add cls to hidden.vectors"),
])
def test_unusable_input_is_a_clear_error_and_leaves_nothing_behind(tmp_path: Path, settings: dict, hidden: dict,
                                                                    message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        run_stage(tmp_path, settings, **hidden)
    assert not list(tmp_path.glob("outputs/*/*/*/*/geometry*"))


def test_truncated_hidden_states_are_refused(tmp_path: Path) -> None:
    stage = hidden_stage(tmp_path, "geometry", GeometrySettings(**QUICK))
    path = stage_output(stage).parent / "hidden" / "step-00000008" / "tokens.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FinetraceError, match=r"tokens.npy: \d+ instead of \d+ bytes"):
        run_main(stage)


def test_intervals_of_both_kinds_cover_the_truth_about_as_often_as_they_say() -> None:
    hits, trials, items = np.zeros(2), 200, 40
    for seed in range(trials):
        values = np.random.default_rng([seed, 1]).exponential(2.0, (items, 1))
        groups = groups_of(items, 10, seed)
        means, draws, known = summary._weighted_means(values, bootstrap_weights(items, 300, seed))
        left_out = np.array([[values[groups != g].mean()] for g in range(10)])
        row = summary.table_rows(0, 0, [summary.Estimates(["one"], means, known, draws, True),
                                        summary.Estimates(["two"], means, known, left_out, False)], None)
        hits += (row["low"] <= 2) & (row["high"] >= 2)
    assert (hits / trials > 0.88).all() and (hits / trials < 0.99).all()


def test_a_sentence_of_one_token_counts_where_it_can() -> None:
    random = np.random.default_rng(0)
    offsets = np.array([0, 1, 5, 9])
    layer = random.normal(size=(9, 6)).astype(np.float32)
    sample = summary.make_sample(offsets, np.zeros(9, dtype=bool), np.arange(9), sentences=np.arange(3),
                                 special_tokens=True, draws=100, groups=3, seed=0)
    boot, _ = summary.sentence_estimates(layer, sample)
    found = dict(zip(boot.names, boot.n, strict=True))
    assert found["cosine_mean"] == found["covariance_trace"] == 2 and found["norm_mean"] == 3
    pairs = [oracle.cosine_pairs(layer[1:5]).mean(), oracle.cosine_pairs(layer[5:]).mean()]
    assert boot.values[boot.names.index("cosine_mean")] == pytest.approx(np.mean(pairs), abs=1e-6)


@pytest.mark.parametrize(("settings", "message"), [
    ({"split": "dev"}, "split: 'dev' is not a split; known: train, validation, test"),
    ({"cones_splits": ["train", "train"]}, "names a split twice"), ({"sentences": 1}, "sentences: 1 is too few"),
    ({"rank_sentences": -2}, "rank_sentences: -2 is too few"), ({"groups": 1}, "groups: 1 leave nothing"),
    ({"draws": 5}, "draws: 5 are too few"), ({"dimension_tokens": 3}, "dimension_tokens: 3 are too few"),
    ({"choose": "last"}, "choose"), ({"sentnces": 4}, "unknown key 'sentnces'; did you mean 'sentences'"),
])
def test_settings_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(GeometrySettings, settings, "params.yaml: geometry")

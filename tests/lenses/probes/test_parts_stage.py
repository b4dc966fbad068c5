"""The stage probes with networks, control tasks, description length and subtest, in tasks of texts, words and word
pairs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.hidden_outputs import TRAJECTORY, finished, stage_output
from tests.lenses.probes.test_stage import SCRIPT, afresh, probes_stage, rows

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.lenses.probes.settings import ProbesSettings
from finetrace.pipeline.stage import Stage
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import write_table

ROWS = {"train": 60, "validation": 40}
ALL = {"mlp": {"hidden": [[8, 4]], "l2": [0.01, 1.0], "one_layer": [8], "seeds": 2, "max_epochs": 15}, "control": {},
       "mdl": {}}


def stage_with(root: Path, settings: dict, *, spans: int = 0, **hidden) -> Stage:
    """A stage whose task has, in tasks of words, tables of sentences of nine words of which ten are known."""
    stage = probes_stage(root, parse(ProbesSettings, {"l2": [0.1], **settings}, "p"),
                         **({"rows": ROWS, "spans": spans, "steps": (0, 8, 64), "dim": 6, "layers": 2} | hidden))
    if spans:
        folder, random = stage.layout.task(TRAJECTORY["task"]), np.random.default_rng(0)
        folder.mkdir(parents=True)
        for split, count in ROWS.items():
            words = [[f"w{k}" for k in random.integers(0, 10, 9)] for _ in range(count)]
            places = pa.array([[2, 3, 5, 7][:2 * spans]] * count, pa.list_(pa.int32(), 2 * spans))
            write_table(folder / f"{split}.parquet",
                        pa.table({"example_id": np.arange(count), "words": words, "spans": places}))
        complete(folder, finished("data"))
    return stage


@pytest.mark.parametrize("spans", [0, 1, 2])
def test_all_parts_write_their_statistics_metrics_and_figures(tmp_path: Path, spans: int) -> None:
    stage = stage_with(tmp_path, ALL, spans=spans)
    SCRIPT.main(stage)
    out = stage_output(stage)
    grid = [(step, layer) for step in (0, 8, 64) for layer in range(2)]
    for name in ("mlp_accuracy", "mlp_accuracy_sd", "one_layer_accuracy", "one_layer_accuracy_sd"):
        for split in ROWS:
            found = rows(stage, statistic=name, split=split)
            assert [(r["step"], r["layer"]) for r in found] == grid and {r["n"] for r in found} == {ROWS[split]}
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows(stage, statistic="mlp_accuracy"))
    for name in ("mlp_hidden_1", "mlp_hidden_2", "mlp_l2", "mlp_epochs", "mlp_converged", "mdl_bits",
                 "mdl_compression"):
        assert [(r["step"], r["layer"]) for r in rows(stage, statistic=name, split="train")] == grid, name
    assert {r["value"] for r in rows(stage, statistic="mlp_hidden_2")} == {4}
    where = "validation" if spans else "train"
    for one, control, true in zip(rows(stage, statistic="selectivity", split=where),
                                  rows(stage, statistic="control_accuracy", split=where),
                                  rows(stage, statistic="accuracy", split=where), strict=True):
        assert one["value"] == pytest.approx(true["value"] - control["value"])
    assert len(rows(stage, statistic="selectivity")) == 6 * (2 if spans else 1)
    metrics = json.loads((out / "metrics.json").read_text())
    last = rows(stage, statistic="mlp_accuracy", split="validation", step=64, layer=1)[0]["value"]
    assert metrics["mlp_accuracy/validation/layer-01/last"] == last
    assert {"mlp_accuracy_sd/validation/layer-01/last", "selectivity/layer-01/last", "mdl_bits/layer-00/first",
            "mdl_compression/layer-00/first", "one_layer_accuracy/validation/layer-00/first"} <= set(metrics)
    assert metrics["mdl_bits/layer-01/last"] < metrics["mdl_bits/layer-01/first"]
    assert {p.name for p in (out / "figures").glob("*.png")} == {"lattice.png", "layers.png", "probes.png", "mdl.png"}
    facts = read_manifest(out)
    assert facts.facts["control_task"] == ("word types" if spans else "learned by heart")
    assert any(Path(p).name == TRAJECTORY["task"] and "data" in p for p in facts.inputs) == bool(spans)


def test_parts_at_the_ends_only_leave_the_checkpoints_between_out(tmp_path: Path) -> None:
    part = {"checkpoints": "ends"}
    stage = stage_with(tmp_path, {"mlp": {**ALL["mlp"], "l2": [1.0], **part}, "control": {"probe": "mlp", **part},
                                  "mdl": part})
    SCRIPT.main(stage)
    for name in ("mlp_accuracy", "selectivity", "mdl_bits"):
        assert {r["step"] for r in rows(stage, statistic=name)} == {0, 64}
    assert {r["head"] for r in rows(stage, statistic="control_accuracy")} == {"mlp"}
    assert {r["step"] for r in rows(stage, statistic="accuracy")} == {0, 8, 64}


def test_a_second_run_gives_the_same_bytes_and_before_does_not_depend_on_later_checkpoints(tmp_path: Path) -> None:
    stage = stage_with(tmp_path / "a", ALL, spans=1)
    SCRIPT.main(stage)
    first = (stage_output(stage) / "table.parquet").read_bytes()
    afresh(stage)
    assert (stage_output(stage) / "table.parquet").read_bytes() == first
    other = stage_with(tmp_path / "b", ALL, spans=1, steps=(0, 4, 16, 64))
    SCRIPT.main(other)
    one, two = ([str(r) for r in rows(which, step=0) if r["statistic"].startswith(("mlp", "one_layer", "mdl"))]
                for which in (stage, other))
    assert one and one == two


def test_subtest_sets_whole_sentences_aside_that_no_probe_sees(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, {"subtest": 0.2, "mdl": {}}, spans=1)
    hidden = SCRIPT.read_hidden(stage_output(stage).parent / "hidden")
    parts = SCRIPT._rows(hidden, stage.settings("probes", ProbesSettings), seed=3)
    assert list(parts) == ["subtrain", "subtest", "validation"]
    assert not set(hidden.sentences[parts["subtrain"]]) & set(hidden.sentences[parts["subtest"]])
    assert sorted(np.concatenate([parts["subtrain"], parts["subtest"]])) == hidden.rows("train").tolist()
    assert len(parts["subtest"]) == 12
    SCRIPT.main(stage)
    seen = {(r["split"], r["n"]) for r in rows(stage, statistic="accuracy")}
    assert seen == {("subtrain", 48), ("subtest", 12), ("validation", 40)}
    assert {(r["split"], r["n"]) for r in rows(stage, statistic="mdl_bits")} == {("subtrain", 48)}
    out = stage_output(stage)
    header = (out / "curves.csv").read_text().splitlines()[0].split(",")
    kinds = ("", "subtrain_", "subtest_")
    assert header == ["step", *(f"{kind}accuracy_layer_{layer:02d}" for kind in kinds for layer in (0, 1))]
    assert (out / "figures" / "learning.png").read_bytes()[:4] == b"\x89PNG"
    assert "accuracy/subtest/layer-01/last" in json.loads((out / "metrics.json").read_text())


def test_classes_of_one_split_only_are_scored_as_wrong_by_every_probe(tmp_path: Path) -> None:
    labels = np.r_[np.arange(60) % 3, np.arange(40) % 4]
    labels[5] = 4  # one row in training, none in validation
    stage = stage_with(tmp_path, ALL, spans=1, labels=labels, classes=5)
    SCRIPT.main(stage)
    found = rows(stage, statistic="unseen")
    assert {(r["split"], r["value"], r["n"]) for r in found} == {("validation", 10, 40)} and len(found) == 6
    for name in ("accuracy", "mlp_accuracy", "one_layer_accuracy"):
        assert max(r["value"] for r in rows(stage, statistic=name, split="validation")) <= 0.75
        assert rows(stage, statistic=name, split="train", step=64, layer=1)[0]["n"] == 60
    assert rows(stage, statistic="accuracy", split="validation", step=64, layer=1)[0]["value"] > 0.6
    assert all(np.isfinite(r["value"]) for r in rows(stage, statistic="loss"))


def test_control_tasks_need_the_words_of_every_example(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, {"control": {}}, spans=1)
    table = stage.layout.task(TRAJECTORY["task"]) / "validation.parquet"
    write_table(table, {"example_id": np.arange(40)})
    complete(table.parent, finished("data"))
    with pytest.raises(FinetraceError, match=r"validation\.parquet: has no column 'words', which control tasks need"):
        SCRIPT.main(stage)
    write_table(table, pa.table({"example_id": [0], "words": [["a", "b", "c"]], "spans": [[0, 1]]}))
    complete(table.parent, finished("data"))
    with pytest.raises(FinetraceError, match="has no example 1 of the split 'validation'"):
        SCRIPT.main(stage)


def test_parts_that_are_not_asked_for_are_not_imported() -> None:
    code = ("import sys; from tests.hidden_outputs import load_script; load_script('probes'); "
            "import finetrace.lenses.probes.report, finetrace.lenses.probes.summary; "
            "print([m for m in ('torch', 'matplotlib', 'finetrace.lenses.probes.mlp', 'finetrace.lenses.probes.mdl', "
            "'finetrace.lenses.probes.parts', 'finetrace.lenses.probes.control') if m in sys.modules])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).resolve().parents[3])
    assert found.stdout.strip() == "[]"

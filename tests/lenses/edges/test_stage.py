"""The stage edges: what it writes, what it keeps, that a killed one continues, and what it refuses."""

import json

import numpy as np
import pytest
from tests.edge_stage import PLACE, STEPS, edges_stage, rows_of, run_stage, values_of
from tests.hidden_outputs import check_redrawn

from finetrace.errors import FinetraceError
from finetrace.lenses.edges import work as edge_work
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table

ALL = {"pos": {}, "pairs": {"spans": 2}, "spr": {"spans": 2, "sets": True}}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished stage on three tasks, with control tasks."""
    root = tmp_path_factory.mktemp("edges")
    stage = edges_stage(root, ALL, control={}, max_targets={"train": 150})
    return stage, run_stage(stage, figures=True)


def test_the_table_has_every_statistic_of_every_checkpoint(done):
    _, out = done
    table = read_table(out / "table.parquet")
    assert [str(table.schema.field(name).type) for name in table.column_names] == [
        "string", "int64", "string", "int32", "string", "string", "double", "double", "double", "int64"]
    for task in ALL:
        for split in ("validation", "test"):
            for step in STEPS:
                found = rows_of(out, task=task, split=split, step=step, statistic="f1")
                assert [(r["readout"], r["layer"]) for r in found] == [*(("layer", k) for k in range(3)),
                                                                       *(("mix", k) for k in range(3)), ("full", 2)]
                assert all(0 <= r["low"] <= r["value"] <= r["high"] <= 1 for r in found)
        assert values_of(out, task=task, statistic="weight", step=8).sum() == pytest.approx(1)
        assert len(rows_of(out, task=task, statistic="cog")) == 3
        assert {r["step"] for r in rows_of(out, task=task, statistic="selectivity")} == {0, 64}
        assert len(rows_of(out, task=task, statistic="accuracy")) == (0 if task == "spr" else 42)
    for r in rows_of(out, statistic="delta", split="test"):
        one, two = (values_of(out, statistic="f1", split="test", readout="mix", layer=k, task=r["task"],
                              step=r["step"])[0]
                    for k in (r["layer"] - 1, r["layer"]))
        assert r["value"] == pytest.approx(two - one)


def test_hits_metrics_curves_figures_and_facts(done):
    _, out = done
    facts = read_manifest(out).facts
    assert facts["steps"] == list(STEPS) and facts["axis"] == "pre-training steps"
    assert facts["readouts"] == [["layer", 0], ["layer", 1], ["layer", 2], ["mix", 0], ["mix", 1], ["mix", 2],
                                 ["full", 2]]
    for task in ALL:
        hits, targets = np.load(out / "hits" / f"{task}.npy"), read_table(out / "hits" / f"{task}.parquet")
        assert hits.dtype == np.uint8 and hits.shape == (3, 7, targets.num_rows, 3)
        assert targets.column_names == ["example_id", "sentence"]
        assert targets["example_id"].to_pylist() == read_table(out.parents[3] / "data" / task / "test.parquet",
                                                               ["example_id"])["example_id"].to_pylist()
        tp, fp, fn = hits[1, 2].sum(0, dtype=np.int64)
        assert values_of(out, task=task, step=8, readout="layer", layer=2, split="test",
                         statistic="f1")[0] == pytest.approx(
            2 * tp / (2 * tp + fp + fn))
        assert np.array_equal(hits[:, 5], hits[:, 6])
        assert facts["tasks"][task]["reported"] == "test" and facts["tasks"][task]["targets"]["train"] <= 150
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["pos/f1/full/last"] == values_of(out, task="pos", statistic="f1", readout="full", split="test",
                                                    step=64)[0]
    lines = (out / "curves.csv").read_text().splitlines()
    assert lines[0].startswith("step,f1_pos,cog_pos") and [int(line.split(",")[0]) for line in lines[1:]] == list(STEPS)
    assert {p.name for p in (out / "figures").glob("*.png")} == {"scores.png", "lattice.png", "weights.png",
                                                                 "centre.png",
                                                             "cumulative.png"}


def test_a_killed_stage_continues_with_the_same_bytes(tmp_path, monkeypatch):
    stage = edges_stage(tmp_path / "a", {"pos": {}, "pairs": {"spans": 2}}, checkpoints="ends", control={})
    whole = run_stage(stage)
    other = edges_stage(tmp_path / "b", {"pos": {}, "pairs": {"spans": 2}}, checkpoints="ends", control={})
    compute, count = edge_work.Work._compute, []

    def die(self, item, *rest):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(item)
        compute(self, item, *rest)

    monkeypatch.setattr(edge_work.Work, "_compute", die)
    with pytest.raises(KeyboardInterrupt):
        run_stage(other)
    assert not (other.layout.place(PLACE) / "edges").exists()
    assert not list((tmp_path / "b/.finetrace/scratch/edges").glob("*/*.npy"))
    monkeypatch.setattr(edge_work.Work, "_compute", lambda self, item,
                        *rest: count.append(item) or compute(self, item, *rest))
    again = run_stage(other)
    assert len(count) == len(set(count)) == 8  # two checkpoints, two tasks, two parts: none twice
    for name in ("table.parquet", "metrics.json", "hits/pos.npy", "hits/pairs.npy"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_second_run_takes_everything_from_what_is_kept_and_a_further_task_costs_only_itself(done, monkeypatch):
    stage, out = done
    before = (out / "table.parquet").read_bytes()
    monkeypatch.setattr(edge_work.Work, "run", lambda self: pytest.fail("nothing is to be done"))
    run_stage(stage)
    assert (out / "table.parquet").read_bytes() == before
    monkeypatch.undo()
    seen = []
    compute = edge_work.Work._compute
    monkeypatch.setattr(edge_work.Work, "_compute", lambda self, item,
                        *rest: seen.append(item) or compute(self, item, *rest))
    more = edges_stage(stage.layout.root, {**ALL, "more": {"rows": {"train": 9, "validation": 5}}}, control={},
                       max_targets={"train": 150})
    run_stage(more)
    assert seen and {task for _, task, _ in seen} == {"more"}
    assert read_manifest(out).facts["tasks"]["more"]["reported"] == "validation"
    assert not list((stage.layout.home / ".finetrace/scratch/edges").glob("*/*.npy"))


def test_layers_mixes_repetitions_softmax_and_description_length(tmp_path):
    stage = edges_stage(tmp_path, {"pairs": {"spans": 2}}, layers=[0, -1], mixes="full", seeds=2, checkpoints=[64],
                        changes={"loss": "softmax"}, mdl={"fractions": [0.2, 1.0]})
    out = run_stage(stage)
    assert read_manifest(out).facts["readouts"] == [["layer", 0], ["layer", 2], ["full", 2]]
    hits = np.load(out / "hits/pairs.npy")
    assert hits.shape[:2] == (2, 3) and (hits[..., 0] + hits[..., 1] == 2).all()  # one decision of each repetition
    f1, accuracy = (values_of(out, statistic=name, split="test") for name in ("f1", "accuracy"))
    np.testing.assert_allclose(f1, accuracy)
    bits, compression = (values_of(out, statistic=name) for name in ("mdl_bits_per_target", "compression"))
    assert len(bits) == 4 and bits * compression == pytest.approx(1.0)  # two classes: one bit without a probe
    assert not rows_of(out, statistic="expected_layer") and not (out / "figures/cumulative.png").exists()


def test_figures_are_drawn_from_the_stored_measurement(tmp_path):
    stage = edges_stage(tmp_path, {"pos": {}, "short": {"rows": {"train": 9, "validation": 5}}}, checkpoints="ends")
    check_redrawn(stage, tmp_path / "outputs" / PLACE / "edges", "finetrace.lenses.edges.summary.task_rows")


def test_equal_checkpoints_are_looked_at_once(tmp_path):
    from tests.edge_stage import make_trajectory

    make_trajectory(tmp_path, (0, 1, 1))
    out = run_stage(edges_stage(tmp_path, mixes="none"))
    first, second, third = (values_of(out, step=step, statistic="f1") for step in STEPS)
    assert np.array_equal(second, third) and not np.array_equal(first, second)
    assert len(list((tmp_path / ".finetrace/results/edges").iterdir())) == 2


@pytest.mark.parametrize(("tasks", "settings", "message"), [
    ({"pos": {}}, {"changes": {"heda": "mlp"}},
     r"params\.yaml: edges: changes: unknown key 'heda'; did you mean 'head'"),
    ({"spr": {"spans": 2, "sets": True}}, {"changes": {"loss": "softmax"}},
     "softmax decides for one class, but spr has targets"),
    ({"spr": {"spans": 2, "sets": True}}, {"mdl": {}}, "edges.mdl: spr has targets with any number of labels"),
    ({"pos": {"rows": {"train": 9, "test": 4}}}, {}, "has no validation split, by which probes are chosen"),
    ({"pos": {"rows": {"validation": 9}}}, {}, "has no training split"),
    ({"pos": {}}, {"layers": [5]}, r"edges\.layers: 5 does not exist; the model has layers 0 \(embeddings\) to 2"),
    ({"pos": {}}, {"checkpoints": [3]}, "step 3 was not recorded"),
], ids=str)
def test_what_cannot_be_probed_is_refused(tmp_path, tasks, settings, message):
    with pytest.raises(FinetraceError, match=message):
        run_stage(edges_stage(tmp_path, tasks, **settings))
    assert not (tmp_path / "outputs" / PLACE / "edges").exists()


def test_tasks_that_are_not_there_or_not_of_words_are_named(tmp_path):
    from tests.training_fixtures import task_folder

    stage = edges_stage(tmp_path)
    stage.asked["edges"]["tasks"] = ["nosuch"]
    with pytest.raises(FinetraceError, match=r"data/nosuch: no such folder; run the stage that writes it"):
        run_stage(stage)
    task_folder(tmp_path / "data/texts")
    with pytest.raises(FinetraceError, match="texts is of kind sequence, but edge probes are about words"):
        run_stage(edges_stage(tmp_path, {"texts": {}}))


@pytest.mark.parametrize(("settings", "message"), [
    ({"max_targets": {"dev": 3}}, "max_targets: 'dev' is not a split"),
    ({"max_targets": {"test": -1}}, "is negative; 0 takes all"),
    ({"layers": [], "mixes": "none"}, "names no layer, and mixes is none"),
    ({"layers": [], "control": {}}, "control: is about single"),
    ({"seeds": 0}, "seeds: 0 is less than 1"), ({"control": {"labels": "attachment"}}, "set key: first"),
    ({"mdl": {"fractions": [0.5, 0.2, 1.0]}}, "must ascend"), ({"max_length": 2}, "leaves no room"),
    ({"tasks": ["a", "a"]}, "a name stands twice"), ({"recip": "fast"}, "did you mean 'recipe'")], ids=str)
def test_settings_that_contradict_are_refused(settings, message):
    from finetrace.config.base import parse
    from finetrace.lenses.edges.settings import EdgesSettings

    with pytest.raises(FinetraceError, match=message):
        parse(EdgesSettings, settings, "params.yaml: edges")

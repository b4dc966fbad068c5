"""The stage kernel on tiny trajectories: files, numbers against the model itself, methods, choices of examples, clear
errors."""

import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from tests.hidden_outputs import finished, load_script
from tests.pictures import assert_drawn
from tests.stages import ask, of_run
from tests.training_fixtures import model_folder, task_folder
from tests.word_tasks import piece_tokenizer, word_task_folder

from finetrace.config.base import parse
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.kernel import solvers, statistics, summary
from finetrace.lenses.kernel.settings import KernelSettings
from finetrace.longtable import LongTable
from finetrace.models.load import load_classifier
from finetrace.models.saved import load_trained
from finetrace.models.timeline import kept_checkpoints
from finetrace.pipeline.stage import open_stage
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table
from finetrace.training.checkpoints import save_weights

NAME, PLACE, STEPS = "tiny_tiny_ft_s1", "tiny/tiny/ft/s1", (0, 4, 10)
SMALL: dict[str, Any] = {"rows": {"train": 14, "eval": 9}}


def project(root: Path, *, steps: tuple[int, ...] = STEPS, kind: str = "ft", spans: int = 0,
            head: str = "linear") -> Layout:
    """A model, a task and a trajectory whose weights move a little from checkpoint to checkpoint."""
    import torch

    layout = Layout(root, root)
    model_folder(layout.model("tiny"))
    if spans:
        piece_tokenizer().save_pretrained(layout.model("tiny"))
        word_task_folder(layout.task("tiny"), spans=spans)
    else:
        task_folder(layout.task("tiny"))
    complete(layout.model("tiny"), finished("model"))
    folder = layout.run("tiny", "tiny", "ft", 1) / "trajectory"
    folder.mkdir(parents=True)
    names = read_manifest(layout.task("tiny")).facts["label_names"]
    model = load_classifier(layout.model("tiny"), names, 1, spans=spans, head=head)
    if kind == "lp":
        model.base_model.requires_grad_(False)
    if kind == "lora":
        from finetrace.models.adapters import add_lora

        add_lora(model.base_model, 2, 4.0, 0.0, None, seed=1)
    draw = torch.Generator().manual_seed(0)
    for number, step in enumerate(steps):
        if number:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
        save_weights(model, folder / "checkpoints", step)
    complete(folder, finished("trajectory", steps=steps[-1], label_names=names, method_kind=kind,
                              train={"max_length": 40 if spans else 16, "pieces": "mean"}))
    return layout


def run(layout: Layout, figures: bool = False, draw: str = "draw", **settings: Any) -> Path:
    asked = parse(KernelSettings, {**SMALL, **settings}, "params.yaml: kernel")
    ask(layout.root, "kernel", NAME, draw=draw, **of_run(PLACE), kernel=asdict(asked))
    main = load_script("kernel").main
    if not figures:
        main = mock.patch("finetrace.lenses.kernel.figures.draw", lambda record: {})(main)
    main(open_stage("kernel", NAME, layout))
    return layout.place(PLACE) / "kernel"


def columns(out: Path) -> dict[str, np.ndarray]:
    table = read_table(out / "table.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def select(table: dict[str, np.ndarray], **where: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in LongTable.of_columns(table).select(**where).columns().items()}


def one(table: dict[str, np.ndarray], **where: Any) -> float:
    found = select(table, **{"group": "all", **where})["value"]
    assert len(found) == 1, f"{len(found)} rows of {where}"
    return float(found[0])


def metrics(out: Path) -> dict[str, float]:
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    layout = project(tmp_path_factory.mktemp("done"))
    return layout, run(layout, figures=True, checkpoints="all", keep=True, dtype="float64")


# --- what is written ----------------------------------------------------------------------------------------------


def test_the_table_is_long_and_whole(done: tuple[Layout, Path]) -> None:
    table = columns(done[1])
    assert {name: str(values.dtype) for name, values in table.items()} == {
        "step": "int64", "layer": "int32", "part": "object", "group": "object", "statistic": "object", "index": "int32",
        "value": "float64", "low": "float64", "high": "float64", "n": "int64"}
    keys = list(zip(*(table[name].tolist() for name in list(table)[:6]), strict=True))
    assert len(set(keys)) == len(keys) and set(table["step"]) == set(STEPS) and set(table["part"]) == set(summary.PARTS)
    spectrum = select(table, step=4, part="full", statistic="spectrum")
    assert spectrum["index"].tolist() == list(range(1, 29)) and spectrum["value"][0] == 1
    assert (np.diff(spectrum["value"]) <= 0).all()
    of_layers = select(table, statistic="trace_share", step=0)
    assert set(of_layers["layer"].tolist()) == {-1, 0, 1} and of_layers["value"].sum() == pytest.approx(1)
    assert {"embeddings", "layer-00/attention", "layer-01/ffn", "layer-01/norms",
            "layer-00/biases"} <= set(of_layers["group"])


def test_metrics_curves_figures_and_facts(done: tuple[Layout, Path]) -> None:
    out = done[1]
    found, table = metrics(out), columns(out)
    for part in summary.PARTS:
        for name in ("rank", "stable_rank", "frobenius_norm", "nuclear_norm", "alignment", "accuracy_train",
                     "accuracy_eval", "accuracy_flat_train", "accuracy_flat_eval"):
            assert found[f"{part}/{name}/first"] == one(table, step=0, part=part, statistic=name)
            assert found[f"{part}/{name}/last"] == one(table, step=10, part=part, statistic=name)
        assert f"{part}/distance/first" not in found and 0 < found[f"{part}/distance/last"] < 1
    assert found["ft_ratio/last"] == one(table, step=10, part="full", statistic="ft_ratio")
    way = 4 * one(table, step=4, part="full", statistic="velocity") + 6 * one(table, step=10, part="full",
                                                                              statistic="velocity")
    assert found["velocity/mean"] == pytest.approx(way / 10)
    with open(out / "curves.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(STEPS)
    assert float(rows[2]["ft_effective_frobenius_norm"]) == found["ft_effective/frobenius_norm/last"]
    made = sorted(path.name for path in (out / "figures").glob("*.png"))
    assert made == ["blocks.png", "course.png", "groups.png", "spectra.png"]
    for name in made:
        assert_drawn(out / "figures" / name)
    facts = read_manifest(out).facts
    assert facts["rows"] == {"train": 14, "eval": 9} and facts["steps"] == list(STEPS) and facts["method_kind"] == "ft"
    assert set(read_manifest(out).inputs) == {"models/tiny", "data/tiny", "outputs/tiny/tiny/ft/s1/trajectory"}


def test_the_head_s_part_is_that_of_the_model_and_the_statistics_those_of_the_kept_kernels(done: tuple[Layout,
                                                                                                       Path]) -> None:
    import torch

    layout, out = done
    script, settings = load_script("kernel"), KernelSettings(**SMALL)
    checkpoints = kept_checkpoints(layout.run("tiny", "tiny", "ft", 1) / "trajectory", "all", "kernel.checkpoints")
    train, other, _ = script._examples(checkpoints, layout.model("tiny"), layout.task("tiny"), settings,
                                       {"max_length": 16, "pieces": "mean"}, read_manifest(out).seeds["kernel"])
    model, table = load_trained(checkpoints[10]), columns(out)
    with torch.no_grad():
        states = [model.encoder(**{k: v for k, v in batch.items() if k != "labels"}).last_hidden_state[:, 0]
                  for batch in train.batches + other.batches]
    phi = torch.cat(states).double().numpy()
    expected = np.einsum("nm,cd->ncmd", phi @ phi[:14].T + 1, np.eye(2))
    p, f = (np.load(out / "kernels" / "step-00000010" / f"{part}.npy") for part in summary.PARTS[:2])
    np.testing.assert_allclose(p, expected, rtol=1e-5)
    p, f = p.astype(np.float64), f.astype(np.float64)
    assert p.shape == f.shape == (23, 2, 14, 2)
    assert one(table, step=10, part="full", statistic="frobenius_norm") == pytest.approx(np.linalg.norm((p + f)[:14]),
                                                                                         rel=1e-5)
    delta = statistics.residuals(script._logits(model, train), train.labels)
    ratio = select(table, step=10, statistic="ft_ratio")
    assert ratio["value"][0] == pytest.approx(statistics.ft_ratio(p[:14], f[:14], delta), rel=1e-4)
    assert ratio["low"][0] < ratio["value"][0] < ratio["high"][0] and ratio["n"][0] == 14
    assert one(table, step=10, part="ft_effective", statistic="alignment") == pytest.approx(
        statistics.label_alignment(f[:14], train.labels), rel=5e-3)  # centring costs the kept float32 digits
    seed = read_manifest(out).seeds["kernel"]
    model_of_f = solvers.fit(f[:14], train.labels, seed=seed)
    right = solvers.accuracies(model_of_f, solvers.scores(model_of_f, f[14:]), other.labels)
    assert one(table, step=10, part="ft_effective", statistic="accuracy_eval") == right.argmax
    assert one(table, step=10, part="ft_effective", statistic="accuracy_flat_eval") == right.flat


def test_the_ft_ratio_is_that_of_products_without_a_kernel(done: tuple[Layout, Path]) -> None:
    import torch

    from finetrace.lenses.kernel.ntk import ntk_vector_product

    layout, out = done
    script, settings = load_script("kernel"), KernelSettings(**SMALL)
    checkpoints = kept_checkpoints(layout.run("tiny", "tiny", "ft", 1) / "trajectory", "all", "kernel.checkpoints")
    train, _, _ = script._examples(checkpoints, layout.model("tiny"), layout.task("tiny"), settings,
                                   {"max_length": 16, "pieces": "mean"}, read_manifest(out).seeds["kernel"])
    model = load_trained(checkpoints[0])
    delta = statistics.residuals(script._logits(model, train), train.labels)
    found = ntk_vector_product(model, train.batches, delta, dtype=torch.float64)
    assert statistics.ft_ratio_from_products(found.pretrain_effective, found.ft_effective) == pytest.approx(
        one(columns(out), step=0, part="full", statistic="ft_ratio"), rel=1e-6)


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = project(tmp_path, steps=(0, 4))
    out = run(layout, figures=True, keep=True)
    whole = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()
             and (p.parent.name != "figures" or p.suffix == ".png")}
    shutil.rmtree(out)
    monkeypatch.setattr("finetrace.lenses.kernel.ntk", lambda *rest, **more: 1 / 0)
    run(layout, figures=True, keep=True, draw="another")
    assert out / "figures" / "blocks.png" in whole and out / "kernels" / "step-00000004" / "ft_effective.npy" in whole
    assert {p: p.read_bytes() for p in whole} == whole


# --- which examples and checkpoints -------------------------------------------------------------------------------


def test_by_default_the_first_and_last_checkpoint_are_looked_at_and_the_choice_hangs_on_the_task_only(
    tmp_path: Path,
) -> None:
    out = run(project(tmp_path), groups=False, solver="none")
    table = columns(out)
    assert set(table["step"]) == {0, 10} and not (table["statistic"] == "trace_share").any()
    assert not any("accuracy" in name for name in table["statistic"])
    from finetrace import seeds

    assert read_manifest(out).seeds == {"kernel": seeds.derive(0, "kernel", "tiny")}


def test_listed_checkpoints_are_looked_at_with_the_ends(tmp_path: Path) -> None:
    layout = project(tmp_path)
    assert set(columns(run(layout, checkpoints=[4, 900], groups=False, solver="none"))["step"]) == {0, 4, 10}
    with pytest.raises(FinetraceError, match=r"kernel.checkpoints: step 5 was not recorded.*0, 4, 10"):
        run(layout, checkpoints=[5])


def test_one_checkpoint_has_no_velocity_and_no_eval_examples_no_eval_accuracy(tmp_path: Path) -> None:
    out = run(project(tmp_path, steps=(0,)), rows={"train": 8, "eval": 0}, figures=True)
    found = metrics(out)
    assert not any("velocity" in name or "eval" in name for name in found)
    assert found["full/accuracy_train/first"] == found["full/accuracy_train/last"]
    assert read_manifest(out).facts["rows"] == {"train": 8, "eval": 0}


# --- methods and tasks --------------------------------------------------------------------------------------------


def test_linear_probing_trains_the_head_only_so_the_other_part_is_zero(tmp_path: Path) -> None:
    out = run(project(tmp_path, kind="lp"), figures=True, checkpoints="all")
    found, table = metrics(out), columns(out)
    assert found["ft_effective/rank/last"] == found["ft_effective/frobenius_norm/first"] == found["ft_ratio/last"] == 0
    assert not any(name.startswith("ft_effective/accuracy") or np.isnan(value) for name, value in found.items())
    assert found["full/accuracy_eval/last"] == found["pretrain_effective/accuracy_eval/last"]
    assert found["pretrain_effective/distance/last"] == pytest.approx(0, abs=1e-12)
    for step in STEPS:  # the same features: one fit serves all
        assert one(table, step=step, part="full", statistic="model_strength") == one(table, step=0,
                                                                                     part="pretrain_effective",
                                                                                      statistic="model_strength")


def test_the_start_of_linear_probing_may_be_seen_through_all_parameters(tmp_path: Path) -> None:
    found = metrics(run(project(tmp_path, kind="lp"), parameters="all", solver="none", groups=False))
    assert found["ft_effective/frobenius_norm/last"] > 0 < found["ft_ratio/last"]


def test_adapters_make_the_kernel_where_only_they_are_trained(tmp_path: Path) -> None:
    table = columns(run(project(tmp_path, kind="lora"), solver="none"))
    groups = select(table, statistic="trace_share", step=10)["group"].tolist()
    assert groups and all(group.endswith("/attention") for group in groups)
    assert one(table, step=0, part="pretrain_effective", statistic="rank") > 0


@pytest.mark.parametrize("spans", [1, 2])
def test_tasks_of_words_have_kernels_too(tmp_path: Path, spans: int) -> None:
    out = run(project(tmp_path, spans=spans), rows={"train": 20, "eval": 12}, solver="ridge")
    assert read_manifest(out).facts["rows"] == {"train": 20, "eval": 12}
    assert metrics(out)["full/accuracy_train/last"] > 0.5


def test_signed_kernels_and_the_asymmetric_solver(tmp_path: Path) -> None:
    out = run(project(tmp_path, steps=(0, 4)), formula="asymmetric-signgd", solver="asymmetric", groups=False)
    assert 0 <= metrics(out)["full/accuracy_eval/last"] <= 1


def test_regression_may_start_from_the_logits(tmp_path: Path) -> None:
    layout = project(tmp_path, steps=(0, 4))
    plain = columns(run(layout, solver="ridge", groups=False))
    adjusted = columns(run(layout, solver="ridge", groups=False, adjust_for_init=True, f0_scaling=0.001))
    where = {"step": 4, "part": "ft_effective", "statistic": "model_strength"}
    assert one(plain, **where) != one(adjusted, **where)


# --- errors -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_said_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = project(tmp_path)
    with pytest.raises(FinetraceError, match=r"step-00000000: its kernel could not be computed .*lora"):
        run(layout, parameters="lora")
    (layout.task("tiny") / "validation.parquet").rename(layout.task("tiny") / "other.parquet")
    with pytest.raises(FinetraceError, match=r"no split 'validation'.*kernel.rows.eval: 0"):
        load_script("kernel")._examples(
            kept_checkpoints(layout.run("tiny", "tiny", "ft", 1) / "trajectory", "ends", "kernel.checkpoints"),
            layout.model("tiny"), layout.task("tiny"), KernelSettings(), {"max_length": 16, "pieces": "mean"}, 1)
    (layout.task("tiny") / "other.parquet").rename(layout.task("tiny") / "validation.parquet")
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    with pytest.raises(FinetraceError, match=r"kernel.rows.train \(now 14\)"):
        run(layout)


def test_a_trajectory_without_checkpoints_is_refused(tmp_path: Path) -> None:
    layout = project(tmp_path, steps=(0,))
    import shutil

    shutil.rmtree(layout.run("tiny", "tiny", "ft", 1) / "trajectory" / "checkpoints")
    with pytest.raises(FinetraceError, match=r"record.checkpoints"):
        kept_checkpoints(layout.run("tiny", "tiny", "ft", 1) / "trajectory", "ends", "kernel.checkpoints")


@pytest.mark.parametrize(("settings", "message"), [
    ({"rows": {"train": 5}}, "rows"), ({"rows": {"train": 1, "eval": 5}}, "rows.train"),
    ({"rows": {"train": 5, "eval": -1}}, "rows.eval"), ({"checkpoints": [-1]}, "checkpoints"),
    ({"solver": "svc", "parity": True}, "parity"), ({"folds": 1}, "folds"),
    ({"solver": "asymmetric"}, "asymmetric-signgd"),
    ({"solver": "svr", "formula": "asymmetric-signgd"}, "symmetric kernel"),
    ({"adjust_for_init": True}, "adjust_for_init"),
    ({"gamma": 0.0}, "gamma"), ({"memory_gb": 0.0}, "memory_gb"), ({"regularization": -0.1}, "regularization"),
    ({"rank_tolerance": 1.0}, "rank_tolerance"), ({"batch_tokens": 1}, "batch_tokens"),
    ({"max_length": 2}, "max_length"), ({"solver": "lasso"}, "solver"), ({"row": 3}, "did you mean 'rows'")])
def test_contradictory_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(KernelSettings, settings, "params.yaml: kernel")


def test_the_default_settings_are_the_published_ones() -> None:
    settings = KernelSettings()
    assert settings.rows == {"train": 250,
                             "eval": 250} and settings.solver == "logistic" and settings.checkpoints == "ends"
    assert set(solvers.SOLVERS) | {"none"} == set(KernelSettings.__annotations__["solver"].__args__)


def test_a_kernel_that_has_not_changed_is_not_fitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fit = [], solvers.fit
    monkeypatch.setattr(solvers, "fit", lambda *given, **named: calls.append(1) or fit(*given, **named))
    table = columns(run(project(tmp_path, kind="lp"), checkpoints="all"))
    assert len(calls) == 1  # one for all checkpoints, and for the whole kernel too, of which the other part is zero
    assert len(select(table, statistic="accuracy_eval")["value"]) == 2 * len(STEPS)

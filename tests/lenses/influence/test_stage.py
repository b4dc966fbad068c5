"""The stage influence on real, tiny trainings: files, numbers against the formula, methods, targets, clear errors."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.hidden_outputs import finished, load_script
from tests.oracles import influence as oracle
from tests.pictures import assert_drawn
from tests.stages import ask, of_run
from tests.target_tasks import task as target_task
from tests.training_fixtures import SEEDS, model_folder, recording, settings, task_folder, tokenizer
from tests.word_tasks import piece_tokenizer, word_task_folder

from finetrace.config.base import parse
from finetrace.config.training import MethodSettings
from finetrace.config.written import written
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.influence.inputs import texts_of
from finetrace.lenses.influence.scores import rate_weights
from finetrace.lenses.influence.settings import InfluenceSettings
from finetrace.longtable import LongTable
from finetrace.models.load import forward_names
from finetrace.models.rows import Collator, encode
from finetrace.models.saved import load_trained
from finetrace.pipeline.stage import open_stage
from finetrace.store.checkpoints import list_weights
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table
from finetrace.training.finetune import finetune

NAME, PLACE = "tiny_tiny_ft_s1", "tiny/tiny/ft/s1"
SMALL: dict[str, Any] = {"rows": {"train": 20, "eval": 8}, "top": 2}


def project(root: Path, *, method: str = "ft", words: bool = False, target: str = "", signals: bool = True,
            **train: Any) -> Layout:
    """A finished training of eight steps, which looked at its watched examples after each."""
    torch.set_num_threads(1)
    layout = Layout(root, root)
    model_folder(layout.model("tiny"))
    if words:
        piece_tokenizer().save_pretrained(layout.model("tiny"))
    complete(layout.model("tiny"), finished("model"))
    if target:
        target_task(layout.task("tiny"), target, (32, 16, 8))
    else:
        (word_task_folder if words else task_folder)(layout.task("tiny"))
    folder = layout.place(PLACE) / "trajectory"
    folder.mkdir(parents=True)
    usual = {"head": "linear", "dropout": 0.0, "epochs": 1.0, "max_length": 40 if words else 16,
             "lp_strengths": (1e-2, 1e2, 3), "lp_folds": 2, "lora_rank": 2, "lora_alpha": 4.0}
    wanted = settings(**usual | train)
    facts = finetune(layout.model("tiny"), layout.task("tiny"), wanted,
                     recording(checkpoints={"steps": [2]}, probe={"every": 1}, evaluate={"steps": []}, signals=signals),
                     SEEDS, scratch=root / "scratch", out=folder, name="tiny", method=MethodSettings(kind=method))
    manifest = finished("trajectory")
    manifest.facts = facts | {"train": written(wanted)}
    complete(folder, manifest)
    return layout


def run(layout: Layout, figures: bool = False, **changes: Any) -> Path:
    asked = parse(InfluenceSettings, {**SMALL, **changes}, "params.yaml: influence")
    ask(layout.root, "influence", NAME, **of_run(PLACE), influence=asdict(asked))
    main = load_script("influence").main
    if not figures:
        main = mock.patch("finetrace.lenses.influence.figures.draw", lambda record: {})(main)
    main(open_stage("influence", NAME, layout))
    return layout.place(PLACE) / "influence"


def metrics(out: Path) -> dict[str, float]:
    return json.loads((out / "metrics.json").read_text())


def table(out: Path) -> LongTable:
    read = read_table(out / "table.parquet")
    return LongTable.of_columns({n: read[n].to_numpy(zero_copy_only=False) for n in read.column_names})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Path]:
    layout = project(tmp_path_factory.mktemp("done"))
    return layout, run(layout, figures=True, dtype="float64")


def test_pairs_are_those_of_the_formula(done: tuple[Layout, Path]) -> None:
    """Every number of pairs.parquet by one backward pass per example at each checkpoint."""
    layout, out = done
    trajectory, pairs = layout.place(PLACE) / "trajectory", read_table(out / "pairs.parquet").to_pandas()
    history = read_table(trajectory / "history.parquet").to_pandas().query("kind == 'train'")
    checkpoints = list_weights(trajectory / "checkpoints")
    weights = rate_weights(list(checkpoints), history.step.to_numpy(), history.learning_rate.to_numpy(), 64)
    assert list(checkpoints) == [0, 2, 8] and weights.sum() == pytest.approx(history.learning_rate.sum() / 64)
    ids = {of: sorted(set(pairs[f"{of}_example_id"])) for of in ("eval", "train")}
    parts = []
    for weight, (_, folder) in zip(weights, checkpoints.items(), strict=True):
        model = load_trained(folder, layout.model("tiny"))
        found = {}
        for of, split in (("eval", "validation"), ("train", "train")):
            path = layout.task("tiny") / f"{split}.parquet"
            whole = read_table(path, ["example_id"])["example_id"].to_pylist()
            rows = encode(path, tokenizer(), 16, forward_names(model), rows=np.array([whole.index(i) for i in ids[of]]))
            batch = Collator(tokenizer(), side="right")(rows, range(len(rows)))
            found[of] = oracle.gradients(model, [{k: v for k, v in batch.items() if k != "labels"}], [rows.labels],
                                         F.cross_entropy, [name for name, _ in model.named_parameters()])
        parts.append((weight, found["eval"], found["train"]))
    expected, (_, eval_last, train_last) = oracle.influence(parts), parts[-1]
    cosines = oracle.cosines(eval_last, train_last)
    for row in pairs.to_dict("records"):
        place = ids["eval"].index(row["eval_example_id"]), ids["train"].index(row["train_example_id"])
        assert row["influence"] == pytest.approx(expected[place], rel=1e-8)
        assert row["cosine"] == pytest.approx(cosines[place], abs=1e-6)
        assert row["step_0"] + row["step_2"] + row["step_8"] == pytest.approx(row["influence"], rel=1e-5, abs=1e-12)
        assert sum(v for k, v in row.items() if k.startswith("group_")) == pytest.approx(row["influence"], rel=1e-9)
    own = read_table(out / "examples.parquet").to_pandas().set_index("example_id")["self_influence"]
    squares = sum(weight * oracle.squares(of_train) for weight, _, of_train in parts)
    np.testing.assert_allclose(own[ids["train"]], squares, rtol=1e-8)


def test_every_evaluation_example_has_its_helpful_and_harmful_ones(done: tuple[Layout, Path]) -> None:
    layout, out = done
    pairs = read_table(out / "pairs.parquet").to_pandas()
    assert len(pairs) == 8 * 4 * 2 and pairs.eval_example_id.nunique() == 8
    for _, group in pairs.groupby("eval_example_id"):
        for most, least, column in (("helpful", "harmful", "influence"), ("alike", "opposed", "cosine")):
            best, worst = (group[group.kind == kind].sort_values("rank")[column].to_numpy() for kind in (most, least))
            assert best[0] >= best[1] > worst[1] >= worst[0]
    train = read_table(layout.task("tiny") / "train.parquet").to_pandas().set_index("example_id")
    assert (train.loc[pairs.train_example_id, "text_a"].to_numpy() == pairs.train_text.to_numpy()).all()
    names = np.array(["negative", "positive"])
    assert (names[train.loc[pairs.train_example_id, "label"]] == pairs.train_label.to_numpy()).all()


def test_noise_is_ranked_and_training_s_own_record_adds_up(done: tuple[Layout, Path]) -> None:
    layout, out = done
    examples = read_table(out / "examples.parquet").to_pandas()
    assert examples["rank"].tolist() == list(range(1, 21)) and (np.diff(examples.self_influence) <= 0).all()
    assert (examples.visits == 1).all(), "one epoch, looks after every step"
    of, looks = table(out), read_table(layout.place(PLACE) / "trajectory/probe.parquet").to_pandas()
    loss = looks[looks.split == "validation"].groupby("step").loss.mean()
    drop = of.select(statistic="recorded_drop", split="validation")
    assert drop.frame.step.tolist() == list(range(1, 9))
    np.testing.assert_allclose(drop.frame.value, loss.to_numpy()[:-1] - loss.to_numpy()[1:], atol=1e-6)
    assert set(of.select(statistic="recorded_rows").frame.value) == {8.0}
    signals = read_table(layout.place(PLACE) / "trajectory/signals.parquet").to_pandas().set_index("example_id")
    steps = signals.loc[examples.example_id, "step"].to_numpy()
    np.testing.assert_allclose(examples.recorded_credit_validation, drop.frame.value.to_numpy()[steps] / 8, atol=1e-7)


def test_metrics_curves_figures_and_facts(done: tuple[Layout, Path]) -> None:
    out = done[1]
    numbers, of = metrics(out), table(out)
    assert {"agreement", "top_tenth", "half_step", "cosine/last", "predicted_drop", "seen_drop"} <= set(numbers)
    assert numbers["agreement"] == of.value(statistic="agreement", step=8)
    assert -1 <= numbers["agreement"] <= 1 and 0.1 <= numbers["top_tenth"] <= 1
    made = sorted(path.stem for path in (out / "figures").glob("*.png"))
    assert made == ["agreement", "course", "examples", "noise", "recorded"]
    for name in made:
        assert_drawn(out / "figures" / f"{name}.png")
    facts = read_manifest(out).facts
    assert facts["steps"] == [0, 2, 8] and facts["rows"] == {"train": 20, "eval": 8} and facts["method_kind"] == "ft"
    assert set(read_manifest(out).inputs) == {"models/tiny", "data/tiny", f"outputs/{PLACE}/trajectory"}
    assert (out / "curves.csv").read_text().startswith("step,influence,share,cosine")


def test_less_memory_and_visits(done: tuple[Layout, Path]) -> None:
    layout, out = done
    before = metrics(out)
    less = metrics(run(layout, dtype="float64", memory_gb=6e-4, batch_tokens=64))
    assert {k: pytest.approx(v, rel=1e-6, abs=1e-9) for k, v in before.items()} == less
    visits = metrics(run(layout, weights="visits"))
    assert visits["influence/head"] != before["influence/head"]
    assert read_manifest(out).facts["weights"] == "visits"


@pytest.mark.parametrize("method", ["lora", "lp"])
def test_methods_have_the_gradients_of_what_they_train(tmp_path: Path, method: str) -> None:
    layout = project(tmp_path, method=method, epochs=0.5)
    numbers = metrics(run(layout))
    groups = {name.removeprefix("influence/") for name in numbers if name.startswith("influence/")}
    assert groups == ({"head"} if method == "lp" else {"layer-00", "layer-01", "head"})
    if method == "lp":
        assert not read_manifest(layout.place(PLACE) / "influence").facts["rates_known"]


@pytest.mark.parametrize("target", ["regression", "multi-label"])
def test_other_targets(tmp_path: Path, target: str) -> None:
    out = run(project(tmp_path, target=target))
    assert "cosine_same_class/last" not in metrics(out) and "cosine/last" in metrics(out)
    labels = set(read_table(out / "pairs.parquet")["eval_label"].to_pylist())
    assert labels <= {"good", "bad", "good, bad"} if target == "multi-label" else all(float(one) >= 0 for one in labels)


def test_words_of_sentences(tmp_path: Path) -> None:
    layout = project(tmp_path, words=True, class_weights={"good": 3.0}, label_smoothing=0.1)
    out = run(layout)
    examples = read_table(out / "examples.parquet").to_pandas()
    words = read_table(layout.task("tiny") / "train.parquet").to_pandas().set_index("example_id")
    for row in examples.to_dict("records"):
        start, _ = words.loc[row["example_id"], "spans"]
        assert row["text"].split()[start] == f"[{words.loc[row['example_id'], 'words'][start]}]"
    assert texts_of(layout.task("tiny") / "train.parquet", np.array([0]))[0].startswith("[")


def test_without_signals_visits_are_refused_and_rates_do(tmp_path: Path) -> None:
    layout = project(tmp_path, signals=False, epochs=0.5)
    with pytest.raises(FinetraceError, match=r"set record\.signals: true, or influence\.weights: rates"):
        run(layout, weights="visits")
    assert "recorded_drop" not in table(run(layout)).distinct("statistic")
    of_task = read_manifest(layout.task("tiny"))
    (layout.task("tiny") / "test.parquet").unlink()
    complete(layout.task("tiny"), of_task)
    with pytest.raises(FinetraceError, match=r"set influence\.eval_split"):
        run(layout, eval_split="test")

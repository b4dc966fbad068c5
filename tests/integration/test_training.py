"""A recorded training is the training that a plain loop would have been."""

import itertools
import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.training_fixtures import HISTORY, PROBE, SEEDS, SIGNALS, model_folder, recording, settings, task_folder

from finetrace.errors import FinetraceError
from finetrace.inference.evaluate import classification_metrics, predict
from finetrace.models.load import head_parameters, load_classifier
from finetrace.store.checkpoints import list_weights
from finetrace.store.tables import matrix, read_table
from finetrace.training.finetune import best_step, finetune, make_plan, prepare

UNEVEN = {"train": 61, "validation": 24, "test": 10}  # 61 = 7 x 8 + 5


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Folders model/ (dropout 0.1) and tasks even/ and uneven/."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("training")
    model_folder(root / "model")
    task_folder(root / "even")
    task_folder(root / "uneven", UNEVEN)
    return root


@pytest.fixture(scope="module")
def train(here, tmp_path_factory):
    """Train with some settings; the folder of the trajectory."""

    def run(wanted, record, task="even", model="model", **more: Any):
        place = tmp_path_factory.mktemp("run")
        (place / "out").mkdir()
        facts = finetune(here / model, here / task, wanted, record, SEEDS, scratch=place / "scratch", out=place / "out",
                         name="test", **more)
        (place / "out" / "facts.json").write_text(json.dumps(facts))
        return place / "out"

    return run


def last_weights(out):
    from safetensors.torch import load_file

    steps = list_weights(out / "checkpoints")
    return load_file(steps[max(steps)] / "model.safetensors")


def history(out, kind="train"):
    return [r for r in read_table(out / HISTORY).to_pylist() if r["kind"] == kind]


def plain_loop(here, wanted, task):
    """Fine-tuning as in a text book: what happens at every step, and the weights at the end."""
    model = load_classifier(here / "model", ["negative", "positive"], SEEDS.head, wanted.dropout)
    rows = prepare(here / "model", here / task, wanted, model).splits["train"]
    batches = [np.concatenate([p for m, p, _ in make_plan(rows, wanted, SEEDS.order).batches
                               if m // wanted.accumulate == step])
               for step in range(make_plan(rows, wanted, SEEDS.order).total_steps)]
    decayed = [p for n, p in model.named_parameters() if "bias" not in n and "LayerNorm" not in n]
    others = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": wanted.weight_decay},
                                   {"params": others, "weight_decay": 0.0}],
                                  lr=wanted.learning_rate, betas=(0.9, wanted.beta2), eps=1e-8, foreach=False,
                                  fused=False)
    warmup, seen = round(wanted.warmup * len(batches)), []
    model.train()
    for step, batch in enumerate(batches):
        width = rows.lengths[batch].max()
        padded = {k: torch.tensor([v[i] + [0] * (width - len(v[i])) for i in batch]) for k, v in rows.features.items()}
        logits = model(**padded).logits
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(rows.labels[batch]), reduction="none")
        head_norm = torch.sqrt(sum((p.detach().double() ** 2).sum() for p in head_parameters(model))).item()
        optimizer.zero_grad()
        losses.mean().backward()
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in model.parameters() if p.grad is not None)).item()
        if wanted.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), wanted.max_grad_norm)
        rate = wanted.learning_rate * (step / warmup if step < warmup else
                                       (len(batches) - step) / (len(batches) - warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        seen.append({"logits": logits.detach().numpy(), "losses": losses.detach().numpy(),
                     "ids": rows.example_ids[batch],
                     "labels": rows.labels[batch], "norm": norm, "head_norm": head_norm, "rate": rate,
                     "tokens": int(rows.lengths[batch].sum())})
    return seen, model.state_dict()


@pytest.mark.parametrize("wanted", [
    settings(dropout=0.0, weight_decay=0.01, max_grad_norm=0.5, epochs=2.0),
    pytest.param(settings(dropout=0.0, warmup=0.25, max_grad_norm=0.0, order="random", beta2=0.98),
                 marks=pytest.mark.slow),
    settings(dropout=0.0, accumulate=4, max_grad_norm=0.5),
    settings(dropout=0.0, accumulate=8)],
                         ids=["clipped", "warmed-up", "accumulated", "accumulated, fewer rows than parts"])
def test_signals_and_weights_are_those_of_a_plain_loop(here, train, wanted):
    out = train(wanted, recording(), "uneven")
    expected, weights = plain_loop(here, wanted, "uneven")
    signals, rows = read_table(out / SIGNALS), history(out)
    logits, steps = matrix(signals, "logits"), signals["step"].to_numpy()
    assert [r["step"] for r in rows] == list(range(len(expected))) == list(range(16))
    assert signals.num_rows == 2 * UNEVEN["train"]
    assert np.array_equal(np.unique(steps), np.arange(16))
    tokens = 0
    for step, want in enumerate(expected):
        at, row = steps == step, rows[step]
        assert np.array_equal(signals["example_id"].to_numpy()[at], want["ids"])
        assert np.array_equal(signals["label"].to_numpy()[at], want["labels"])
        np.testing.assert_allclose(logits[at], want["logits"], atol=1e-6, rtol=0)
        np.testing.assert_allclose(signals["loss"].to_numpy()[at], want["losses"], atol=1e-6, rtol=0)
        assert row["loss"] == pytest.approx(want["losses"].mean(), abs=1e-6)
        assert row["loss"] == pytest.approx(signals["loss"].to_numpy()[at].mean(), abs=1e-6)
        assert row["gradient_norm"] == pytest.approx(want["norm"], rel=1e-5)
        assert row["head_norm"] == pytest.approx(want["head_norm"], rel=1e-6)
        assert row["learning_rate"] == pytest.approx(want["rate"], abs=1e-12)
        tokens += want["tokens"]
        assert row["tokens"] == tokens, "tokens up to and with this step"
        assert row["examples"] == sum(len(e["ids"]) for e in expected[:step]), "examples before this step"
        assert row["epoch"] == step / 8
    for name, value in last_weights(out).items():
        np.testing.assert_allclose(value, weights[name], atol=2e-6, rtol=0, err_msg=name)
    facts = json.loads((out / "facts.json").read_text())
    assert (facts["steps"], facts["steps_per_epoch"], facts["train_rows"], facts["tokens"]) == (16, 8, 61, tokens)
    assert facts["rows"]["signals"] == 122


def test_every_micro_batch_is_recorded(train):
    out = train(settings(accumulate=4), recording(), "uneven")
    signals = read_table(out / SIGNALS)
    micro, steps, position = (signals[c].to_numpy() for c in ("micro_step", "step", "position"))
    assert np.array_equal(np.unique(micro), np.arange(16 * 4))
    assert np.array_equal(micro // 4, steps)
    assert np.all(np.diff(micro) >= 0)
    assert sorted(np.unique(micro, return_counts=True)[1].tolist()) == [1] * 6 + [2] * 58  # 5 rows = 2 + 1 + 1 + 1
    for m in np.unique(micro):
        assert position[micro == m].tolist() == list(range((micro == m).sum()))


def test_accumulation_changes_nothing_but_the_memory(train):
    whole, parts = (train(settings(dropout=0.0, accumulate=a), recording(), "uneven") for a in (1, 4))
    for column in ("loss", "gradient_norm", "head_norm"):
        np.testing.assert_allclose([r[column] for r in history(parts)], [r[column] for r in history(whole)], rtol=2e-5)
    for column in ("step", "example_id", "label"):
        assert np.array_equal(read_table(whole / SIGNALS)[column], read_table(parts / SIGNALS)[column])
    np.testing.assert_allclose(matrix(read_table(parts / SIGNALS), "logits"),
                               matrix(read_table(whole / SIGNALS), "logits"), atol=1e-6)
    other = last_weights(parts)
    for name, value in last_weights(whole).items():
        np.testing.assert_allclose(value, other[name], atol=2e-6, err_msg=name)


@pytest.mark.parametrize("record", [
    *(pytest.param(recording(**less), marks=pytest.mark.slow) for less in (
        {"signals": False}, {"probe": "none"}, {"evaluate": "none"}, {"checkpoints": {"steps": []}})),
    recording(signals=False, probe="none", evaluate="none", checkpoints={"steps": []}),
    recording(probe={"every": 1}, evaluate={"every": 1}, checkpoints={"every": 1}), recording(resume_seconds=0)],
    ids=["no signals", "no looks", "no evaluations", "no checkpoints", "nothing", "everything", "resume points"])
def test_recording_changes_nothing_with_dropout_on(train, calm, record):
    """The weights at the end are bit-identical whatever is recorded."""
    out = train(settings(), record)
    ours = last_weights(out)
    assert ours.keys() == last_weights(calm).keys() != set()
    for name, value in last_weights(calm).items():
        assert torch.equal(value, ours[name]), name
    if record.signals:
        assert (out / SIGNALS).read_bytes() == (calm / SIGNALS).read_bytes()


@pytest.fixture(scope="module")
def calm(train):
    return train(settings(), recording())


def test_repeating_a_training_repeats_its_bytes_and_another_seed_does_not(train, calm, here, tmp_path):
    again = train(settings(), recording())
    for name in (SIGNALS, HISTORY, PROBE, "metrics.json"):
        assert (again / name).read_bytes() == (calm / name).read_bytes(), name
    (tmp_path / "out").mkdir()
    import dataclasses

    finetune(here / "model", here / "even", settings(), recording(), dataclasses.replace(SEEDS, dropout=99),
             scratch=tmp_path / "s", out=tmp_path / "out", name="other")
    assert (tmp_path / "out" / SIGNALS).read_bytes() != (calm / SIGNALS).read_bytes()


def test_every_row_is_recorded_once_per_epoch(train):
    out = train(settings(epochs=3.0), recording(), "uneven")
    signals = read_table(out / SIGNALS)
    ids, steps = signals["example_id"].to_numpy(), signals["step"].to_numpy()
    assert signals.num_rows == 3 * 61
    for epoch in range(3):
        assert sorted(ids[steps // 8 == epoch]) == list(range(61))
    assert np.array_equal(np.unique(steps), np.arange(24))
    assert json.loads((out / "metrics.json").read_text())["examples"] == 183


def test_checkpoints_looks_and_evaluations_are_where_the_schedules_say(train, here):
    out = train(settings(), recording(checkpoints={"every": 5}, probe={"steps": [3]}, evaluate="epochs"), "uneven")
    assert list(list_weights(out / "checkpoints")) == [0, 5, 10, 15, 16]
    assert sorted(p.name for p in (out / "checkpoints" / "step-00000005").iterdir()) == [
        "complete.json", "config.json", "model.safetensors"]
    probe = read_table(out / PROBE).to_pylist()
    assert sorted({r["step"] for r in probe}) == [0, 3, 16]
    assert all(sum(r["step"] == s and r["split"] == p for r in probe) == 8 for s in (0, 3, 16)
               for p in ("train", "validation"))
    assert [r["step"] for r in history(out, "eval")] == [0, 8, 16]
    timing = read_table(out / "timing.parquet").to_pylist()
    assert [t["step"] for t in timing] == list(range(16))
    assert all(b["seconds"] > a["seconds"] for a, b in itertools.pairwise(timing))
    assert all(t["tokens_per_second"] > 0 for t in timing)


def test_looks_and_evaluations_are_of_the_weights_at_their_step(train, here):
    from transformers import AutoModelForSequenceClassification

    out = train(settings(), recording(checkpoints={"every": 8}, evaluate={"every": 8}, probe={"every": 8}))
    looked_at = list_weights(out / "checkpoints")
    assert looked_at
    for step, folder in looked_at.items():
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        prepared = prepare(here / "model", here / "even", settings(), model)
        rows = prepared.splits["validation"]
        logits = predict(model, rows, prepared.collator)
        wanted = classification_metrics(logits, rows.labels)
        row = next(r for r in history(out, "eval") if r["step"] == step)
        assert all(row[k] == pytest.approx(v, abs=1e-7) for k, v in wanted.items())
        assert row["examples"] == 8 * step
        place = {int(e): i for i, e in enumerate(rows.example_ids)}
        looks = [r for r in read_table(out / PROBE).to_pylist() if r["step"] == step and r["split"] == "validation"]
        assert looks
        for look in looks:
            np.testing.assert_allclose(look["logits"], logits[place[look["example_id"]]], atol=1e-6)
            assert look["label"] == rows.labels[place[look["example_id"]]]


def test_the_model_learns_and_the_final_metrics_are_of_the_last_weights(train, here):
    from transformers import AutoModelForSequenceClassification

    out = train(settings(epochs=12.0, learning_rate=3e-3), recording(evaluate="none", checkpoints="epochs"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["validation/accuracy"] > 0.9
    model = AutoModelForSequenceClassification.from_pretrained(out / "checkpoints" / "step-00000096")
    prepared = prepare(here / "model", here / "even", settings(), model)
    for split in ("validation", "test"):
        rows = prepared.splits[split]
        for name, value in classification_metrics(predict(model, rows, prepared.collator), rows.labels).items():
            assert metrics[f"{split}/{name}"] == pytest.approx(value, abs=1e-6)


def test_early_stopping_stops_and_keeps_the_last_checkpoint(train):
    # a learning rate of almost nothing: no evaluation is better than the one before the first step
    out = train(settings(learning_rate=1e-12, epochs=6.0, early_stopping=2),
                recording(evaluate={"every": 5}, checkpoints="log2"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 10
    assert [r["step"] for r in history(out, "eval")] == [0, 5, 10]
    assert [r["step"] for r in history(out)] == list(range(10))
    assert list(list_weights(out / "checkpoints")) == [0, 1, 2, 4, 8, 10]
    assert read_table(out / SIGNALS).num_rows == 80


def test_early_stopping_waits_while_the_metric_gets_better(train):
    out = train(settings(epochs=4.0, early_stopping=3), recording(evaluate="epochs"))
    values = [r["accuracy"] for r in history(out, "eval")]
    best = values.index(max(values))
    assert len(values) - 1 - best <= 3
    assert len(values) == 5 or len(values) - 1 - best == 3


@pytest.mark.parametrize("checkpoints", ["log2", "none"])
def test_keep_best_reports_the_best_evaluation(train, checkpoints):
    # the learning rate is so high that the metric goes up and down
    out = train(settings(learning_rate=0.03, epochs=3.0, keep="best"),
                recording(evaluate={"every": 3}, checkpoints=checkpoints))
    evaluations, metrics = history(out, "eval"), json.loads((out / "metrics.json").read_text())
    best = best_step(evaluations, "accuracy")
    assert best < 24, "the fixture should not be best at the end"
    row = next(e for e in evaluations if e["step"] == best)
    assert row["accuracy"] == max(e["accuracy"] for e in evaluations)
    assert metrics["kept_step"] == best
    for name in ("loss", "accuracy", "macro_f1", "f1", "matthews"):
        assert metrics[f"validation/{name}"] == pytest.approx(row[name], abs=1e-6)
    expected = {best} | ({0, 1, 2, 4, 8, 16, 24} if checkpoints == "log2" else set())
    assert set(list_weights(out / "checkpoints")) == expected


@pytest.mark.parametrize("change", [{"keep": "best"}, {"early_stopping": 1}])
def test_judging_without_evaluations_is_refused(train, change):
    with pytest.raises(FinetraceError, match=r"record.evaluate: none"):
        train(settings(**change), recording(evaluate="none"))


def test_best_step_takes_the_earliest_of_equals_and_no_nan():
    evaluations = [{"step": s, "f1": v} for s, v in ((0, float("nan")), (5, 0.5), (10, 0.7), (15, 0.7))]
    assert best_step(evaluations, "f1") == 10
    assert best_step(evaluations[:1], "f1") == 0


def test_watchers_see_the_plan_first_and_every_row_once(train, monkeypatch):
    from finetrace.training import recorder

    monkeypatch.setattr(recorder, "WATCH_SECONDS", 0.0)
    events: list[Any] = []
    out = train(settings(), recording(), watch=events.extend, on_plan=lambda plan: events.append(plan.total_steps))
    assert events[0] == 16
    rows = read_table(out / HISTORY).to_pylist()
    assert [(e["step"], e["kind"]) for e in events[1:]] == [(r["step"], r["kind"]) for r in rows]


def test_max_steps_and_a_training_of_one_step(train):
    out = train(settings(max_steps=1), recording())
    assert json.loads((out / "metrics.json").read_text())["steps"] == 1
    assert [r["learning_rate"] for r in history(out)] == [2e-3]
    assert list(list_weights(out / "checkpoints")) == [0, 1]
    assert read_table(out / SIGNALS).num_rows == 8


def test_diverging_training_is_recorded_to_its_end(train):
    out = train(settings(learning_rate=1e30, max_grad_norm=0.0), recording(on_nonfinite="record"))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 16
    assert metrics["validation/loss"] is None, "NaN is null in JSON"
    assert pq.read_metadata(out / SIGNALS).num_rows == 128


def test_a_task_without_training_rows_is_refused(here, tmp_path):
    task_folder(tmp_path / "task", {"test": 5})
    with pytest.raises(FinetraceError, match="has no train split"):
        finetune(here / "model", tmp_path / "task", settings(), recording(), SEEDS, scratch=tmp_path / "s",
                 out=tmp_path, name="x")

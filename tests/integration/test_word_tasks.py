"""Tasks of words through training and extraction: what is recorded, what is kept, and that a killed run ends alike."""

import numpy as np
import pytest
import torch
from tests.training_fixtures import HISTORY, PROBE, SEEDS, SIGNALS, model_folder, recording, settings
from tests.word_tasks import naive_pieces, piece_tokenizer, word_task_folder

from finetrace.config.hidden import HiddenSettings
from finetrace.inference.evaluate import classification_metrics, predict
from finetrace.inference.trajectory import extract_trajectory
from finetrace.models.load import load_encoder
from finetrace.models.saved import load_trained
from finetrace.store.arrays import read_array
from finetrace.store.checkpoints import list_weights
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import read_table
from finetrace.training.finetune import finetune, prepare


def folders(root, spans):
    model = model_folder(root / "model")
    piece_tokenizer().save_pretrained(model)
    return model, word_task_folder(root / f"words-{spans}", spans=spans)


def trained(root, spans, name="run", train=None, **record):
    model, task = folders(root / f"source-{name}", spans)
    out = root / name
    out.mkdir()
    wanted = train or settings(max_length=40, epochs=4.0, learning_rate=1e-2)
    facts = finetune(model, task, wanted, recording(**record), SEEDS, scratch=root / f"scratch-{name}", out=out,
                     name="t")
    return model, task, out, facts


@pytest.mark.parametrize("spans", [1, 2])
def test_every_marked_word_of_every_step_is_recorded(tmp_path, spans):
    _, task, out, facts = trained(tmp_path, spans, evaluate={"every": 3})
    table, signals = read_table(task / "train.parquet"), read_table(out / SIGNALS)
    assert signals.num_rows == 4 * table.num_rows and facts["train_rows"] == table.num_rows
    ids = signals["example_id"].to_numpy()
    labels = dict(zip(table["example_id"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert signals["label"].to_pylist() == [labels[int(i)] for i in ids]
    assert sorted(ids[:table.num_rows].tolist()) == sorted(labels)  # an epoch sees each example once
    sentence = dict(zip(table["example_id"].to_pylist(), table["sentence"].to_pylist(), strict=True))
    steps = signals["step"].to_numpy()
    assert all(len({sentence[int(i)] for i in ids[steps == s]}) == 8 for s in range(12))  # a batch is 8 sentences
    history = read_table(out / HISTORY).to_pylist()
    examples = [r["examples"] for r in history if r["kind"] == "train"]
    assert examples == [int((steps < s).sum()) for s in range(12)]
    looks = read_table(out / PROBE)
    assert set(looks["split"].to_pylist()) == {"train", "validation"} and looks["step"][0].as_py() == 0
    rate = [r["accuracy"] for r in history if r["kind"] == "eval"]
    assert rate[-1] > rate[0] + 0.1  # the kinds of words are easy to learn


def test_the_loss_is_the_mean_over_the_examples_of_a_step(tmp_path):
    _, _, out, _ = trained(tmp_path, 1)
    signals, history = read_table(out / SIGNALS), read_table(out / HISTORY).to_pylist()
    steps, losses = signals["step"].to_numpy(), signals["loss"].to_numpy().astype(np.float64)
    for row in [r for r in history if r["kind"] == "train"]:
        assert row["loss"] == pytest.approx(losses[steps == row["step"]].mean(), abs=1e-6)


def test_accumulated_micro_batches_train_like_whole_batches(tmp_path):
    wanted = [settings(max_length=40, dropout=0.0, accumulate=n, max_grad_norm=0.0) for n in (1, 4)]
    whole, parts = (trained(tmp_path, 1, f"run{i}", one)[2] for i, one in enumerate(wanted))
    a, b = (load_trained(list_weights(out / "checkpoints")[6]).state_dict() for out in (whole, parts))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bytes(tmp_path, monkeypatch):
    from finetrace.training.finetune import FinetuneHooks

    _, _, whole, _ = trained(tmp_path, 2, "whole", resume_seconds=0)
    after = FinetuneHooks.after_step

    def die(self, trainer, step):
        if step == 7:
            raise KeyboardInterrupt
        return after(self, trainer, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FinetuneHooks, "after_step", die)
        trained(tmp_path, 2, "killed", resume_seconds=0)
    (tmp_path / "killed").rmdir()
    _, _, again, _ = trained(tmp_path, 2, "killed", resume_seconds=0)
    for name in (SIGNALS, PROBE, "metrics.json", *(f"checkpoints/step-{s:08d}/{f}" for s in (0, 8, 12)
                                                   for f in ("model.safetensors", "head.safetensors"))):
        assert (whole / name).read_bytes() == (again / name).read_bytes(), name


def test_the_final_metrics_are_those_of_the_last_checkpoint(tmp_path):
    import json

    model, task, out, facts = trained(tmp_path, 2)
    last = load_trained(list_weights(out / "checkpoints")[facts["steps"]])
    prepared, metrics = prepare(model, task, settings(max_length=40),
                                last), json.loads((out / "metrics.json").read_text())
    for split in ("validation", "test"):
        rows = prepared.splits[split]
        for name, value in classification_metrics(predict(last, rows, prepared.collator), rows.labels).items():
            assert metrics[f"{split}/{name}"] == pytest.approx(value, abs=1e-6)


def test_the_best_weights_are_kept(tmp_path):
    _, _, out, facts = trained(tmp_path, 1, train=settings(max_length=40, keep="best"), evaluate={"every": 2})
    assert facts["kept_step"] in list_weights(out / "checkpoints")


@pytest.mark.parametrize(("spans", "pieces"), [(1, "first"), (2, "mean"), *(
    pytest.param(*other, marks=pytest.mark.slow) for other in ((1, "mean"), (2, "first")))])
def test_hidden_states_are_those_of_the_marked_words(tmp_path, spans, pieces):
    from finetrace.store.hidden import read_hidden

    model, task, out, _ = trained(tmp_path, spans)
    complete(out, Manifest("trajectory", "train", "t", "0", {}, {}, {}, {}), started=0.0)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    wanted = HiddenSettings(rows={"train": 60, "validation": 0}, token_rows={"validation": 4}, checkpoints="ends")
    facts = extract_trajectory(out, model, task, wanted, 40, 3, scratch=tmp_path / "scratch", out=hidden, name="t",
                               pieces=pieces)
    made = Manifest("hidden", "hidden", "t", "0", {}, {}, {}, facts)
    complete(hidden, made, started=0.0)
    found = read_hidden(hidden)
    assert found.spans == spans and found.kind("cls") == "span" and found.width == 16 * spans
    assert not (hidden / "step-00000000" / "cls.npy").exists()
    tables = {s: {r["example_id"]: r for r in read_table(task / f"{s}.parquet").to_pylist()}
              for s in ("train", "validation")}
    assert len(found.rows("train")) == 60 and len(found.rows("validation")) == len(tables["validation"])
    last = facts["steps"][-1]
    encoder = load_encoder(list_weights(out / "checkpoints")[last])
    values = found.vectors(last)
    for row in range(len(found.labels)):
        example = tables[found.splits[row]][int(found.example_ids[row])]
        assert found.labels[row] == example["label"] and found.sentences[row] == example["sentence"]
        ids, places = naive_pieces(piece_tokenizer(), example["words"])
        with torch.no_grad():
            states = torch.stack(encoder(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states)[:, 0]
        vectors = []
        for start, end in np.array(example["spans"]).reshape(-1, 2):
            of_span = states[:, np.concatenate(places[start:end])]
            vectors.append(of_span.mean(dim=1) if pieces == "mean" else of_span[:, 0])
        np.testing.assert_allclose(values[:, row], torch.cat(vectors, dim=1).numpy(), atol=2e-6)
    assert (
        len(found.sentence_rows) == 4
        and read_array(hidden / "step-00000000" / "tokens.npy").shape[1] == found.offsets[-1]
    )
    for number, row in enumerate(found.sentence_rows):  # the tokens kept are those of that example's sentence
        ids, _ = naive_pieces(piece_tokenizer(), tables["validation"][int(found.example_ids[row])]["words"])
        assert found.token_ids[found.offsets[number]:found.offsets[number + 1]].tolist() == ids


def test_a_search_trains_on_words_too(tmp_path):
    from finetrace.config.training import Dimension, MethodSettings, TuneSettings
    from finetrace.training.tuning import Search, search

    model, task = folders(tmp_path, 2)
    tune = TuneSettings(trials=2, startup_trials=1, evaluations=1,
                        space={"learning_rate": Dimension(low=1e-3, high=1e-2)})
    best, found = search(Search(model, task, settings(max_length=40, epochs=1.0), tune, 0, tmp_path / "scratch",
                                "k" * 24, "t", MethodSettings(kind="lora")))
    assert len(found.trials) == 2 and 1e-3 <= best.learning_rate <= 1e-2

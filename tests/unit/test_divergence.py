"""A training whose loss or gradient is no number stops at once and says so, or goes on where that is asked for."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.training_fixtures import SEEDS, model_folder, recording, settings, task_folder, world_folder

from finetrace.config.models import PretrainSettings
from finetrace.errors import FinetraceError
from finetrace.training import finetune as training
from finetrace.training.finetune import finetune
from finetrace.training.losses import cross_entropy_of
from finetrace.training.pretrain import pretrain
from finetrace.training.trainer import NonFiniteError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("divergence")
    model_folder(root / "model")
    task_folder(root / "task", {"train": 32, "validation": 8})
    return root


def train(root, where, record=None, model="model", **changes):
    (where / "out").mkdir(exist_ok=True)
    return finetune(root / model, root / "task", settings(epochs=1.0, **changes),
                    record or recording(checkpoints="none", evaluate="none", probe="none"), SEEDS,
                    scratch=where / "scratch", out=where / "out", name="mine")


@pytest.mark.parametrize("rate", [1e30, float("inf")])
def test_the_first_loss_that_is_no_number_ends_the_training(root, tmp_path, rate):
    with pytest.raises(NonFiniteError, match=r"^step 1: the loss is nan \(example_id (\d+, ){7}\d+\); ") as error:
        train(root, tmp_path, learning_rate=rate, max_grad_norm=0.0)
    assert "lower learning_rate" in str(error.value) and "max_grad_norm: 1.0" in str(error.value)
    assert "record.on_nonfinite: record" in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_rows_are_those_whose_loss_is_no_number(root, tmp_path, monkeypatch):
    whole = cross_entropy_of

    def spoilt(outputs, labels):
        losses, logits = whole(outputs, labels)
        return losses + torch.tensor([float("inf")] + [0.0] * (len(losses) - 1)), logits

    monkeypatch.setattr(training, "loss_of", lambda *_: spoilt)
    with pytest.raises(NonFiniteError, match=r"^step 0: the loss is inf \(example_id \d+\); "):
        train(root, tmp_path, accumulate=1)


def test_a_gradient_that_is_no_number_ends_the_training(root, tmp_path, monkeypatch):
    whole = cross_entropy_of

    def spoilt(outputs, labels):
        losses, logits = whole(outputs, labels)
        return losses + (logits[:, 0] - logits[:, 0].detach()).abs().sqrt(), logits  # its slope at 0 is infinite

    monkeypatch.setattr(training, "loss_of", lambda *_: spoilt)
    with pytest.raises(NonFiniteError, match=r"^step 0: the gradient's norm is (nan|inf) \(example_id "):
        train(root, tmp_path)


def test_an_update_after_which_the_weights_are_no_numbers_is_noticed(root, tmp_path):
    with pytest.raises(NonFiniteError, match="after the last update: weights of "):
        train(root, tmp_path, learning_rate=float("inf"), max_steps=1)


def test_an_evaluation_that_is_no_number_ends_the_training(root, tmp_path):
    with pytest.raises(NonFiniteError, match="after 1 updates: the loss on validation is nan"):
        train(root, tmp_path, recording(checkpoints="none", evaluate={"every": 1}), learning_rate=float("inf"),
              max_steps=2)


def test_a_divergence_can_be_recorded(root, tmp_path, caplog):
    facts = train(root, tmp_path, recording(checkpoints="none", evaluate="none", on_nonfinite="record"),
                  learning_rate=1e30, max_grad_norm=0.0)
    assert facts["diverged_at_step"] == 1
    losses = pq.read_table(tmp_path / "out" / "history.parquet")["loss"].to_numpy()
    assert np.isfinite(losses[0]) and not np.isfinite(losses[1:]).any()
    assert "the training diverged at step 1 of 4" in caplog.text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["validation/loss"] is None


def test_a_training_that_converges_says_nothing_of_divergence(root, tmp_path):
    for name, wanted in (("a", "stop"), ("b", "record")):
        (tmp_path / name).mkdir()
        facts = train(root, tmp_path / name, recording(checkpoints="none", on_nonfinite=wanted))
        assert "diverged_at_step" not in facts
    for file in ("signals.parquet", "history.parquet", "metrics.json"):
        assert (tmp_path / "a" / "out" / file).read_bytes() == (tmp_path / "b" / "out" / file).read_bytes()


def test_weights_that_are_no_numbers_are_refused_before_training(root, tmp_path):
    folder = model_folder(root / "spoilt")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FinetraceError, match=r"spoilt: its weights bert.encoder.layer.0.output.dense.weight hold NaN"):
        train(root, tmp_path, model="spoilt")


def test_masked_word_training_stops_too(tmp_path):
    wanted = PretrainSettings(layers=1, width=16, heads=2, feedforward=16, steps=3, batch_size=8, learning_rate=1e30,
                              warmup=0.0, max_grad_norm=0.0, checkpoints="none", evaluate="none", precision="fp32",
                              max_tokens=16)
    (tmp_path / "out").mkdir()
    with pytest.raises(NonFiniteError, match=r"step \d: the "):
        pretrain(wanted, world_folder(tmp_path / "world"), 1, scratch=tmp_path / "scratch", out=tmp_path / "out",
                 model_out=tmp_path / "model", name="mine")

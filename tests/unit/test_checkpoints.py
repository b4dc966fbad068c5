"""A checkpoint counts only when it is whole."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.training_fixtures import bert_config

from finetrace.store.checkpoints import MARKER, checkpoint_name, is_complete, list_weights, mark
from finetrace.store.files import sha256_file
from finetrace.training.checkpoints import newest_state, save_weights


@pytest.fixture
def model():
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(bert_config())


def test_weights_come_back_bit_for_bit(model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    save_weights(model, tmp_path, 128)
    folder = tmp_path / "step-00000128"
    assert checkpoint_name(128) == folder.name
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, "config.json", "model.safetensors"]
    marker = json.loads((folder / MARKER).read_text())
    assert marker["step"] == 128
    assert marker["sha256"] == {"model.safetensors": sha256_file(folder / "model.safetensors")}
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())


def test_equal_weights_are_equal_bytes_and_replace_older_ones(model, tmp_path):
    save_weights(model, tmp_path, 1)
    before = sha256_file(tmp_path / checkpoint_name(1) / "model.safetensors")
    save_weights(model, tmp_path, 1)
    assert sha256_file(tmp_path / checkpoint_name(1) / "model.safetensors") == before
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint_name(1)]


def test_only_whole_checkpoints_are_listed(model, tmp_path):
    for step in (0, 1, 2, 4, 10):
        save_weights(model, tmp_path, step)
    (tmp_path / checkpoint_name(1) / MARKER).unlink()
    (tmp_path / checkpoint_name(2) / MARKER).write_text('{"files": {"mod')
    weights = tmp_path / checkpoint_name(4) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert list(list_weights(tmp_path)) == [0, 10]
    assert list_weights(tmp_path / "absent") == {}


def state(folder, step, size=100):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"x" * size)
    mark(path, step)
    return path


def test_the_newest_whole_state_is_taken_and_broken_ones_are_removed(tmp_path):
    assert newest_state(tmp_path / "absent") is None
    old, middle, new = state(tmp_path, 9), state(tmp_path, 10), state(tmp_path, 100)
    assert newest_state(tmp_path) == new
    (new / "optimizer.pt").write_bytes(b"x" * 50)
    assert newest_state(tmp_path) == middle
    assert not new.exists()
    (middle / MARKER).unlink()
    assert newest_state(tmp_path) == old
    (old / "optimizer.pt").unlink()
    assert newest_state(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_another_marker_is_not_complete(tmp_path):
    path = state(tmp_path, 1)
    for text in ("[]", "null", '"files"', "{}", ""):
        (path / MARKER).write_text(text)
        assert not is_complete(path), text

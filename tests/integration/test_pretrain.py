"""Pre-training: masks as Devlin et al. describe them, exact resumption, and what the stage hands on."""

import dataclasses
import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.training_drills import digests, pretrain_job, run
from tests.training_fixtures import tokenizer, world_folder

from finetrace.config.models import PretrainSettings
from finetrace.models.load import load_classifier, load_tokenizer
from finetrace.store.tables import read_table
from finetrace.training.checkpoints import list_weights
from finetrace.training.pretrain import mask_words, masked_loss, pretrain

SETTINGS = PretrainSettings(layers=2, width=16, heads=2, feedforward=32, dropout=0.1, steps=24, batch_size=16, warmup=0.25,
                           evaluate={"every": 8})
FIRST_WORD = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrain")
    world_folder(root / "world")
    return root


def masks(rate=0.15, replace=0.8, rows=400, width=30):
    generator = np.random.default_rng(0)
    ids = generator.integers(FIRST_WORD, 41, (rows, width))
    ids[:, 0], ids[:, -1], ids[: rows // 2, 20:] = 2, 3, 0
    special = ids < FIRST_WORD
    inputs, targets = mask_words(ids, special, 4, np.arange(FIRST_WORD, 41),
                                 PretrainSettings(mask_rate=rate, mask_replace=replace), np.random.default_rng(1))
    return ids, special, inputs, targets


def test_masks_have_the_published_shares():
    ids, special, inputs, targets = masks()
    chosen = targets != -100
    assert not (chosen & special).any()
    assert np.array_equal(targets[chosen], ids[chosen])
    assert np.array_equal(inputs[~chosen], ids[~chosen])
    words = (~special).sum()
    assert chosen.sum() / words == pytest.approx(0.15, abs=0.015)
    masked, kept = inputs[chosen] == 4, inputs[chosen] == ids[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=0.03)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 36, abs=0.03)
    assert (inputs[chosen][~masked] >= FIRST_WORD).all(), "no special token stands in"
    assert chosen.any(axis=1).all(), "every sentence has a word to predict"


def test_rare_masks_leave_exactly_one_word_and_empty_sentences_none():
    _, _, _, targets = masks(rate=1e-9)
    assert (targets != -100).sum(axis=1).tolist() == [1] * 400
    ids = np.array([[2, 3, 0], [2, 9, 3]])
    _, targets = mask_words(ids, ids < FIRST_WORD, 4, np.arange(5, 41), PretrainSettings(), np.random.default_rng(0))
    assert targets.tolist() == [[-100] * 3, [-100, 9, -100]]


def test_the_mean_of_the_sentences_losses_is_the_mean_over_the_words():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 10), torch.full((4, 6), -100)
    targets[0, 1], targets[0, 2], targets[3, 5] = 4, 7, 1
    losses, nothing = masked_loss(type("Output", (), {"logits": logits}), targets)
    assert nothing is None
    assert losses.shape == (4,)
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, 10), targets.reshape(-1), ignore_index=-100)
    assert losses.mean().item() == pytest.approx(expected.item(), abs=1e-6)
    empty, _ = masked_loss(type("Output", (), {"logits": logits}), torch.full((4, 6), -100))
    assert empty.tolist() == [0.0] * 4


@pytest.fixture(scope="module")
def calm(root):
    assert run(pretrain_job, root / "calm", SETTINGS, 1e9) == 0
    return root / "calm"


def test_the_trajectory_is_like_any_other(calm):
    rows = read_table(calm / "trajectory" / "history.parquet").to_pylist()
    train, evaluations = ([r for r in rows if r["kind"] == k] for k in ("train", "eval"))
    assert [r["step"] for r in train] == list(range(24))
    assert [r["step"] for r in evaluations] == [0, 8, 16, 24]
    assert [train[s]["examples"] for s in (0, 8, 16)] == [0, 115, 230], "each of the 115 sentences once per epoch"
    assert evaluations[-1]["loss"] < evaluations[0]["loss"]
    assert read_table(calm / "trajectory" / "signals.parquet").num_rows == 0
    assert list(list_weights(calm / "trajectory" / "checkpoints")) == [0, 1, 2, 4, 8, 16, 24]
    metrics = json.loads((calm / "trajectory" / "metrics.json").read_text())
    assert metrics["validation/loss"] == evaluations[-1]["loss"]
    rates = [r["learning_rate"] for r in train]
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(2e-3)
    assert rates.index(max(rates)) == 6


def test_the_model_can_be_fine_tuned_with_dropout(calm):
    model = load_classifier(calm / "model", ["no", "yes"], 0)
    assert model.config.hidden_dropout_prob == 0.1
    assert model.config.classifier_dropout is None
    assert load_tokenizer(calm / "model").get_vocab() == tokenizer().get_vocab()
    last = load_file(calm / "trajectory" / "checkpoints" / "step-00000024" / "model.safetensors")
    for name, value in model.bert.state_dict().items():
        if "pooler" not in name:
            assert torch.equal(value, last[f"bert.{name}"]), name


@pytest.mark.parametrize("faults", [
    [("step", 12), ("state, without marker", 3)],
    [("weights being written", 4), ("table being written", 12)],
    pytest.param([("state, half written", 7), ("older state being removed", 3), ("step", 9)], marks=pytest.mark.slow),
    pytest.param([("tables being merged", 1), ("checkpoints being copied", 3)], marks=pytest.mark.slow),
], ids=lambda faults: " then ".join(f"{n} {c}" for n, c in faults))
def test_killed_and_continued_it_ends_with_the_same_bytes(root, calm, faults, request):
    where = root / "".join(c if c.isalnum() else "-" for c in request.node.name)
    for fault in faults:
        assert run(pretrain_job, where, SETTINGS, 0, fault) == -signal.SIGKILL, fault
    assert run(pretrain_job, where, SETTINGS, 0) == 0
    for part in ("trajectory", "model"):
        ours, wanted = digests(where / part), digests(calm / part)
        assert set(ours) == set(wanted)
        assert [n for n in wanted if ours[n] != wanted[n]] == []


@pytest.mark.parametrize("changes", [{"steps": 0}, {"steps": 2, "evaluate": "none", "checkpoints": "none"}],
                         ids=["random weights", "nothing on a schedule"])
def test_runs_with_nothing_to_show(root, tmp_path, changes):
    for name in ("out", "model"):
        (tmp_path / name).mkdir()
    facts = pretrain(dataclasses.replace(SETTINGS, **changes), root / "world", 7, scratch=tmp_path / "s", out=tmp_path / "out",
                     model_out=tmp_path / "model", name="x")
    assert facts["steps"] == changes["steps"]
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert bool(list((tmp_path / "out").iterdir())) == bool(changes["steps"])
    load_classifier(tmp_path / "model", ["a", "b"], 0)


def test_another_seed_is_another_model(root, calm, tmp_path):
    for name in ("out", "model"):
        (tmp_path / name).mkdir()
    pretrain(dataclasses.replace(SETTINGS, steps=0, seed=2), root / "world", 7, scratch=tmp_path / "s", out=tmp_path / "out",
             model_out=tmp_path / "model", name="x")
    pretrained = load_classifier(tmp_path / "model", ["a", "b"], 0).bert.embeddings.word_embeddings.weight
    first = list_weights(calm / "trajectory" / "checkpoints")[0]
    assert not torch.equal(pretrained, load_file(first / "model.safetensors")["bert.embeddings.word_embeddings.weight"])

"""Predictions in evaluation mode and their metrics."""

import numpy as np
import pytest
import torch
from tests.training_fixtures import model_folder, settings, task_folder

from finetrace.inference.evaluate import classification_metrics, cross_entropy, predict
from finetrace.models.load import load_classifier
from finetrace.training.finetune import prepare


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    model = load_classifier(model_folder(root / "model"), ["negative", "positive"], 1)
    return model, prepare(root / "model", task_folder(root / "task", pairs=True), settings(max_length=30), model)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_logits_are_those_of_one_row_at_a_time_in_row_order(ready, batch_size):
    model, prepared = ready
    rows = prepared.splits["validation"]
    got = predict(model, rows, prepared.collator, batch_size)
    model.eval()
    for i in range(len(rows)):
        with torch.no_grad():
            one = model(**{k: torch.tensor([v[i]]) for k, v in rows.features.items()}).logits[0].numpy()
        assert np.abs(got[i] - one).max() < 1e-6
    assert got.dtype == np.float32


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_state_stay_as_they_were(ready, training):
    model, prepared = ready
    model.train(training)
    model.zero_grad()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    first = predict(model, prepared.splits["test"], prepared.collator)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training == training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert np.array_equal(first, predict(model, prepared.splits["test"], prepared.collator))  # no dropout


def test_cross_entropy_equals_torch_and_survives_large_logits():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 4)) * 10, generator.integers(0, 4, 50)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none").numpy()
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-12)
    huge = np.array([[3e4, 0.0]], dtype=np.float32)
    assert cross_entropy(huge, np.array([0]))[0] == 0.0
    assert cross_entropy(huge, np.array([1]))[0] == 3e4
    assert cross_entropy(np.zeros((1, 5)), np.array([2]))[0] == pytest.approx(np.log(5))
    assert huge[0, 0] == 3e4, "the argument is left alone"


def test_metrics_by_hand():
    logits = np.array([[2.0, 0], [0, 1], [0, 3], [1, 0], [0, 2]])  # predicts 0 1 1 0 1
    labels = np.array([0, 1, 0, 1, 1])  # true positives 2, false positives 1, false negatives 1, true negatives 1
    got = classification_metrics(logits, labels)
    assert got["accuracy"] == 3 / 5
    assert got["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert got["macro_f1"] == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert got["matthews"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    assert got["loss"] == pytest.approx(cross_entropy(logits, labels).mean())


def test_degenerate_predictions_have_defined_metrics():
    constant = classification_metrics(np.array([[1.0, 0], [1, 0]]), np.array([1, 1]))
    assert constant["accuracy"] == constant["f1"] == constant["macro_f1"] == constant["matthews"] == 0.0
    three = classification_metrics(np.eye(3)[[0, 1, 1]], np.array([0, 1, 1]))  # class 2 neither present nor predicted
    assert three["macro_f1"] == pytest.approx(2 / 3)
    assert set(three) == {"loss", "accuracy", "macro_f1"}

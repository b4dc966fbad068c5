"""Losses and metrics of tasks that are not of plain classes, against slow formulas and scikit-learn; thresholds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from finetrace.config.training import TrainSettings
from finetrace.errors import FinetraceError
from finetrace.inference.targets import Target, multi_label_metrics, regression_metrics, target_of
from finetrace.inference.thresholds import best_threshold, require_thresholds, threshold_metrics
from finetrace.training.losses import class_weights, loss_of, loss_words

RNG = np.random.default_rng(4)
CLASSES = Target("class", ("a", "b", "c"))
NUMBER = Target("regression", ("score",))
SEVERAL = Target("multi-label", ("a", "b", "c"))


def slow_pearson(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    both = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return both / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def slow_ranks(x):
    """Mean ranks: equal values share theirs."""
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def test_regression_metrics():
    x, y = RNG.integers(0, 6, 40) / 2, RNG.normal(size=40)
    found = regression_metrics(x, y)
    assert found["pearson"] == pytest.approx(slow_pearson(x, y), abs=1e-12)
    assert found["spearman"] == pytest.approx(slow_pearson(slow_ranks(x), slow_ranks(y)), abs=1e-12)
    assert found["loss"] == found["mse"] == pytest.approx(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / 40)
    turned = regression_metrics(3 - 2 * x, y)  # a correlation knows no unit
    assert turned["pearson"] == pytest.approx(-found["pearson"]) and turned["mse"] != pytest.approx(found["mse"])
    assert regression_metrics(np.ones(5), y[:5])["pearson"] == 0.0
    assert math.isnan(regression_metrics(np.array([1.0, np.nan]), y[:2])["pearson"])


def test_multi_label_metrics_are_those_of_scikit_learn():
    for _ in range(20):
        said, named = RNG.random((2, 12, 3)) < 0.4
        found = multi_label_metrics(said, named)
        for name in ("micro", "macro"):
            assert found[f"{name}_f1"] == pytest.approx(f1_score(named, said, average=name, zero_division=0))
        assert found["exact_match"] == pytest.approx(np.mean([list(a) == list(b) for a, b in zip(said, named,
                                                                                                 strict=True)]))
    assert multi_label_metrics(np.zeros((3, 2)), np.zeros((3, 2)))["micro_f1"] == 0.0


def outputs(logits):
    return SimpleNamespace(logits=torch.from_numpy(logits))


@pytest.mark.parametrize("target", [NUMBER, SEVERAL, CLASSES], ids=lambda t: t.kind)
def test_losses_of_torch_and_numpy_are_one(target):
    logits = (5 * RNG.normal(size=(7, len(target.label_names)))).astype(np.float32)
    labels = {"regression": RNG.normal(size=7).astype(np.float32), "class": RNG.integers(0, 3, 7),
              "multi-label": (RNG.random((7, 3)) < 0.5).astype(np.float32)}[target.kind]
    losses, same = loss_of(target, TrainSettings(), labels)(outputs(logits), torch.from_numpy(labels))
    assert losses.shape == (7,) and same.shape == logits.shape
    np.testing.assert_allclose(losses.numpy(), target.losses(logits, labels), rtol=1e-5, atol=1e-6)
    if target.kind == "multi-label":
        p = 1 / (1 + np.exp(-logits.astype(np.float64)))
        slow = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(axis=1)
        np.testing.assert_allclose(target.losses(logits, labels), slow, rtol=1e-9)


def test_weighted_and_smoothed_cross_entropy():
    logits, labels = RNG.normal(size=(6, 3)).astype(np.float32), np.array([0, 0, 0, 1, 1, 0])
    settings = TrainSettings(class_weights={"b": 3.0}, label_smoothing=0.2)
    losses, _ = loss_of(CLASSES, settings, labels)(outputs(logits), torch.from_numpy(labels))
    weights = [1.0, 3.0, 1.0]
    for row, label, loss in zip(logits.astype(np.float64), labels, losses.tolist(), strict=True):
        log_p = [z - math.log(sum(math.exp(v) for v in row)) for z in row]
        aims = [0.2 / 3 + 0.8 * (c == label) for c in range(3)]
        assert loss == pytest.approx(-sum(weights[c] * aims[c] * log_p[c] for c in range(3)), rel=1e-5)
    assert "weighted by class" in loss_words(CLASSES, settings) and "smoothed by 0.2" in loss_words(CLASSES, settings)
    assert loss_words(CLASSES, TrainSettings()) == ""


def test_balanced_weights_make_classes_count_the_same():
    labels = np.array([0] * 6 + [1] * 2)  # of the third class there is none
    weights = class_weights("balanced", labels, ("a", "b", "c"))
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 4, 1.0])
    assert weights[labels].mean() == pytest.approx(1.0)
    assert class_weights({"b": 2}, labels, ("a", "b", "c")).tolist() == [1.0, 2.0, 1.0]
    with pytest.raises(FinetraceError, match="'x' is no class of the task; its classes are a, b, c"):
        class_weights({"x": 2.0}, labels, ("a", "b", "c"))


@pytest.mark.parametrize(("changes", "told"), [
    ({"label_smoothing": 1.0}, "label_smoothing"), ({"class_weights": {"a": 0.0}}, "class_weights.a"),
    ({"class_weights": {}}, "class_weights: is empty"),
])
def test_settings_that_cannot_be(changes, told):
    with pytest.raises(ValueError, match=told):
        TrainSettings(**changes)


def test_the_target_of_a_task():
    assert target_of({"label_names": ["a", "b"], "multi_label": True}).kind == "class"  # refused by `encode`
    assert target_of({"label_names": ["score"], "target": "regression"}) == NUMBER
    assert target_of({"label_names": ["a"], "tags": "bio"}).metrics[-1] == "entity_f1"


# --- thresholds


def f1_at(p, y, threshold):
    said = [a >= threshold for a in p]
    right = sum(a and b for a, b in zip(said, y, strict=True))
    return 2 * right / max(1, sum(said) + sum(y))


def test_the_best_threshold_of_all():
    for _ in range(100):
        p, y = RNG.integers(0, 5, 9) / 4, RNG.random(9) < 0.4
        chosen = best_threshold(p, y)
        assert 0 <= chosen <= 1
        assert f1_at(p, y, chosen) == pytest.approx(max(f1_at(p, y, t) for t in np.linspace(0, 1, 201)))
    assert best_threshold(np.array([0.1, 0.9]), np.array([0, 1])) == 0.5  # nothing is better


def test_thresholds_are_chosen_on_validation_alone():
    two = Target("class", ("no", "yes"))
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 1.0]])
    answers = {"validation": (logits, np.array([0, 1, 1, 1])), "test": (logits, np.array([1, 0, 0, 0]))}
    metrics, chosen = threshold_metrics(answers, two)
    p = 1 / (1 + np.exp([2.0, 1.0, 0.5, -1.0]))
    assert chosen == {"yes": pytest.approx((p[0] + p[1]) / 2)}
    assert metrics == {"validation/f1_chosen": 1.0, "test/f1_chosen": 0.0}
    several = {"validation": (logits, np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=np.float32))}
    found, each = threshold_metrics(several, Target("multi-label", ("x", "y")))
    assert set(found) == {"validation/micro_f1_chosen", "validation/macro_f1_chosen"} and set(each) == {"x", "y"}
    assert found["validation/macro_f1_chosen"] >= multi_label_metrics(logits > 0, several["validation"][1])["macro_f1"]


@pytest.mark.parametrize("target", [NUMBER, CLASSES], ids=lambda t: t.kind)
def test_thresholds_need_two_classes(target):
    with pytest.raises(FinetraceError, match=r"train\.thresholds: chosen needs two classes"):
        require_thresholds(target)

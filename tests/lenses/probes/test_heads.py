"""Adam heads: the loop oracle, the study's dropout on the logit, independence of the batch, refused input."""

import numpy as np
import pytest
from tests.oracles import probes as oracle

from finetrace.lenses.probes import heads as lens
from finetrace.lenses.probes.linear import score


def problems(count: int = 2, rows: int = 70, dim: int = 6, classes: int = 2, signal: float = 0.8, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(rows) % classes)
    means = rng.normal(size=(count, classes, dim)) * signal
    return (rng.normal(size=(count, rows, dim)) + means[:, y]).astype(np.float32), y


def train(X, y, test=None, **settings):
    return lens.train_heads(X, y, test or {}, **({"epochs": 3, "seeds": (7,)} | settings))


@pytest.mark.parametrize("head", ["xlm", "roberta"])
@pytest.mark.parametrize("parity", [False, True])
def test_without_dropout_a_head_is_trained_as_the_loop_says(head: str, parity: bool) -> None:
    import torch

    X, y = problems(2, 70, 6, 2 if parity else 3)
    heads = train(X, y, head=head, parity=parity, dropout=0.0)
    draw, outputs = torch.Generator().manual_seed(7), 1 if parity else 3
    first = []
    for inputs, width in ((6, 6), (6, outputs)) if head == "roberta" else ((6, outputs),):
        limit = np.sqrt(6 / (inputs + width))
        first += [(2 * torch.rand(inputs, width, generator=draw).numpy() - 1) * limit, np.zeros(width)]
        assert np.abs(first[-2]).max() <= limit
    orders = [torch.randperm(70, generator=draw).numpy() for _ in range(3)]
    for p in range(2):
        expected = oracle.adam_head(X[p], y, first, orders, rate=1e-3, batch=32,
                                    logits="sigmoid" if parity else "softmax")
        names = (["dense.weight", "dense.bias"] if head == "roberta" else []) + ["out.weight", "out.bias"]
        for name, values in zip(names, expected, strict=True):
            np.testing.assert_allclose(heads.parameters[name][0, p].reshape(values.shape), values, atol=2e-6,
                                       err_msg=name)
            assert heads.parameters[name].dtype == np.float32


def test_the_curves_of_the_last_epoch_are_the_scores_of_the_finished_head() -> None:
    X, y = problems(2, 2500, 6, 3)  # more rows than one block of an evaluation
    heads = train(X[:, :1500], y[:1500], {"validation": (X[:, 1500:], y[1500:])}, seeds=(1, 2), batch_size=500)
    found = lens.head_logits(heads, X)
    assert found.shape == (2, 2, 2500, 3) and set(heads.loss) == {"training", "train", "validation"}
    for split, rows in (("train", slice(0, 1500)), ("validation", slice(1500, None))):
        scores = score(found[:, :, rows], y[rows], heads.classes)
        np.testing.assert_allclose(heads.accuracy[split][..., -1], scores.accuracy, atol=1e-9)
        np.testing.assert_allclose(heads.loss[split][..., -1], scores.loss, atol=1e-5)
        assert heads.loss[split].shape == (2, 2, 3)


def test_logits_with_parity_are_zero_and_z() -> None:
    X, y = problems()
    heads = train(X, y, parity=True)
    found = lens.head_logits(heads, X)
    assert (found[..., 0] == 0).all()
    z = X[1] @ heads.parameters["out.weight"][0, 1] + heads.parameters["out.bias"][0, 1]
    np.testing.assert_allclose(found[0, 1, :, 1], z[:, 0], atol=1e-5)


def test_dropout_on_the_logit_costs_a_tenth_of_the_training_accuracy() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(20_000) < 0.6).astype(int)  # share of class 0: 0.4
    X = (rng.normal(size=(1, 20_000, 1)) + 1.7 * (2 * y - 1)[None, :, None]).astype(np.float32)
    heads = train(X, y, {"test": (X, y)}, parity=True, epochs=4, batch_size=100, learning_rate=0.01)
    a, training = heads.accuracy["train"][0, 0, -1], heads.accuracy["training"][0, 0, -1]
    assert a > 0.93
    assert training == pytest.approx(0.9 * a + 0.1 * np.mean(y == 0), abs=0.01)
    assert heads.accuracy["test"][0, 0, -1] == a  # evaluation has no dropout
    without = train(X, y, parity=True, epochs=4, batch_size=100, learning_rate=0.01, dropout=0.0)
    assert without.accuracy["train"][0, 0, -1] == pytest.approx(a, abs=0.005)
    assert without.accuracy["training"][0, 0, -1] == pytest.approx(a, abs=0.005)


def test_dropout_zeroes_the_share_it_should_and_keeps_the_mean() -> None:
    import torch

    drop = lens._Dropout([torch.Generator().manual_seed(k) for k in (0, 1)], 0.1, "cpu")
    found = drop(torch.ones(2, 3, 200, 200)).numpy()
    assert (found == 0).mean() == pytest.approx(0.1, abs=0.005)
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.9], rtol=1e-6)
    assert found.mean() == pytest.approx(1, abs=0.005)
    np.testing.assert_array_equal(found[:, 0], found[:, 2])  # the same rows and inputs for every problem
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("head", ["xlm", "roberta"])
def test_problems_and_seeds_do_not_see_each_other(head: str) -> None:
    X, y = problems(4, 50, 5)
    whole = train(X, y, {"test": (X, y)}, head=head, seeds=(1, 2, 3))
    part = train(X[[2, 0]], y, {"test": (X[[2, 0]], y)}, head=head, seeds=(3, 1))
    for name, values in part.parameters.items():
        np.testing.assert_allclose(values, whole.parameters[name][[2, 0]][:, [2, 0]], atol=1e-6, err_msg=name)
    np.testing.assert_allclose(part.loss["test"], whole.loss["test"][[2, 0]][:, [2, 0]], atol=1e-6)
    assert (whole.parameters["out.weight"][0] != whole.parameters["out.weight"][1]).all()


def test_the_same_seed_gives_the_same_bits() -> None:
    X, y = problems()
    one, two = (train(X, y, head="roberta") for _ in range(2))
    for name in one.parameters:
        np.testing.assert_array_equal(one.parameters[name], two.parameters[name])
    np.testing.assert_array_equal(one.loss["training"], two.loss["training"])


@pytest.mark.parametrize(("head", "parity"), [("xlm", False), ("roberta", False), ("xlm", True), ("roberta", True)])
def test_separable_classes_are_learned(head: str, parity: bool) -> None:
    X, y = problems(2, 300, 8, 2, signal=4.0)
    test = {"test": (X[:, 200:], y[200:])}
    heads = train(X[:, :200], y[:200], test, head=head, parity=parity, epochs=40, learning_rate=0.01)
    assert (heads.accuracy["test"][..., -1] == 1).all()
    assert (heads.loss["test"][..., -1] < heads.loss["test"][..., 0]).all()


def test_labels_that_training_lacks_count_as_wrong_and_not_towards_the_loss() -> None:
    X, y = problems(2, 60, 4, 3)
    late = np.where(y == 0, 9, y)
    heads = train(X, y, {"all": (X, y), "late": (X, late), "known": (X[:, y > 0], y[y > 0]), "none": (X, y * 0 + 9)})
    known = (y > 0).mean()
    np.testing.assert_allclose(heads.accuracy["late"], heads.accuracy["known"] * known, atol=1e-9)
    np.testing.assert_allclose(heads.loss["late"], heads.loss["known"], atol=1e-6)
    assert (heads.accuracy["none"] == 0).all() and np.isnan(heads.loss["none"]).all()


def test_bad_input_is_refused() -> None:
    X, y = problems(2, 60, 4, 3)
    with pytest.raises(ValueError, match=r"parity: .* one logit, for 2 classes; there are 3"):
        train(X, y, parity=True)
    with pytest.raises(ValueError, match="head: 'mlp' is none of xlm, roberta"):
        train(X, y, head="mlp")
    with pytest.raises(ValueError, match="the labels hold 1 class"):
        train(X, y * 0)
    with pytest.raises(ValueError, match="X of the split 'test' holds NaN"):
        train(X, y, {"test": (X * np.nan, y)})

"""The kernel times a vector: against the kernel, and against a small step of training."""

import copy

import numpy as np
import pytest
import torch
from tests.families import FAMILIES
from tests.kernel_models import CLASSES, family_batches, family_model, far, small, vectors

from finetrace.lenses.kernel.ntk import ntk, ntk_vector_product

ROUNDED = {"flaubert", "modernbert"}  # their softmax or their rotations are float32 in any case
DOUBLE = {"dtype": torch.float64, "parameters": "all"}
DELTA = np.random.default_rng(0).normal(size=(5, CLASSES))


def times(kernel, delta):
    return np.einsum("ncmd,md->nc", kernel, delta)


@pytest.mark.parametrize("family", FAMILIES)
def test_product_is_that_of_the_kernel(family):
    model, batches = family_model(family), family_batches(family)
    kernel = ntk(model, batches, **DOUBLE)
    found = ntk_vector_product(model, batches, DELTA, **DOUBLE)
    tolerance = 1e-7 if family in ROUNDED else 1e-12
    assert far(found.ft_effective, times(kernel.ft_effective, DELTA)) < tolerance
    assert far(found.pretrain_effective, times(kernel.pretrain_effective, DELTA)) < tolerance
    ratio = [np.linalg.norm(f, axis=1) / np.linalg.norm(f + p, axis=1) for f, p in (
        (found.ft_effective, found.pretrain_effective),
        (times(kernel.ft_effective, DELTA), times(kernel.pretrain_effective, DELTA)))]
    assert ratio[0].mean() == pytest.approx(ratio[1].mean(), rel=10 * tolerance), "the FT ratio"


def test_product_onto_other_examples():
    model, others = family_model("bert"), family_batches("bert", ((4, 7),), seed=9)
    batches = family_batches("bert")
    kernel = ntk(model, batches, others, **DOUBLE).rows("eval")
    found = ntk_vector_product(model, batches, DELTA, others, **DOUBLE)
    assert far(found.ft_effective, times(kernel.ft_effective, DELTA)) < 1e-12
    assert found.features.shape == (4, 16)


def test_product_over_some_parameters():
    model, batches = family_model("bert"), family_batches("bert")
    for parameters in ("head", "encoder", lambda name: "layer.1" in name):
        kernel = ntk(model, batches, dtype=torch.float64, parameters=parameters)
        found = ntk_vector_product(model, batches, DELTA, dtype=torch.float64, parameters=parameters)
        assert far(found.ft_effective + found.pretrain_effective, times(kernel.full, DELTA)) < 1e-12
        assert found.features.any() == kernel.ft_effective.any()


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_small_step_of_training_changes_logits_and_features_as_foretold(family):
    model, batches = family_model(family).double(), family_batches(family)
    labels = torch.tensor([0, 2, 1, 1, 0])

    def outputs(of):
        found = []
        hook = of.classifier.register_forward_pre_hook(lambda module, args: found.append(args[0]))
        logits = torch.cat([of(**batch).logits for batch in batches])
        hook.remove()
        return logits, torch.cat(found)

    logits, features = outputs(model)
    delta = (torch.nn.functional.one_hot(labels, CLASSES) - logits.softmax(dim=1)).detach().numpy()
    found = ntk_vector_product(model, batches, delta, parameters="all")
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    errors = []
    for rate in (1e-4, 1e-5):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, old in zip(moved.parameters(), model.parameters(), strict=True):
                p -= rate * (0 if old.grad is None else old.grad)
            new_logits, new_features = outputs(moved)
        changes = (new_logits - logits).detach().numpy() / rate, (new_features - features).detach().numpy() / rate
        errors.append((far(changes[0], found.ft_effective + found.pretrain_effective), far(changes[1], found.features)))
    assert max(errors[1]) < 1e-2
    for first, second in zip(*errors, strict=True):
        assert second == pytest.approx(first / 10, rel=0.2), "the error is of second order"


def test_product_leaves_the_model_as_it_was():
    model, batches = family_model("bert").train(), family_batches("bert")
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    ntk_vector_product(model, batches, DELTA, parameters="all")
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not model.classifier._forward_pre_hooks and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("delta", [DELTA[:4], DELTA[:, :2], np.full((5, CLASSES), np.nan)])
def test_a_delta_that_does_not_fit_is_refused(delta):
    with pytest.raises(ValueError, match="finite numbers of shape"):
        ntk_vector_product(family_model("bert"), family_batches("bert"), delta)


def test_a_model_whose_logits_are_not_its_heads_output_is_refused():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small(torch.nn.Linear(4, 4), 4)

        def forward(self, x):
            self.inner(x)
            return self.inner(2 * x)

    model = Twice()
    with pytest.raises(ValueError, match="not simply the output"):
        ntk_vector_product(model, [{"x": vectors(5, 4)}], DELTA, parameters="all", head=model.inner.head)

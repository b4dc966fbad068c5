"""Forms of gradients and their inner products: both routes, tables, signs, operations of every kind, and models worked
out by hand."""

import logging

import numpy as np
import pytest
import torch
from tests.kernel_models import CLASSES, family_batches, family_model, far, head_names, small, vectors
from tests.oracles import kernel as oracle

from finetrace.lenses.kernel import gradients
from finetrace.lenses.kernel.gradients import Lookup, Outer, Vector
from finetrace.lenses.kernel.gram import Gram, Layout
from finetrace.lenses.kernel.ntk import ntk
from finetrace.models.head import last_linear

LAYOUT = Layout(classes=2, bounds=(0, 3, 5, 8), columns=2)  # five train examples in two chunks, three others
DOUBLE = {"dtype": torch.float64, "parameters": "all"}


def gram(formula="sgd", layout=LAYOUT):
    return Gram(layout, formula, torch.device("cpu"))


def outer(tokens=(4, 1, 6), size_in=5, size_out=3):
    """Pieces of random a and g in two batches per chunk, some tokens without g; and the gradients themselves, (logit,
    entry)."""
    generator, form, full = torch.Generator().manual_seed(0), Outer(), torch.zeros(8, 2, size_out, size_in,
                                                                                   dtype=torch.float64)
    for examples, width in (([1, 0], tokens[0]), ([2], tokens[0] + 1), ([3, 4], tokens[1]), ([5, 7, 6], tokens[2])):
        a = torch.randn(len(examples), width, size_in, dtype=torch.float64, generator=generator)
        g = torch.randn(len(examples), width, 2, size_out, dtype=torch.float64, generator=generator)
        g[0, width // 2:] = 0
        form.put(torch.tensor(examples), a, g)
        full[examples] = torch.einsum("ntco,nti->ncoi", g, a)
    return form, full.flatten(2).flatten(0, 1)


@pytest.mark.parametrize("elementwise", [-1e9, 1e9, 0])
@pytest.mark.parametrize("memory", [1.0, 900.0, 1e9])
def test_both_routes_give_the_products_of_gradients(monkeypatch, elementwise, memory):
    monkeypatch.setattr(gradients, "ELEMENTWISE", elementwise)  # decides for tokens, gradients, or both
    form, full = outer()
    found = gram()
    form.add_to(found, memory)
    assert far(found.finished()[0].numpy(), (full @ full[:10].T).numpy()) < 1e-14
    assert not form.pieces, "what was used is given back"


def test_few_tokens_go_by_pairs_of_tokens_and_many_by_gradients():
    sizes = {"size_in": 768, "size_out": 768, "classes": 2, "logits": 500}
    assert not gradients.gradients_pay(1, 1, **sizes) and not gradients.gradients_pay(16, 16, **sizes)
    assert gradients.gradients_pay(32, 32, **sizes) and gradients.gradients_pay(128, 128, **sizes)
    assert not gradients.gradients_pay(128, 1, **sizes), "many tokens against one are cheap"


@pytest.mark.parametrize("formula", ["sgd", "signgd", "asymmetric-signgd"])
@pytest.mark.parametrize("frequent", [1, 4, 100])
@pytest.mark.parametrize("memory", [1.0, 1e9])
def test_tables_of_embeddings(monkeypatch, formula, frequent, memory):
    monkeypatch.setattr(gradients, "FREQUENT", frequent)
    generator, form, full = torch.Generator().manual_seed(1), Lookup(), torch.zeros(8, 2, 6, 3, dtype=torch.float64)
    for examples in ([0, 1, 2], [4, 3], [5, 6, 7]):
        ids = torch.randint(-1, 6, (len(examples), 4), generator=generator)
        g = torch.randn(len(examples), 4, 2, 3, dtype=torch.float64, generator=generator)
        g[-1, 2:] = 0
        form.put(torch.tensor(examples), ids, g)
        for place, example in enumerate(examples):
            for token, row in enumerate(ids[place].tolist()):
                if row >= 0:
                    full[example, :, row] += g[place, token]
    found, full = gram(formula), full.flatten(2).flatten(0, 1)
    form.add_to(found, memory)
    left, right = (full.sign() if signed else full for signed in (formula != "sgd", formula == "signgd"))
    assert far(found.finished()[0].numpy(), (left @ right[:10].T).numpy()) < 1e-14
    if formula.startswith("asymmetric"):
        assert far(found.sums[1].numpy(), (right @ left[:10].T).numpy()) < 1e-14


@pytest.mark.parametrize("formula", ["signgd", "asymmetric-signgd"])
def test_formulas_with_signs(formula):
    model, batches = family_model("bert"), family_batches("bert", ((3, 9), (2, 5), (4, 7)))
    names = [name for name, _ in model.named_parameters() if "key.bias" not in name]  # rounding, in the oracle
    jacobian, of_head = oracle.jacobian(model, batches, names), head_names(model, last_linear(model))
    right = np.sign if formula == "signgd" else np.array
    pretrain, finetune = oracle.kernel(jacobian, of_head, np.sign, right)
    found = ntk(model, batches[:2], batches[2:], **DOUBLE, formula=formula, groups=True)
    assert far(found.pretrain_effective, pretrain[:, :, :5]) < 1e-12 and far(found.ft_effective,
                                                                             finetune[:, :, :5]) < 1e-12
    assert far(sum(found.groups.values()), found.ft_effective) < 1e-12
    if formula == "asymmetric-signgd":
        pretrain, finetune = oracle.kernel(jacobian, of_head, right, np.sign)
        assert far(found.flipped.full, (pretrain + finetune)[:, :, :5]) < 1e-12
        assert far(found.rows("eval").flipped.full, (pretrain + finetune)[5:, :, :5]) < 1e-12
    else:
        assert found.flipped is None


class Odd(torch.nn.Module):
    """Operations that no table of known ones has, a parameter used twice in different ways, one by an unusual norm."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(7, 6, padding_idx=0)
        self.mix, self.scale, self.power = (torch.nn.Parameter(torch.randn(n)) for n in (4, 6, 1))
        self.norm, self.gain = torch.nn.RMSNorm(6), torch.nn.Parameter(torch.randn(6))
        self.conv = torch.nn.Parameter(torch.randn(6, 6))
        self.shift = torch.nn.Parameter(torch.randn(6))

    def forward(self, x):
        states = self.table(x)
        states = states + self.table(torch.arange(4).unsqueeze(0))  # positions, common to all rows, from the same table
        states = torch.nn.functional.linear(states, self.table.weight[:6])
        states = self.norm(states) * self.gain + self.shift
        states = torch.addmm(self.shift, states.view(-1, 6), self.conv).view_as(states)
        states = self.scale * torch.tanh(states) * self.power.exp()
        return torch.einsum("ntd,t->nd", states, self.mix)


def test_unknown_operations_are_left_to_autograd_and_named_in_one_line(caplog):
    torch.manual_seed(0)
    model = small(Odd(), 6)
    batches = [{"x": torch.randint(0, 7, (rows, 4))} for rows in (3, 2)]
    jacobian = oracle.jacobian(model, batches, [name for name, _ in model.named_parameters()])
    pretrain, finetune = oracle.kernel(jacobian, ["head.weight", "head.bias"])
    with caplog.at_level(logging.INFO, "finetrace"):
        found = ntk(model, batches, parameters="all")
    assert far(found.ft_effective, finetune) < 1e-13 and far(found.pretrain_effective, pretrain) < 1e-13
    (line,) = [r.getMessage() for r in caplog.records if "row by row" in r.getMessage()]
    assert sorted(line.split(": ")[-1].split(", ")) == ["phi.mix", "phi.power", "phi.table.weight"]


def test_padding_of_a_table_gets_no_gradient():
    table = torch.nn.Embedding(5, 4, padding_idx=3)
    model = small(torch.nn.Sequential(table, torch.nn.Flatten()), 8)
    batch = {"x": torch.tensor([[3, 1], [3, 2], [1, 1]])}
    found = ntk(model, [batch], parameters="encoder")
    weight = model.head.weight.detach().numpy()
    second = weight[:, 4:] @ weight[:, 4:].T
    np.testing.assert_allclose(found.ft_effective[0, :, 0], second, atol=1e-14)
    assert not found.ft_effective[0, :, 1].any(), "the two have the padding in common, and no other word"


def test_tied_linear_layers_add_before_the_product():
    linear = torch.nn.Linear(4, 4)
    model, batches = small(torch.nn.Sequential(linear, torch.nn.Tanh(), linear), 4), [{"x": vectors(3, 4)}]
    jacobian = oracle.jacobian(model, batches, [name for name, _ in model.named_parameters()])
    assert far(ntk(model, batches, parameters="all").full, sum(oracle.kernel(jacobian, []))) < 1e-13


def test_input_that_is_overwritten_is_noticed():
    class Overwriting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(4, 4)

        def forward(self, x):
            y = x.clone()
            out = self.first(y)
            with torch.no_grad():
                y.zero_()
            return out

    with pytest.raises((ValueError, RuntimeError), match=r"in.?place"):
        ntk(small(Overwriting(), 4), [{"x": vectors(3, 4)}], parameters="all")


def test_fixed_features_give_their_gram_matrix():
    model, x = small(torch.nn.Identity(), 4), vectors(5, 4)
    found = ntk(model, [{"x": x[:2]}, {"x": x[2:]}], parameters="all")
    np.testing.assert_allclose(found.full, np.einsum("nm,cd->ncmd", x @ x.T + 1, np.eye(CLASSES)), atol=1e-13)
    assert not found.ft_effective.any()
    without = ntk(small(torch.nn.Identity(), 4, bias=False), [{"x": x}], parameters="all")
    np.testing.assert_allclose(without.full, np.einsum("nm,cd->ncmd", x @ x.T, np.eye(CLASSES)), atol=1e-13)


def test_linear_features_worked_by_hand():
    model, x = small(torch.nn.Linear(4, 6, bias=False), 6), vectors(5, 4)
    weight = model.head.weight.detach().numpy()
    expected = np.einsum("nm,cd->ncmd", x @ x.T, weight @ weight.T)
    assert far(ntk(model, [{"x": x}], parameters="all").ft_effective, expected) < 1e-13


def test_adapters_of_linear_features_worked_by_hand():
    from peft import LoraConfig, inject_adapter_in_model

    x, size_in, rank = vectors(5, 4), 4, 3
    found = {}
    for alpha in (8, 16):
        model = small(torch.nn.Sequential(torch.nn.Linear(size_in, 6, bias=False)), 6)
        weight = model.head.weight.detach().numpy()
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=["phi.0"]), model)
        model.double()
        matrices = dict(model.named_parameters())
        down = next(p for name, p in matrices.items() if "lora_A" in name)
        found[alpha] = ntk(model, [{"x": x}], parameters="lora", groups=lambda name: "A" if "lora_A" in name else "B")
        inner = (x @ down.T @ down @ x.T).detach().numpy()
        expected = (alpha / rank) ** 2 * np.einsum("nm,cd->ncmd", inner, weight @ weight.T)
        assert far(found[alpha].ft_effective, expected) < 1e-13 and not found[alpha].groups["A"].any()
        if alpha == 8:  # the mean over matrices A as they are drawn, U(-1/sqrt(in), 1/sqrt(in)) with variance 1/(3 in)
            total = np.zeros_like(expected)
            for seed in range(200):
                torch.manual_seed(seed)
                with torch.no_grad():
                    torch.nn.init.kaiming_uniform_(down, a=5**0.5)
                total += ntk(model, [{"x": x}], parameters="lora").ft_effective / 200
            plain = np.einsum("nm,cd->ncmd", x @ x.T, weight @ weight.T)
            assert far(total, (alpha / rank) ** 2 * rank / (3 * size_in) * plain) < 0.15
    assert far(found[16].ft_effective, 4 * found[8].ft_effective) < 1e-13


def test_heads_whose_rows_sum_to_zero_lose_a_class_of_rank():
    model, batches = family_model("bert"), family_batches("bert")
    weight = np.random.default_rng(0).normal(size=(CLASSES, 16))
    (found,) = ntk(model, batches, **DOUBLE, heads=[(weight - weight.mean(axis=0), np.zeros(CLASSES))])
    assert np.linalg.matrix_rank(found.ft_effective.reshape(15, 15), tol=1e-9) == 5 * (CLASSES - 1)
    assert np.linalg.matrix_rank(ntk(model, batches, **DOUBLE).ft_effective.reshape(15, 15), tol=1e-9) == 15


def test_vectors_are_put_in_the_order_of_the_examples():
    form, values = Vector(), vectors(8, 2, 3)
    for examples in ([1, 0, 2], [3, 4], [7, 5, 6]):
        form.put(torch.tensor(examples), values[examples])
    found, flat = gram(), values.flatten(0, 1)
    form.add_to(found, 1.0)
    assert far(found.finished()[0].numpy(), (flat @ flat[:10].T).numpy()) < 1e-14

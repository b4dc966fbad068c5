"""Products of loss gradients against one backward pass per example, in float64: targets, methods, words, blocks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.families import FAMILIES, config_of, family_folders
from tests.kernel_models import family_batches, family_model, far, stirred
from tests.oracles import influence as oracle
from tests.training_fixtures import tokenizer
from tests.word_tasks import word_task_folder

from finetrace.lenses.influence.losses import Losses, losses_of, plain_labels, truths_of, with_truths
from finetrace.lenses.influence.products import estimate, loss_products, prepare
from finetrace.lenses.kernel.parameters import group
from finetrace.models.head import last_linear
from finetrace.models.load import forward_names, load_classifier
from finetrace.models.rows import Collator, encode

DOUBLE = {"dtype": torch.float64, "parameters": "all"}
EVAL, TRAIN = ((2, 6), (1, 8)), ((3, 9), (2, 5), (4, 7))
PLAIN = {
    "class": lambda logits, y: F.cross_entropy(logits, y),
    "regression": lambda logits, y: ((logits[:, 0] - y) ** 2).sum(),
    "multi-label": lambda logits, y: F.binary_cross_entropy_with_logits(logits, y),
}


def labels_for(shapes, kind: str, classes: int, seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    make = {"class": lambda n: draw.integers(0, classes, n), "regression": lambda n: draw.normal(size=n),
            "multi-label": lambda n: draw.integers(0, 2, (n, classes)).astype(np.float64)}[kind]
    return [make(rows) for rows, _ in shapes]


class Case:
    """A model, its batches of both splits, and the oracle's gradients."""

    def __init__(self, family: str = "bert", kind: str = "class", model=None, names=None):
        self.model = model or family_model(family)
        self.kind, classes = kind, last_linear(self.model).out_features
        plain = [family_batches(family, shapes, seed) for seed, shapes in enumerate((EVAL, TRAIN))]
        labels = [labels_for(shapes, kind, classes, seed) for seed, shapes in enumerate((EVAL, TRAIN))]
        self.eval, self.train = ([with_truths(b, truths_of(y, kind, classes)) for b, y in zip(*both, strict=True)]
                                 for both in zip(plain, labels, strict=True))
        names = names or [name for name, _ in self.model.named_parameters()]
        self.of_eval, self.of_train = (oracle.gradients(self.model, batches, y, PLAIN[kind], names)
                                       for batches, y in zip(plain, labels, strict=True))

    def check(self, found, tolerance: float = 1e-12) -> None:
        assert far(sum(found.pairs.values()), oracle.products(self.of_eval, self.of_train)) < tolerance
        assert far(sum(found.train_squares.values()), oracle.squares(self.of_train)) < tolerance
        assert far(sum(found.eval_squares.values()), oracle.squares(self.of_eval)) < tolerance


@pytest.fixture(scope="module")
def bert() -> Case:
    return Case()


@pytest.mark.parametrize("family", FAMILIES)
def test_products_are_those_of_whole_gradients(family: str) -> None:
    case = Case(family)
    found = loss_products(case.model, case.train, case.eval, **DOUBLE)
    case.check(found)
    assert next(iter(found.pairs.values())).shape == (3, 9)


@pytest.mark.parametrize("kind", ["regression", "multi-label"])
def test_other_targets(kind: str) -> None:
    case = Case(kind=kind)
    case.check(loss_products(case.model, case.train, case.eval, kind, **DOUBLE))


@pytest.mark.parametrize("spans", [1, 2])
def test_words_of_sentences(tmp_path, spans: int) -> None:
    model = load_classifier(family_folders(tmp_path)("bert"), ["a", "b", "c"], seed=4, spans=spans).eval()
    folder = word_task_folder(tmp_path / "task", spans=spans)
    rows = encode(folder / "train.parquet", tokenizer(), 36, forward_names(model))
    plain = [Collator(tokenizer())(rows, index) for index in ([0, 5, 9], [2, 1])]
    plain[0]["slots"], plain[0]["labels"] = plain[0]["slots"].flip(0), plain[0]["labels"].flip(0)  # in any order
    evaluated, train = ([with_truths(batch, truths_of(batch["labels"].numpy(), "class", 3), spans)]
                        for batch in plain)
    names = [name for name, _ in model.named_parameters()]
    of_eval, of_train = (oracle.gradients(model, [{k: v for k, v in batch.items() if k != "labels"}],
                                          [batch["labels"].numpy()], F.cross_entropy, names) for batch in plain)
    found = loss_products(model, train, evaluated, **DOUBLE)
    assert far(sum(found.pairs.values()), oracle.products(of_eval, of_train)) < 1e-12
    assert far(sum(found.train_squares.values()), oracle.squares(of_train)) < 1e-12


def test_two_classes_and_many() -> None:
    from transformers import AutoModelForSequenceClassification

    for classes in (2, 11):
        model = AutoModelForSequenceClassification.from_config(config_of("bert", num_labels=classes))
        case = Case(model=stirred(model))
        case.check(loss_products(case.model, case.train, case.eval, **DOUBLE))


def test_groups_are_their_parameters_and_sum_to_the_whole(bert: Case) -> None:
    found = loss_products(bert.model, bert.train, bert.eval, **DOUBLE)
    head = last_linear(bert.model)
    of = {name: "head" if p is head.weight or p is head.bias else group(name).split("/")[0]
          for name, p in bert.model.named_parameters()}
    assert list(found.pairs) == ["embeddings", "layer-00", "layer-01", "rest", "head"]
    for name, values in found.pairs.items():
        names = [parameter for parameter, where in of.items() if where == name]
        assert far(values, oracle.products(bert.of_eval, bert.of_train, names)) < 1e-12
        assert far(found.train_squares[name], oracle.squares({n: bert.of_train[n] for n in names})) < 1e-12


def test_float32_gives_the_same_to_its_precision(bert: Case) -> None:
    found = loss_products(bert.model, bert.train, bert.eval, parameters="all")
    assert sum(found.pairs.values()).dtype == np.float64
    bert.check(found, 1e-5)


def test_losses_are_the_model_s(bert: Case) -> None:
    found = loss_products(bert.model, bert.train, bert.eval, **DOUBLE)
    model = family_model("bert").double()
    with torch.no_grad():
        logits = torch.cat([model(**{k: v for k, v in b.items() if k != "truths"}).logits for b in bert.train])
    truths = torch.cat([b["truths"] for b in bert.train])
    np.testing.assert_allclose(found.train_losses, F.cross_entropy(logits, truths.argmax(1), reduction="none").numpy())
    assert found.eval_losses.shape == (3,)


def test_little_memory_gives_the_same_in_blocks(bert: Case) -> None:
    whole = loss_products(bert.model, bert.train, bert.eval, **DOUBLE)
    told = []
    for memory in (4e5, 3e4):
        work = prepare(bert.model, bert.train, bert.eval, parameters="all", dtype=torch.float64, memory=memory)
        assert len(work.jobs) > 1
        found = loss_products(bert.model, bert.train, bert.eval, **DOUBLE, memory_bytes=memory,
                              progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (work.batches, work.batches)
        for name, values in whole.pairs.items():
            assert far(found.pairs[name], values) < 1e-12
            assert far(found.eval_squares[name], whole.eval_squares[name]) < 1e-12


def test_low_rank_adapters_are_all_that_is_trained(bert: Case) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = family_model("bert")
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4, target_modules=["query", "value"]), model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p))
    last_linear(model).requires_grad_(True)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    case = Case(model=model, names=names)
    found = loss_products(model, case.train, case.eval, dtype=torch.float64)
    case.check(found)
    assert list(found.pairs) == ["layer-00", "layer-01", "head"]
    required = {name for name, p in model.named_parameters() if p.requires_grad}
    assert required == set(names), "what required a gradient still does"


def test_the_head_alone_is_errors_times_features(bert: Case) -> None:
    found = loss_products(bert.model, bert.train, bert.eval, parameters="head", dtype=torch.float64)
    assert list(found.pairs) == ["head"]
    names = [name for name, p in bert.model.named_parameters() if any(p is q for q in
                                                                     last_linear(bert.model).parameters())]
    assert far(found.pairs["head"], oracle.products(bert.of_eval, bert.of_train, names)) < 1e-12


def test_a_training_example_that_is_an_evaluation_example_has_its_square(bert: Case) -> None:
    found = loss_products(bert.model, bert.train, bert.train, **DOUBLE)
    whole = sum(found.pairs.values())
    np.testing.assert_allclose(np.diag(whole), sum(found.train_squares.values()))
    np.testing.assert_allclose(whole, whole.T, rtol=1e-9, atol=1e-12)


def test_weights_and_smoothing_are_those_of_cross_entropy() -> None:
    draw = np.random.default_rng(0)
    logits, labels = torch.tensor(draw.normal(size=(7, 4))), draw.integers(0, 4, 7)
    weights = np.array([0.5, 1, 2, 3.0])
    found = losses_of(logits, torch.tensor(truths_of(labels, "class", 4, weights, 0.2)), "class")
    expected = F.cross_entropy(logits, torch.tensor(labels), weight=torch.tensor(weights), label_smoothing=0.2,
                               reduction="none")
    torch.testing.assert_close(found, expected)


def test_labels_in_words() -> None:
    assert plain_labels(np.array([1, 0]), "class", ["no", "yes"]) == ["yes", "no"]
    assert plain_labels(np.array([1.5]), "regression", ["score"]) == ["1.5"]
    assert plain_labels(np.array([[1, 1], [0, 0]]), "multi-label", ["a", "b"]) == ["a, b", "none"]


def test_the_cost_is_said_beforehand(bert: Case) -> None:
    cost = estimate(prepare(bert.model, bert.train, bert.eval, parameters="all"))
    assert cost.passes == 1 and cost.seconds > 0 and cost.bytes > 0


def test_bad_input(bert: Case) -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        loss_products(bert.model, [], bert.eval)
    with pytest.raises(ValueError, match="give one of class, regression, multi-label"):
        Losses(bert.model, "rank")

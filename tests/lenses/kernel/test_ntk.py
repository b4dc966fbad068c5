"""The neural tangent kernel against one gradient per example and class, family by family, and what must not change
it."""

import copy

import numpy as np
import pytest
import torch
from tests.families import FAMILIES, family_folders
from tests.kernel_models import CLASSES, family_batches, family_model, far, head_names
from tests.oracles import kernel as oracle
from tests.training_fixtures import tokenizer
from tests.word_tasks import word_task_folder

from finetrace.lenses.kernel.ntk import estimate, ntk
from finetrace.lenses.kernel.results import Kernel
from finetrace.models.head import last_linear

DOUBLE = {"dtype": torch.float64, "parameters": "all"}


@pytest.fixture(scope="module")
def bert():
    return family_model("bert"), family_batches("bert", ((3, 9), (2, 5), (4, 7)))


@pytest.fixture(scope="module")
def kernel(bert) -> Kernel:
    return ntk(*bert, **DOUBLE, groups=True)


def expected_of(model, batches, names=None):
    jacobian = oracle.jacobian(model, batches, names or [name for name, _ in model.named_parameters()])
    return oracle.kernel(jacobian, head_names(model, last_linear(model)))


@pytest.mark.parametrize("family", FAMILIES)
def test_kernel_is_that_of_single_gradients(family):
    model, batches = family_model(family), family_batches(family)
    pretrain, finetune = expected_of(model, batches)
    found = ntk(model, batches, **DOUBLE)
    assert far(found.pretrain_effective, pretrain) < 1e-12
    assert far(found.ft_effective, finetune) < 1e-12
    assert np.abs(finetune).max() > 1e-3 and far(found.full, pretrain + finetune) < 1e-12


@pytest.mark.parametrize("family", ["bert", "albert", "deberta-v2", "mpnet"])
def test_float32_gives_the_same_to_its_precision(family):
    model, batches = family_model(family), family_batches(family)
    found, exact = ntk(model, batches, parameters="all"), ntk(model, batches, **DOUBLE)
    assert found.full.dtype == np.float64
    assert 1e-12 < far(found.full, exact.full) < 1e-5


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
@pytest.mark.parametrize("start", [True, False])
def test_low_rank_adapters(family, start):
    from peft import LoraConfig, inject_adapter_in_model

    model, batches = family_model(family), family_batches(family)
    before = ntk(model, batches, **DOUBLE)
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4, target_modules=["query", "value"]), model)
    adapters = [(name, p) for name, p in model.named_parameters() if "lora_" in name]
    if not start:
        with torch.no_grad():
            for _, p in adapters:
                p.copy_(torch.randn_like(p))
    last_linear(model).requires_grad_(True)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    pretrain, finetune = expected_of(model, batches, names)
    found = ntk(model, batches, dtype=torch.float64, groups=lambda name: "A" if "lora_A" in name else "B")
    assert far(found.pretrain_effective, pretrain) < 1e-12 and far(found.ft_effective, finetune) < 1e-12
    assert start == (np.abs(found.groups["A"]).max() == 0), "at the start B is zero, and no gradient comes to A"
    if start:
        np.testing.assert_array_equal(found.pretrain_effective, before.pretrain_effective)
    alone = ntk(model, batches, dtype=torch.float64, parameters="lora")
    assert far(alone.ft_effective, found.ft_effective) < 1e-14
    assert not alone.pretrain_effective.any()


def test_a_model_wrapped_by_peft_is_its_classifier():
    from peft import LoraConfig, get_peft_model

    batches = family_batches("roberta")
    wrapped = get_peft_model(family_model("roberta"), LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    found = ntk(wrapped, batches, dtype=torch.float64)
    assert far(found.full, ntk(wrapped.get_base_model(), batches, dtype=torch.float64).full) < 1e-14
    assert found.pretrain_effective.any() and found.ft_effective.any()


@pytest.mark.parametrize("spans", [1, 2])
@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_several_examples_of_one_sentence(tmp_path, family, spans):
    from finetrace.models.load import forward_names, load_classifier
    from finetrace.models.rows import Collator, encode

    model = load_classifier(family_folders(tmp_path)(family), ["a", "b", "c"], seed=4, spans=spans).eval()
    folder = word_task_folder(tmp_path / "task", spans=spans)
    rows = encode(folder / "train.parquet", tokenizer(), 36, forward_names(model))
    batches = [Collator(tokenizer())(rows, index) for index in ([0, 5, 9], [2, 1], [3, 4])]
    batches[0]["slots"] = batches[0]["slots"].flip(0)  # examples may come in any order
    firsts = torch.tensor([batches[2]["spans"].shape[1] // spans, 0])  # one example of each row, the second row's first
    batches[2]["slots"], batches[2]["labels"] = firsts, batches[2]["labels"][:2]
    pretrain, finetune = expected_of(model, [{k: v for k, v in b.items() if k != "labels"} for b in batches])
    found = ntk(model, batches, **DOUBLE)
    assert len(found.full) > sum(len(b["input_ids"]) for b in batches)
    assert far(found.pretrain_effective, pretrain) < 1e-12 and far(found.ft_effective, finetune) < 1e-12


@pytest.mark.parametrize(("family", "memory"), [
    ("bert", 3e5), ("bert", 2e4), ("albert", 3e4), ("deberta-v2", 3e5), ("mpnet", 3e4)])
def test_memory_changes_the_number_of_passes_only(family, memory):
    model, batches = family_model(family), family_batches(family, ((3, 9), (2, 5), (2, 7)))
    whole, steps = ntk(model, batches, **DOUBLE), []
    found = ntk(model, batches, **DOUBLE, memory_bytes=memory, progress=lambda *step: steps.append(step))
    assert far(found.full, whole.full) < 1e-12
    assert sum(phase.endswith("batches") and done == total
               for phase, done, total in steps) > 2, "more passes than kinds of them"


@pytest.mark.parametrize("formula", ["sgd", "asymmetric-signgd"])
def test_parts_of_several_processes_add_up(bert, formula):
    options = {**DOUBLE, "groups": True, "formula": formula}
    whole = ntk(*bert, **options)
    first, *others = (ntk(*bert, **options, share=(k, 3)) for k in range(3))
    assert all(part.full.any() and far(part.full, whole.full) > 0.01
               for part in (first, *others)), "each has something to do"
    found = first + others[0] + others[1]
    assert far(found.full, whole.full) < 1e-12 and list(found.groups) == list(whole.groups)
    assert all(far(found.groups[name], values) < 1e-12 for name, values in whole.groups.items())
    assert formula == "sgd" or far(found.flipped.full, whole.flipped.full) < 1e-12
    with pytest.raises(ValueError, match="counted from 0"):
        ntk(*bert, share=(3, 3))


def test_cost_is_known_beforehand(bert):
    model, batches = bert
    few, many = (estimate(model, batches * k, parameters="all") for k in (1, 10))
    assert few.passes == many.passes == 1 and 0 < few.seconds and 0 < few.bytes < many.bytes
    assert 10 < many.operations / few.operations < 100, "between linear (passes) and quadratic (products)"
    assert estimate(model, batches * 10, parameters="all", memory_bytes=1e6).passes > 1
    assert estimate(model, batches, parameters="head").operations < few.operations


def test_padding_batches_and_order_do_not_matter(bert, kernel):
    model, batches = bert
    rows = [{k: v[i:i + 1, :int(b["attention_mask"][i].sum())] for k, v in b.items()}
            for b in batches for i in range(len(b["input_ids"]))]
    assert far(ntk(model, rows, **DOUBLE).full, kernel.full) < 1e-12, "one by one, without padding"
    longest = [{k: torch.nn.functional.pad(v, (0, 30 - v.shape[1])) for k, v in b.items()} for b in batches]
    together = {k: torch.cat([b[k] for b in longest]) for k in longest[0]}
    order = torch.randperm(9, generator=torch.Generator().manual_seed(5))
    found = ntk(model, [{k: v[order] for k, v in together.items()}], **DOUBLE)
    assert far(found.full, kernel.full[order][:, :, order]) < 1e-12, "padded to 30 tokens, in another order"


def test_kernel_is_symmetric_and_has_no_negative_eigenvalue(kernel):
    for part in (kernel.full, kernel.pretrain_effective, kernel.ft_effective):
        square = part.reshape(9 * CLASSES, -1)
        np.testing.assert_array_equal(square, square.T)
        values = np.linalg.eigvalsh(square)
        assert values[0] >= -1e-10 * values[-1]


def test_pretrain_effective_part_is_the_gram_matrix_of_the_features(bert, kernel):
    model, batches = copy.deepcopy(bert[0]).double(), bert[1]
    features = []
    head = last_linear(model)
    hook = head.register_forward_pre_hook(lambda module, args: features.append(args[0].detach()))
    for batch in batches:
        model(**batch)
    hook.remove()
    phi = torch.cat(features).numpy()
    expected = np.einsum("nm,cd->ncmd", phi @ phi.T + 1, np.eye(CLASSES))
    assert far(kernel.pretrain_effective, expected) < 1e-14
    off = kernel.pretrain_effective.transpose(1, 3, 0, 2)[~np.eye(CLASSES, dtype=bool)]
    assert not off.any(), "off-class entries are exactly zero"
    rank = np.linalg.matrix_rank(np.hstack([phi, np.ones((9, 1))]), tol=1e-9)
    assert np.linalg.matrix_rank(kernel.pretrain_effective.reshape(27, 27), tol=1e-9) == CLASSES * rank


def test_parts_of_the_parameters(bert, kernel):
    model, batches = bert
    head, encoder = (ntk(model, batches, parameters=p, dtype=torch.float64) for p in ("head", "encoder"))
    assert not head.ft_effective.any() and not encoder.pretrain_effective.any()
    assert far(head.full, kernel.pretrain_effective) < 1e-14 and far(encoder.full, kernel.ft_effective) < 1e-14
    frozen = copy.deepcopy(model)
    for name, p in frozen.named_parameters():
        p.requires_grad_("layer.1" in name)
    named = ntk(model, batches, parameters=lambda name: "layer.1" in name, dtype=torch.float64)
    np.testing.assert_array_equal(ntk(frozen, batches, dtype=torch.float64).full, named.full)


def test_groups_sum_to_the_whole(bert, kernel):
    kinds = ("attention", "biases", "ffn", "norms")
    assert list(kernel.groups) == ["embeddings", *(f"layer-{i:02d}/{k}" for i in (0, 1) for k in kinds), "rest"]
    for groups in (kernel.groups, kernel.by("kind"), kernel.by("layer")):
        assert far(sum(groups.values()), kernel.ft_effective) < 1e-12
    assert list(kernel.by("layer")) == ["embeddings", "layer-00", "layer-01", "rest"]
    single = ntk(*bert, parameters=lambda name: "layer.0.attention.self.query.weight" in name, dtype=torch.float64)
    assert far(single.ft_effective, kernel.groups["layer-00/attention"]) > 0.01


def test_worked_groups():
    class SentenceToken(torch.nn.Linear):
        """A plain linear layer on the sentence token, as the study uses."""

        def forward(self, states):
            return super().forward(states[:, 0])

    model, batches = family_model("roberta"), family_batches("roberta")
    model.classifier = SentenceToken(16, CLASSES)
    found = ntk(model, batches, **DOUBLE, groups=lambda name: name)
    weight = model.classifier.weight.detach().double().numpy()
    blocks = found.groups["roberta.encoder.layer.1.output.LayerNorm.bias"]
    assert far(blocks, np.broadcast_to((weight @ weight.T)[None, :, None], blocks.shape)) < 1e-14
    keys = [values for name, values in found.groups.items() if "key.bias" in name]
    assert len(keys) == 2 and not np.any(keys), "softmax does not notice what is added to all keys"


def test_parameters_that_no_logit_uses_contribute_nothing(bert, kernel):
    model = copy.deepcopy(bert[0])
    model.unused = torch.nn.Linear(3, 3)
    assert far(ntk(model, bert[1], **DOUBLE, head=model.classifier).full, kernel.full) < 1e-14


def test_rows_of_eval_are_those_of_a_joint_kernel(bert, kernel):
    model, (first, *others) = bert
    found = ntk(model, [first], others, **DOUBLE, groups=True)
    assert found.full.shape == (9, CLASSES, 3, CLASSES)
    assert far(found.rows("train").full, kernel.full[:3, :, :3]) < 1e-12
    assert far(found.rows("eval").full, kernel.full[3:, :, :3]) < 1e-12
    assert far(found.rows("eval").groups["embeddings"], kernel.groups["embeddings"][3:, :, :3]) < 1e-12
    same = ntk(model, bert[1], bert[1], **DOUBLE)
    assert far(same.rows("eval").full, same.rows("train").full) < 1e-12
    with pytest.raises(ValueError, match="no rows 'eval'"):
        kernel.rows("eval")


def test_several_heads_share_the_passes(bert, kernel):
    model, batches = bert
    own = (model.classifier.weight.detach().numpy(), model.classifier.bias.detach().numpy())
    other = (np.random.default_rng(0).normal(size=(2, 16)), np.zeros(2))
    first, twice, second = ntk(model, batches, **DOUBLE, heads=[own, (2 * own[0], own[1]), other])
    assert far(first.full, kernel.full) < 1e-12
    assert far(twice.ft_effective, 4 * kernel.ft_effective) < 1e-12, "F is quadratic in the head's weight"
    np.testing.assert_array_equal(twice.pretrain_effective, first.pretrain_effective)
    changed = copy.deepcopy(model).double()
    changed.classifier = torch.nn.Linear(16, 2).double()
    with torch.no_grad():
        changed.classifier.weight.copy_(torch.from_numpy(other[0]))
        changed.classifier.bias.zero_()
    assert far(second.full, ntk(changed, batches, parameters="all").full) < 1e-12


def test_model_and_random_numbers_are_left_as_they_were(bert):
    model, batches = copy.deepcopy(bert[0]).train(), bert[1]
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[0].eval()
    modes, needed = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = ntk(model, batches, parameters="all")
    assert [m.training for m in model.modules()] == modes and [p.requires_grad for p in model.parameters()] == needed
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    np.testing.assert_array_equal(found.full, ntk(model, batches, parameters="all").full)
    with pytest.raises(ValueError, match="shape"):
        ntk(torch.nn.Linear(3, 2).train(), [{"input": torch.zeros(1, 2, 3)}], head=torch.nn.Linear(3, 2),
            parameters="all")


@pytest.mark.parametrize(("change", "message"), [
    ({"parameters": "body"}, "give one of trainable"), ({"parameters": lambda name: False}, "no parameter"),
    ({"parameters": "lora"}, "no parameter"), ({"formula": "adam"}, "give one of sgd"),
    ({"heads": []}, "heads is empty"),
    ({"heads": [(np.zeros((2, 4)), np.zeros(2))]}, "the model's is"),
    ({"heads": [(np.zeros((2, 16)), None)]}, "no bias"), ({"dtype": torch.bfloat16}, "too coarse"),
    ({"parameters": lambda name: "pooler" in name, "head": None}, None),
])
def test_arguments_that_mean_nothing_are_refused(bert, change, message):
    if message is None:
        assert ntk(*bert, **change).ft_effective.any(), "BERT's classifier reads the pooler"
        return
    with pytest.raises(ValueError, match=message):
        ntk(*bert, **{"parameters": "all", **change})


def test_no_batches_are_refused(bert):
    for batches in ([], bert[1][0]):
        with pytest.raises(ValueError, match="list of at least one"):
            ntk(bert[0], batches)


def test_weights_that_are_not_finite_are_noticed(bert):
    broken = copy.deepcopy(bert[0])
    with torch.no_grad():
        broken.classifier.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        ntk(broken, bert[1], parameters="all")

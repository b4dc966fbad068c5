"""Maps of all layers trained in one pass: as if each were alone, as AdamW written out, the best one kept, early
stopping."""

import numpy as np
import pytest
import torch
from tests.lenses.cloze.test_ranking import DIM, WORDS, random_head
from tests.oracles import cloze as oracle

from finetrace import seeds
from finetrace.lenses.cloze.fitting import Cached, Recipe, fit
from finetrace.lenses.cloze.readouts import first_heads, inner_states, train_heads, train_maps
from finetrace.models.masked_head import MaskedHead

LAYERS = 4


@pytest.fixture
def data():
    """Training and held-out states (layer, position, dim) float64; words can be told from the state, better in later
    layers."""
    random = np.random.default_rng(2)
    centres = random.normal(size=(WORDS, DIM))
    found = []
    for count in (400, 150):
        targets = random.integers(0, 8, count)
        noise = random.normal(size=(LAYERS, count, DIM)) * np.array([3.0, 1.0, 0.5, 0.2])[:, None, None]
        found.append(Cached(torch.from_numpy(centres[targets] + noise), targets))
    return found


RECIPE = Recipe(steps=60, batch=32, learning_rate=0.02, evaluations=12)


@pytest.mark.parametrize("which", ["heads", "maps"])
@pytest.mark.parametrize("memory_bytes", [1, 2**30])
def test_all_layers_together_are_each_alone(data, which, memory_bytes):
    head = random_head()

    def train(layers):
        if which == "heads":
            return train_heads(head, layers, *data, RECIPE, seed=3, memory_bytes=memory_bytes)
        return train_maps(head, layers, LAYERS - 1, *data, RECIPE, seed=3, memory_bytes=memory_bytes)

    layers = list(range(LAYERS - (which == "maps")))
    joint = train(layers)
    for layer in layers:
        alone = train([layer])
        assert alone.tensors.keys() == joint.tensors.keys() != set()
        for name, values in alone.tensors.items():
            torch.testing.assert_close(joint.tensors[name][layer], values[0], atol=1e-9, rtol=1e-9)
        assert joint.loss[layer] == pytest.approx(alone.loss[0], abs=1e-9)
        assert (joint.steps[layer], joint.stopped[layer]) == (alone.steps[0], alone.stopped[0])


def test_adamw_is_adamw():
    """Of a quadratic loss, number by number; with decay and the rate that rises and falls."""
    random = np.random.default_rng(0)
    states, recipe = random.normal(size=(1, 24, 3)), Recipe(12, 4, 0.1, warmup=0.25, evaluations=1, weight_decay=0.3)
    start = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    train = Cached(states, np.zeros(24, dtype=np.int64))

    def loss_of(tensors, layers, cached, positions):
        return ((tensors["w"][:, None] - cached.take(layers, positions, torch.device("cpu"))) ** 2).sum(-1).mean(1)

    order = np.concatenate([seeds.generator(9, "order", epoch).permutation(24) for epoch in range(3)])

    def gradient(values, step):
        batch = states[0][order[4 * step:4 * step + 4]]
        return [2 * float((w - batch[:, i]).mean()) for i, w in enumerate(values)]

    rates = [recipe.rate(step) for step in range(12)]
    assert rates[:4] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1]) and rates[-1] == pytest.approx(0.1 / 9)
    expected = oracle.adamw(gradient, start[0].tolist(), rates, decay=0.3)
    found = fit({"w": start}, [0], loss_of, train, train, recipe, seed=9)
    assert found.steps[0] == 12  # the loss falls all the way, so the last is the best
    np.testing.assert_allclose(found.tensors["w"][0], expected, rtol=1e-10)


def test_trained_heads_learn_and_the_decoder_stays(data):
    head = random_head()
    before = head.decoder.clone()
    found = train_heads(head, list(range(LAYERS)), *data, Recipe(400, 64, 0.05), seed=1)
    assert (found.loss < found.first_loss - 0.3).all()
    assert (np.diff(found.loss) < 0).all()  # later layers tell the words apart more easily
    assert torch.equal(head.decoder, before)


def test_the_best_head_is_kept_not_the_last(data):
    train, held_out = data
    few = Cached(train.states[:, :12], train.targets[:12])  # soon learned by heart
    found = train_heads(random_head(), [0, 1], few, held_out, Recipe(200, 12, 0.05, evaluations=50), seed=1)
    assert (found.steps < 200).all()
    recipe = Recipe(200, 12, 0.05, evaluations=50, min_delta=0.0, patience=200)
    longer = train_heads(random_head(), [0, 1], few, held_out, recipe, seed=1)
    assert (longer.loss <= found.loss + 1e-12).all() and (longer.loss <= longer.first_loss).all()


def test_a_layer_stops_by_its_own_loss():
    """Scripted losses: one map stops falling at once, the other falls all the time."""
    def loss_of(tensors, layers, cached, positions):
        return torch.stack([tensors["w"][i].sum() * (1.0 if layer else 1e-4) for i, layer in enumerate(layers)])

    data = Cached(np.zeros((2, 5, 1)), np.zeros(5, dtype=np.int64))
    found = fit({"w": torch.zeros(2, 1, dtype=torch.float64)}, [0, 1], loss_of, data, data,
                Recipe(40, 5, 0.1, warmup=0.0, evaluations=40, min_delta=0.01, patience=3), seed=0)
    assert found.stopped.tolist() == [3, 40] and found.steps.tolist() == [3, 40]
    assert found.loss[1] < -1


def test_maps_begin_as_the_identity_and_approach_the_last_layer(data):
    head = random_head()
    none = train_maps(head, [0, 1, 2], 3, *data, Recipe(1, 8, 1e-12, evaluations=1), seed=1)
    np.testing.assert_allclose(none.tensors["weight"], np.tile(np.eye(DIM), (3, 1, 1)), atol=1e-9)
    states = data[1].states
    own, tuned = (inner_states(r, head, none, states) for r in ("own", "tuned"))
    torch.testing.assert_close(own, tuned, atol=1e-8, rtol=1e-8)
    goal = head(states[-1]).log_softmax(-1)
    divergence = (goal.exp() * (goal - head(states[:-1]).log_softmax(-1))).sum(-1).mean(1)
    np.testing.assert_allclose(none.first_loss, divergence, rtol=1e-9)
    found = train_maps(head, [0, 1, 2], 3, *data, Recipe(200, 64, 0.01), seed=1)
    assert (found.loss < 0.9 * found.first_loss).all()
    tuned = inner_states("tuned", head, found, states)
    assert torch.equal(tuned[-1], head.inner(states[-1]))  # the last layer has no map


def test_fresh_heads_are_drawn_by_name():
    head = random_head()
    first = first_heads(head, 3, "fresh", 5, DIM)
    assert torch.equal(first["dense_weight"][0], first["dense_weight"][2])
    assert (first["norm_weight"] == 1).all() and (first["dense_bias"] == 0).all() and (first["norm_bias"] == 0).all()
    assert torch.equal(first["dense_weight"], first_heads(head, 3, "fresh", 5, DIM)["dense_weight"])
    assert not torch.equal(first["dense_weight"], first_heads(head, 3, "fresh", 6, DIM)["dense_weight"])
    assert torch.equal(first_heads(head, 2, "pretrained", 5, DIM)["norm_bias"][1], head.transform.norm_bias)


def test_a_family_without_a_transform_gets_one_that_begins_as_the_identity(data):
    bare = MaskedHead(None, torch.randn(WORDS, DIM, dtype=torch.float64), torch.zeros(WORDS, dtype=torch.float64))
    found = train_heads(bare, list(range(LAYERS)), *data, Recipe(1, 8, 1e-12, evaluations=1), seed=1)
    states = data[1].states
    torch.testing.assert_close(inner_states("trained", bare, found, states), inner_states("own", bare, None, states),
                               atol=1e-8, rtol=1e-8)
    assert (train_heads(bare, [3], *data, RECIPE, seed=1).loss < found.loss[3]).all()


def test_memory_mapped_half_precision_states(data, tmp_path):
    path = tmp_path / "states.npy"
    np.save(path, data[0].states.numpy().astype(np.float16))
    mapped = Cached(np.load(path, mmap_mode="r"), data[0].targets)
    taken = mapped.take([3, 1], np.array([5, 2, 7]), torch.device("cpu"))
    assert taken.dtype == torch.float32 and taken.shape == (2, 3, DIM)
    torch.testing.assert_close(taken.double(), data[0].states[[3, 1]][:, [5, 2, 7]], atol=0.01, rtol=1e-3)


def test_errors(data):
    head, empty = random_head(), Cached(data[0].states[:, :0], data[0].targets[:0])
    with pytest.raises(ValueError, match="no masked positions"):
        train_heads(head, [0], empty, data[1], RECIPE, seed=1)
    with pytest.raises(ValueError, match="loss of layer 2 is not finite"):
        broken = Cached(data[1].states.clone(), data[1].targets)
        broken.states[2] = float("nan")
        train_heads(head, [1, 2], data[0], broken, RECIPE, seed=1)
    with pytest.raises(ValueError, match="needs trained maps"):
        inner_states("tuned", head, None, data[0].states)

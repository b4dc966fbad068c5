"""Edge probes: the batched training against a slow one, alone and together, pooling, normalisation, stopping, bad
input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.edge_data import edge_data
from tests.oracles import edges as oracle

from finetrace.lenses.edges.data import make_batch, norms
from finetrace.lenses.edges.network import Dropout, Network, Probe, Shape, first_weights
from finetrace.lenses.edges.outputs import hits_of
from finetrace.lenses.edges.recipe import Recipe
from finetrace.lenses.edges.scoring import counting_type, score_probes
from finetrace.lenses.edges.training import train_probes

QUICK = Recipe(hidden=5, max_steps=12, validate_every=12, batch_sentences=4, select="last", halve_patience=0,
               learning_rate=1e-2)
BOTH = [Probe("layer", 0), Probe("layer", 2), Probe("mix", 1), Probe("mix", 2)]


def network_of(data, probes, recipe, *, seed=3, dtype=torch.float64) -> Network:
    shape = Shape(len(data.states), data.states.shape[2], 2 if recipe.twin_spans else data.spans.shape[1],
                  data.gold.shape[1])
    return Network(probes, [first_weights(p, shape, recipe, seed) for p in probes], shape, recipe,
                   torch.empty(0, dtype=dtype))


def logits_of(data, network, sentences, norm=None) -> np.ndarray:
    like = torch.empty(0, dtype=next(iter(network.parameters.values())).dtype)
    with torch.no_grad():
        batch = make_batch(data, np.asarray(sentences), network.layers, norm, network.recipe.twin_spans, like)
        return network.logits(batch).numpy()


@pytest.mark.parametrize("changes", [
    {}, {"head": "linear"}, {"head": "fancy_mlp", "loss": "softmax"}, {"projection": 3},
    {"pooling": "max", "projection": 3},
    {"pooling": "mean", "projection": 3}, {"pooling": "endpoint", "projection": 3}, {"pooling": "last"},
    {"pooling": "first", "normalisation": "batch", "hidden": 0},
    {"normalisation": "none", "amsgrad": True, "weight_decay": 1e-2},
    {"clip": 0.05, "drop_last": True, "batch_sentences": 5}], ids=str)
def test_training_equals_the_slow_one(changes):
    recipe = replace(QUICK, **changes)
    data = edge_data(sets=recipe.loss == "sigmoid")
    found = train_probes(data, None, BOTH, recipe, seed=3, precise=True)
    assert [one.probe for one in found] == list(BOTH)
    for one in found:
        wanted = oracle.train(data, one.probe, recipe, 3, recipe.max_steps)
        assert set(wanted) == set(one.parameters) != set()
        for name, value in wanted.items():
            np.testing.assert_allclose(one.parameters[name], value, atol=1e-9, err_msg=f"{one.probe.name} {name}")


@pytest.mark.parametrize("twin", [False, True])
def test_tasks_of_one_span(twin):
    data, recipe = edge_data(sides=1), replace(QUICK, twin_spans=twin, projection=2)
    one, = train_probes(data, None, [Probe("mix", 2)], recipe, seed=3, precise=True)
    wanted = oracle.train(data, one.probe, recipe, 3, recipe.max_steps)
    assert ("first1" in one.parameters) == twin
    for name, value in wanted.items():
        np.testing.assert_allclose(one.parameters[name], value, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("recipe", [
    replace(QUICK, max_steps=100, learning_rate=1e-3),
    pytest.param(replace(QUICK, max_steps=100, learning_rate=1e-3, dropout=0.3, clip=1.0), marks=pytest.mark.slow),
    pytest.param(replace(QUICK, max_steps=100, projection=4, head="fancy_mlp", learning_rate=1e-3,
                         normalisation="none"), marks=pytest.mark.slow)],
    ids=["plain", "drop", "deep"])
def test_a_probe_alone_equals_the_same_probe_in_the_batch_after_100_steps(recipe):
    data = edge_data(sentences=30, dim=16, dtype=np.float32, sets=True)
    probes = [Probe(kind, layer) for kind in ("layer", "mix") for layer in range(3)] + [Probe("mix", 2, seed=1)]
    together = train_probes(data, None, probes, recipe, seed=5)
    apart = train_probes(data, None, probes, recipe, seed=5, memory_mib=0)  # chunks of one probe
    for a, b in zip(together, apart, strict=True):
        assert a.probe == b.probe
        for name, value in a.parameters.items():
            np.testing.assert_allclose(value, b.parameters[name], atol=1e-5, err_msg=f"{a.probe.name} {name}")
    first, again = together[5], together[6]
    assert np.abs(first.parameters["first0"] - again.parameters["first0"]).max() > 0.01  # another seed is another probe


def test_the_mix_of_layer_0_alone_is_layer_0_up_to_gamma():
    data = edge_data()
    still = replace(QUICK, scalar_learning_rate=1e-300)
    layer, mix = train_probes(data, None, [Probe("layer", 0), Probe("mix", 0)], still, seed=1, precise=True)
    assert set(mix.parameters) - set(layer.parameters) == {"mix", "gamma"} and mix.weights.tolist() == [1, 0, 0]
    for name, value in layer.parameters.items():
        np.testing.assert_allclose(mix.parameters[name], value, atol=1e-12)
    moved, = train_probes(data, None, [Probe("mix", 0)], QUICK, seed=1, precise=True)
    assert abs(moved.parameters["gamma"] - 1) > 1e-3
    scaled = {**layer.parameters, "mix": np.zeros(3), "gamma": np.array(1.7)}
    twice = replace(data, states=data.states * 1.7)  # gamma is a scale of the layer and nothing else
    one = logits_of(data, network_of(data, [Probe("mix", 0)], QUICK).__class__(
        [Probe("mix", 0)], [scaled], Shape(3, 6, 2, 4), QUICK, torch.empty(0, dtype=torch.float64)), range(4))
    two = logits_of(twice, Network([Probe("layer", 0)], [layer.parameters], Shape(3, 6, 2, 4), QUICK,
                                   torch.empty(0, dtype=torch.float64)), range(4))
    np.testing.assert_allclose(one, two, atol=1e-12)


@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "first", "last"])
def test_a_span_of_one_piece_is_its_token_and_nothing_outside_a_span_matters(pooling):
    recipe = replace(QUICK, pooling=pooling, head="linear", normalisation="none")
    data = edge_data(sides=1, single=True)
    network = network_of(data, [Probe("layer", 1)], recipe)
    values = {name: value.detach().numpy()[0] for name, value in network.parameters.items()}
    tokens = data.states[1, data.tokens[data.spans[:, 0, 0]]]
    wanted = tokens @ values["first0"] + values["first_bias"]
    np.testing.assert_allclose(logits_of(data, network, range(12))[0], wanted, atol=1e-12)
    data = edge_data(sides=1)
    inside = np.zeros(data.states.shape[1], dtype=bool)
    for start, end in data.spans[data.starts[2]:data.starts[3], 0]:
        inside[data.tokens[start:end]] = True
    other = data.states.copy()
    other[:, ~inside] = np.random.default_rng(0).normal(size=other[:, ~inside].shape) * 100
    network = network_of(data, [Probe("mix", 2)], recipe)
    assert np.array_equal(logits_of(data, network, [2]), logits_of(replace(data, states=other), network, [2]))


def test_weights_inside_a_span_sum_to_one():
    data = edge_data(sides=1)
    constant = replace(data, states=np.ones_like(data.states) * np.arange(1,
                                                                          7))  # any mean of equal tokens is the token
    network = network_of(data, [Probe("layer", 1)], replace(QUICK, head="linear"))
    values = {name: value.detach().numpy()[0] for name, value in network.parameters.items()}
    found = logits_of(constant, network, range(12))[0]
    np.testing.assert_allclose(found, np.broadcast_to(np.arange(1, 7) @ values["first0"] + values["first_bias"],
                                                      found.shape))


def test_outputs_do_not_depend_on_the_batch_but_where_its_statistics_are_used():
    data = edge_data(dtype=np.float32)
    network = network_of(data, [Probe("mix", 1), Probe("mix", 2)], QUICK, dtype=torch.float32)
    norm = norms(data)
    whole = logits_of(data, network, range(12), norm)
    order = np.random.default_rng(1).permutation(12)
    mixed = logits_of(data, network, order, norm)
    where = np.concatenate([np.arange(data.starts[i], data.starts[i + 1]) for i in order])
    np.testing.assert_allclose(mixed, whole[:, where], atol=1e-6)
    for i in range(12):
        np.testing.assert_allclose(logits_of(data, network, [i], norm), whole[:, data.starts[i]:data.starts[i + 1]],
                                   atol=1e-6)
    one, other = (logits_of(data, network, part, norms(data, np.array(part))) for part in ([0, 1], [0, 2]))
    assert np.abs(one[:, :data.starts[1]] - other[:, :data.starts[1]]).max() > 1e-3


def test_statistics_of_normalisation_are_those_of_all_numbers():
    data = edge_data()
    whole = replace(data, moments=np.stack([data.states[:, :60].reshape(3, 12, -1).sum(2),
                                            np.square(data.states[:, :60]).reshape(3, 12, -1).sum(2)], axis=2),
                    lengths=np.full(12, 5)) if data.states.shape[1] >= 60 else None
    assert whole is not None
    np.testing.assert_allclose(norms(whole)[:, 0], data.states[:, :60].mean((1, 2)), atol=1e-12)
    np.testing.assert_allclose(norms(whole)[:, 1], data.states[:, :60].std((1, 2)), atol=1e-12)
    np.testing.assert_allclose(norms(whole, np.array([1]))[:, 1], data.states[:, 5:10].std((1, 2)), atol=1e-12)


def test_masks_have_the_asked_rate_scale_and_stream():
    recipe, like = replace(QUICK, dropout=0.3, head="fancy_mlp"), torch.empty(0)
    masks = Dropout([Probe("layer", 0), Probe("layer", 1)], recipe, 4, "cpu").masks(301, 67, like)
    assert len(masks) == 2 and masks[0].shape == (2, 301, 67)
    level = round(0.3 * 256)
    assert masks[0].unique().tolist() == [0.0, pytest.approx(256 / (256 - level))]
    assert abs(float(masks[0].mean()) - 1) < 0.02 and abs(float((masks[1] == 0).float().mean()) - 0.3) < 0.01
    assert abs(float((masks[0][0] == masks[0][1]).float().mean()) - 0.58) < 0.02  # two streams agree as often as chance
    alone = Dropout([Probe("mix", 1)], recipe, 4, "cpu").masks(301, 67, like)
    assert torch.equal(alone[1][0], masks[1][1])
    assert Dropout([Probe("mix", 1)], QUICK, 4, "cpu").masks(3, 5, like) is None


def test_hits_of_the_worked_example_and_of_every_decision():
    gold = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    p = torch.tensor([[0.6, 0.7, 0.1], [0.2, 0.3, 0.1]])
    hits = hits_of(torch.log(p / (1 - p))[None], gold, "sigmoid")[0]
    assert hits.tolist() == [[1, 1, 0], [0, 0, 1]]
    tp, fp, fn = hits.sum(0).tolist()
    assert (tp / (tp + fp), tp / (tp + fn)) == (0.5, 0.5)
    random = np.random.default_rng(0)
    z, y = random.normal(size=(2, 50, 4)), random.random((50, 4)) < 0.3
    for kind in ("sigmoid", "softmax"):
        found = hits_of(torch.from_numpy(z), torch.from_numpy(y.astype(float)), kind).numpy()
        for probe in range(2):
            assert np.array_equal(found[probe], oracle.micro_counts(z[probe], y, kind))
    some = hits_of(torch.from_numpy(z), torch.from_numpy(y.astype(float)), "sigmoid",
                   torch.tensor([True, False, False, True]))
    assert np.array_equal(some[0].numpy(), oracle.micro_counts(z[0][:, [0, 3]], y[:, [0, 3]], "sigmoid"))


def test_more_classes_than_a_byte_counts():
    gold = torch.zeros(1, 300)
    gold[0, 0] = 1
    assert hits_of(torch.ones(1, 1, 300), gold, "sigmoid").tolist() == [[[1, 299, 0]]]
    assert np.array([1, 299, 0]).astype(counting_type(300)).tolist() == [1, 299, 0] and counting_type(255) is np.uint8


def test_scores_are_those_of_the_slow_outputs():
    data, other = edge_data(sets=True), edge_data(seed=2, sets=True)
    recipe = replace(QUICK, dropout=0.5)  # off while scoring
    trained = train_probes(data, None, BOTH[::-1], recipe, seed=3, precise=True)
    scores = score_probes(trained, other, recipe, clean=np.array([True, False, True, False]), probes_at_once=1)
    assert len(trained) == len(BOTH)
    for n, one in enumerate(trained):
        values = {name: torch.from_numpy(np.asarray(value)) for name, value in one.parameters.items()}
        z, y = (v.detach().numpy() for v in oracle.outputs(other, range(12), one.probe, values, recipe, of=data))
        assert np.array_equal(scores.hits[n], oracle.micro_counts(z, y, "sigmoid"))
        assert np.array_equal(scores.clean[n], oracle.micro_counts(z[:, [0, 2]], y[:, [0, 2]], "sigmoid"))
        assert np.array_equal(scores.right[n], y[np.arange(len(y)), z.argmax(1)] > 0)
        nats = [oracle.mean_loss(torch.from_numpy(z[k:k + 1]), torch.from_numpy(y[k:k + 1]), "sigmoid")
                for k in range(len(y))]
        np.testing.assert_allclose(scores.nats[n], nats, atol=1e-6)


def test_the_best_look_is_kept_rates_halve_and_probes_stop_on_their_own():
    train, dev = edge_data(sentences=20, signal=3.0), edge_data(sentences=20, seed=1, signal=3.0)
    recipe = replace(QUICK, max_steps=120, validate_every=4, select="best", halve_patience=2, stop_patience=5,
                     batch_sentences=8)
    probes = [Probe("layer", k) for k in range(3)]
    found = train_probes(train, dev, probes, recipe, seed=2)
    assert len({one.steps for one in found}) > 1 and max(one.steps for one in found) <= 120
    for one in found:
        f1 = [look.f1 for look in one.looks]
        assert one.step == one.looks[int(np.argmax(f1))].step and one.steps == one.looks[-1].step
        scored = score_probes([one], dev, recipe).hits.sum((0, 1))
        assert 2 * scored[0] / (2 * scored[0] + scored[1] + scored[2]) == pytest.approx(max(f1))
        rates, best, waited, rate = [], -1.0, 0, 1e-2
        for look in one.looks:
            rates.append(rate)
            best, waited = (look.f1, 0) if look.f1 > best else (best, waited + 1)
            rate /= 2 if waited and waited % 2 == 0 else 1
        assert [look.rate for look in one.looks] == pytest.approx(rates)
        assert waited == 5 or one.steps == 120
    alone, = train_probes(train, dev, probes[1:2], recipe, seed=2)  # the others' stopping does not touch it
    assert alone.steps == found[1].steps
    for name, value in alone.parameters.items():
        np.testing.assert_allclose(value, found[1].parameters[name], atol=1e-5)
    last, = train_probes(train, dev, probes[:1], replace(recipe, select="last", stop_patience=0, floor=4e-3), seed=2)
    assert last.step == last.steps and last.looks[-1].rate >= 4e-3 and last.steps < 120


def test_classes_are_learned_where_the_states_tell_them_and_not_from_shuffled_labels():
    train, dev = (edge_data(sentences=count, sides=1, seed=seed, signal=3.0, single=True)
                  for count, seed in ((150, 0), (80, 1)))
    recipe = replace(QUICK, loss="softmax", max_steps=150, hidden=16, validate_every=30, select="best",
                     batch_sentences=16)

    def accuracy(data):
        trained = train_probes(data, dev, [Probe("layer", 0), Probe("layer", 2), Probe("mix", 2)], recipe, seed=1)
        return score_probes(trained, dev, recipe).right.mean(axis=1), trained

    real, trained = accuracy(train)
    assert real[1] > 0.7 and real[1] > real[0] + 0.15 and real[2] > 0.65
    assert trained[2].weights.argmax() == 2
    shuffled = replace(train, gold=train.gold[np.random.default_rng(0).permutation(len(train.gold))])
    majority = dev.gold[:, train.gold.sum(0).argmax()].mean()
    assert (np.abs(accuracy(shuffled)[0] - majority) < 0.12).all()


def test_steps_and_epochs():
    recipe = replace(QUICK, max_steps=0, epochs=2, validate_every=0, batch_sentences=5)
    data = edge_data()
    one, = train_probes(data, data, [Probe("layer", 0)], recipe, seed=1)
    assert [look.step for look in one.looks] == [3, 6]
    one, = train_probes(data, data, [Probe("layer", 0)], replace(recipe, drop_last=True), seed=1)
    assert [look.step for look in one.looks] == [2, 4]
    told = []
    train_probes(data, None, BOTH, recipe, seed=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 12), (6, 12), (9, 12), (12, 12)]


def test_what_cannot_be_trained_is_refused():
    data, probe = edge_data(), [Probe("layer", 0)]
    with pytest.raises(ValueError, match="softmax needs exactly one class"):
        train_probes(edge_data(sets=True), None, probe, replace(QUICK, loss="softmax"), seed=0)
    with pytest.raises(ValueError, match="select: best and patience need a dev split"):
        train_probes(data, None, probe, replace(QUICK, select="best"), seed=0)
    with pytest.raises(ValueError, match="probe mix:3: the states have layers 0 to 2"):
        train_probes(data, None, [Probe("mix", 3)], QUICK, seed=0)
    states = data.states.copy()
    states[2, data.tokens[data.spans[0, 0, 0]]] = np.nan
    with pytest.raises(ValueError, match="probe layer:2: the loss is not finite"):
        train_probes(replace(data, states=states), None, [Probe("layer", 0), Probe("layer", 2)], QUICK, seed=0)
    spans = data.spans.copy()
    spans[0, 0] = [spans[0, 0, 0], data.offsets[1] + 1]
    with pytest.raises(ValueError, match="'train' has a span that is empty or leaves its sentence"):
        train_probes(replace(data, spans=spans), None, probe, QUICK, seed=0)
    with pytest.raises(ValueError, match="'dev' has no targets"):
        empty = replace(data, gold=data.gold[:0], spans=data.spans[:0], starts=np.zeros(13, dtype=np.int64))
        train_probes(data, empty, probe, replace(QUICK, select="best"), seed=0)
    with pytest.raises(ValueError, match="do not fit together"):
        train_probes(replace(data, moments=data.moments[:2]), None, probe, QUICK, seed=0)
    with pytest.raises(ValueError, match="names tokens that its states do not have"):
        train_probes(replace(data, tokens=data.tokens + 50), None, probe, QUICK, seed=0)
    with pytest.raises(ValueError, match="cannot share a network"):
        network_of(data, [Probe("layer", 0), Probe("mix", 0)], QUICK)

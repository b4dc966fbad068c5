"""Successive halving over a grid of networks: rounds, who goes on, no restart, choices as good as the full search's."""

import numpy as np
import pytest
from tests.lenses.probes.test_mlp import problems

from finetrace.lenses.probes import mlp as lens
from finetrace.lenses.probes import mlp_search


def grid(X, y, **settings) -> lens.MlpProbe:
    usual = {"hidden": [(4,), (6,), (12,), (20,)], "l2": [1e-3, 0.1, 10.0], "seeds": (3,), "max_epochs": 80,
             "dtype": "float64", "search": "halving"}
    return lens.mlp_grid(X, y, **(usual | settings))


def test_rounds_halve_the_points_and_double_the_epochs() -> None:
    assert mlp_search.halving_rounds(16, 8, 1000, 3) == [(16, 5), (8, 10), (4, 20), (2, 40), (1, 1000)]
    assert mlp_search.halving_rounds(9, 1, 1000, 1) == [(9, 15), (5, 30), (4, 1000)]
    assert mlp_search.halving_rounds(16, 8, 12, 30) == [(16, 5), (8, 10), (4, 12)]
    assert mlp_search.halving_rounds(1, 8, 1000, 3) == mlp_search.halving_rounds(1, 1, 1000, 3) == [(1, 1000)]


def test_mean_epochs_of_a_search() -> None:
    assert mlp_search.mean_epochs([(128, 1000)], 150) == 150
    assert mlp_search.mean_epochs([(8, 5), (4, 1000)], 25) == (8 * 5 + 4 * 20) / 8
    assert mlp_search.mean_epochs([(8, 40), (4, 1000)], 25) == 25


def test_the_lowest_loss_goes_on_then_accuracy_then_simplicity() -> None:
    loss = np.array([0.5, 0.3, 0.5, np.nan, 0.5, np.inf])
    accuracy = np.array([0.7, 0.1, 0.9, 1.0, 0.9, 0.9])
    smaller = np.array([0, 5, 4, 1, 2, 3])
    kept = [np.flatnonzero(mlp_search.best_points(loss, accuracy, smaller, k)).tolist() for k in range(1, 7)]
    assert kept == [[1], [1, 4], [1, 2, 4], [0, 1, 2, 4], [0, 1, 2, 4, 5], [0, 1, 2, 4, 5]]


def test_points_that_go_on_are_the_full_search_s_to_the_last_digit() -> None:
    X, y = problems(3, 120, 6, 3)
    halved, full = grid(X, y, max_epochs=40), grid(X, y, search="full", max_epochs=40)
    finished = np.isfinite(halved.held_out_accuracy)
    assert (finished.sum(axis=1) == 2).all()
    np.testing.assert_array_equal(halved.held_out_accuracy[finished], full.held_out_accuracy[finished])
    np.testing.assert_array_equal(halved.search_epochs[finished], full.search_epochs[finished])
    for p in range(3):
        shape, strength = halved.chosen_hidden[p], list(halved.l2).index(halved.chosen_l2[p])
        assert halved.held_out_accuracy[p, shape, strength] == np.nanmax(halved.held_out_accuracy[p])


def test_each_round_trains_on_where_the_last_one_stopped() -> None:
    X, y = problems(1, 230, 6, 3)
    probe = grid(X, y)
    assert mlp_search.halving_rounds(4, 3, 80, 1) == [(4, 15), (2, 80)]
    assert np.sort(probe.search_epochs[0], axis=0).tolist() == [[15] * 3] * 2 + [[80] * 3] * 2


def test_who_goes_on_is_who_leads_after_the_epochs_of_the_round() -> None:
    X, y = problems(1, 230, 6, 3)
    probe = grid(X, y)
    out, = lens.fold_rows(y, 1, 0.2, 0)
    loss = np.empty((4, 3))
    for i, shape in enumerate(probe.hidden):
        for k, strength in enumerate(probe.l2):
            one = lens.mlp_grid(X[:, ~out], y[~out], hidden=[shape], l2=[strength], seeds=(0,), max_epochs=15,
                                dtype="float64")
            z = lens.mlp_logits(one, 0, X[0, out])[0]
            loss[i, k] = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), y[out]])
    better = loss <= np.sort(loss, axis=0)[1]
    np.testing.assert_array_equal(probe.search_epochs[0] > 15, better)


def test_a_training_in_parts_is_the_training_in_one_go() -> None:
    import torch

    from finetrace.lenses.probes.mlp_trainer import Training

    X, y = problems(2, 90, 5, 2, signal=1.0)
    X[1] *= 0.01
    settings = (torch.as_tensor(X).double(), torch.as_tensor(y), 1, (30,), [1.0, 0.1], [3, 4], 300)
    whole, parts = Training(*settings), Training(*settings)
    one = whole.run(300)
    for epoch in (1, 7, 7, 3, 150, 1000):
        other = parts.run(epoch)
    assert one.converged.any() and not one.converged.all()
    np.testing.assert_array_equal(one.epochs, other.epochs)
    np.testing.assert_array_equal(one.converged, other.converged)
    for a, b in zip(one.weights + one.biases, other.weights + other.biases, strict=True):
        assert torch.equal(a, b)


def test_dropped_networks_keep_their_weights_and_change_no_other() -> None:
    import torch

    from finetrace.lenses.probes.mlp_trainer import Training

    X, y = problems(2, 120, 5, 3)
    settings = (torch.as_tensor(X).double(), torch.as_tensor(y), 3, (8,), [0.1, 1.0], [0], 40)
    whole, less = Training(*settings), Training(*settings)
    early = less.run(10).weights[0].clone()
    gone = np.array([[[True, False]], [[False, False]]])
    less.drop(gone)
    one, other = whole.run(40), less.run(40)
    assert other.epochs.tolist() == [[[10, 40]], [[40, 40]]]
    assert torch.equal(other.weights[0][gone], early[gone]) and not torch.equal(one.weights[0][gone], early[gone])
    np.testing.assert_allclose(other.weights[0][~gone], one.weights[0][~gone], atol=1e-12)
    less.drop(~gone)
    assert not len(less.left) and torch.equal(less.run(99).weights[0], other.weights[0])


def test_threads_and_groups_of_problems_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    X, y = problems(5, 120, 4, 3)
    told: list[tuple[int, int]] = []
    one, again = grid(X, y, max_epochs=40), grid(X, y, max_epochs=40)
    np.testing.assert_array_equal(one.weights[4][0], again.weights[4][0])
    monkeypatch.setattr(lens, "CACHE_BYTES", 1)
    monkeypatch.setattr(lens, "search_bytes", lambda *_: 2**19)  # two problems at once in 1 MiB
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = grid(X, y, max_epochs=40, memory_mib=1, progress=lambda done, jobs: told.append((done, jobs)))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one.held_out_accuracy, other.held_out_accuracy)
    np.testing.assert_array_equal(one.search_epochs, other.search_epochs)
    assert one.chosen_hidden.tolist() == other.chosen_hidden.tolist()
    counts = [done for done, _ in told]
    assert counts == sorted(counts) and counts[-1] == 1000 and {jobs for _, jobs in told} == {1000}


def test_folds_are_averaged_before_points_are_given_up() -> None:
    X, y = problems(1, 150, 5, 3)
    halved, full = grid(X, y, folds=3, max_epochs=40), grid(X, y, folds=3, max_epochs=40, search="full")
    finished = np.isfinite(halved.held_out_accuracy)
    assert finished.sum() == 6
    np.testing.assert_allclose(halved.held_out_accuracy[finished], full.held_out_accuracy[finished], atol=1e-12)


def test_points_that_no_rows_tell_apart_leave_a_plain_network() -> None:
    X, y = problems(1, 120, 5, 3)
    probe = grid(X * 0, y, hidden=[(4,), (20,)], l2=[0.1, 1.0], max_epochs=10)
    assert np.isfinite(probe.held_out_accuracy).all() and probe.hidden[probe.chosen_hidden[0]] == (4,)
    blown = grid(X.astype(np.float64) * 1e200, y)
    assert np.isfinite(blown.held_out_accuracy).sum() == 6


def test_choices_are_as_good_as_the_full_search_s_within_the_noise() -> None:
    X, y, test = [], np.arange(400) % 3, slice(150, None)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        means = rng.normal(size=(2, 3, 8)) * 1.2
        X.append(rng.normal(size=(400, 8)) + means[rng.integers(0, 2, 400), y])
    X = np.array(X, dtype=np.float32)
    settings = {"hidden": [(2,), (8,), (32,), (32, 8)], "l2": [1e-3, 1.0, 10.0], "seeds": (0, 1, 2), "max_epochs": 120}
    found = {}
    for search in ("full", "halving"):
        probe = lens.mlp_grid(X[:, :150], y[:150], search=search, **settings)
        found[search] = np.array([(lens.mlp_logits(probe, p, X[p, test]).argmax(axis=2) == y[test]).mean()
                                  for p in range(8)])
    difference = found["halving"] - found["full"]
    error = difference.std(ddof=1) / np.sqrt(8)
    assert found["full"].mean() > 0.6 and error < 0.02
    assert difference.mean() > -2.5 * error - 0.005


def test_the_table_has_the_held_out_accuracy_of_a_halved_search() -> None:
    from finetrace.lenses.probes.parts import mlp_rows
    from finetrace.lenses.probes.summary import Batch

    X, y = problems(1, 120, 4, 3)
    settings = {"hidden": [(4,), (8,), (12,)], "l2": [0.1, 1.0], "seeds": (1, 2), "max_epochs": 30, "search": "halving"}
    probe = lens.mlp_grid(X, y, **settings)
    assert np.isnan(probe.held_out_accuracy).any()
    rows = mlp_rows(Batch([(8, 1)], {"train": X}, {"train": y}, "train"), **settings)
    found = {row["statistic"]: row["value"] for row in rows}
    assert found["mlp_held_out_accuracy"] == np.nanmax(probe.held_out_accuracy)
    assert found["mlp_hidden_1"] == probe.hidden[probe.chosen_hidden[0]][0]


def test_the_setting_is_full_unless_asked_otherwise() -> None:
    from finetrace.config.base import merge
    from finetrace.errors import FinetraceError
    from finetrace.lenses.probes.settings import MlpSettings

    assert MlpSettings().search == "full" and merge(MlpSettings(), {"search": "halving"}, "mlp").search == "halving"
    with pytest.raises(FinetraceError, match="search"):
        merge(MlpSettings(), {"search": "random"}, "mlp")


def test_an_unknown_search_is_refused() -> None:
    X, y = problems(1, 30, 3, 3)
    with pytest.raises(ValueError, match="search: 'random' is neither full nor halving"):
        grid(X, y, search="random")

"""When things happen, in which order rows are seen, and the learning rate."""

from collections import Counter

import numpy as np
import pytest

from finetrace.errors import FinetraceError
from finetrace.training.schedule import learning_rate_factor, plan_steps, steps_of
from finetrace.training.trainer import Plan


@pytest.mark.parametrize(("schedule", "expected"), [
    ("log2", [0, 1, 2, 4, 8, 16, 20]), ("epochs", [0, 7, 14, 20]), ("none", []), ({"every": 6}, [0, 6, 12, 18, 20]),
    ({"every": 1000}, [0, 20]), ({"steps": [3, 19, 50]}, [0, 3, 19, 20]), ({"steps": []}, [0, 20])])
def test_schedules_give_their_steps_and_both_ends(schedule, expected):
    assert steps_of(schedule, 20, 7) == expected


def test_log2_ends_on_a_power_of_two_once():
    assert steps_of("log2", 16, 4) == [0, 1, 2, 4, 8, 16]
    assert steps_of("log2", 1, 4) == [0, 1]


@pytest.mark.parametrize("schedule", ["daily", {"every": 0}, {"every": -2}, {"every": True}, {"every": 1.5},
                                      {"steps": 3},
                                      {"steps": ["a"]}, {"steps": [1.5]}, {"every": 2, "steps": [1]}, {}, None, 5])
def test_a_wrong_schedule_is_named_with_the_possible_ones(schedule):
    with pytest.raises(FinetraceError, match="use log2, epochs, none"):
        steps_of(schedule, 20, 7)


@pytest.mark.parametrize("order", ["random", "length"])
@pytest.mark.parametrize("rows", [1, 8, 61, 64, 500])
def test_every_row_comes_once_per_epoch(order, rows):
    lengths = np.random.default_rng(0).integers(3, 60, rows)
    steps, per_epoch = plan_steps(lengths, 8, 3, order, np.random.default_rng(1))
    assert per_epoch == -(-rows // 8)
    assert len(steps) == 3 * per_epoch
    for epoch in range(3):
        epoch_steps = steps[epoch * per_epoch:(epoch + 1) * per_epoch]
        assert sorted(np.concatenate(epoch_steps).tolist()) == list(range(rows))
        sizes = Counter(len(s) for s in epoch_steps)
        assert set(sizes) <= {8, rows % 8}  # the partial batch is kept
        assert sum(k * v for k, v in sizes.items()) == rows
    first, second = np.concatenate(steps[:per_epoch]), np.concatenate(steps[per_epoch:2 * per_epoch])
    assert rows <= 8 or not np.array_equal(first, second)


def padding(steps, lengths):
    """Share of the tokens in padded batches that are padding."""
    full = sum(len(s) * lengths[s].max() for s in steps)
    return 1 - sum(lengths[s].sum() for s in steps) / full


def test_grouping_by_length_saves_padding_and_keeps_the_order_random():
    lengths = np.random.default_rng(0).geometric(0.05, 2000).clip(4, 128)
    grouped, _ = plan_steps(lengths, 16, 1, "length", np.random.default_rng(1))
    shuffled, _ = plan_steps(lengths, 16, 1, "random", np.random.default_rng(1))
    assert padding(grouped, lengths) < 0.1 < padding(shuffled, lengths)
    means = np.array([lengths[s].mean() for s in grouped])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_the_plan_is_a_function_of_the_seed():
    lengths = np.arange(100)
    plans = [np.concatenate(plan_steps(lengths, 8, 2, "length", np.random.default_rng(s))[0]) for s in (5, 5, 6)]
    assert np.array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])


@pytest.mark.parametrize(("epochs", "max_steps", "expected"), [
    (2.0, 0, 26), (0.5, 0, 7), (1.1, 0, 15), (0.001, 0, 1), (3.0, 5, 5), (1.0, 40, 40)])
def test_number_of_steps(epochs, max_steps, expected):
    assert len(plan_steps(np.ones(100, int), 8, epochs, "random", np.random.default_rng(0), max_steps)[0]) == expected


def test_rounding_does_not_add_a_step():
    assert 2.2 * 25 > 55  # as floating-point numbers
    assert len(plan_steps(np.ones(200, int), 8, 2.2, "random", np.random.default_rng(0))[0]) == 55


def test_a_short_plan_is_the_beginning_of_a_long_one():
    lengths = np.arange(60)
    short, _ = plan_steps(lengths, 8, 1, "length", np.random.default_rng(3), 10)
    long, _ = plan_steps(lengths, 8, 1, "length", np.random.default_rng(3), 30)
    assert len(short) == 10 and all(np.array_equal(a, b) for a, b in zip(short, long[:10], strict=True))


@pytest.mark.parametrize("accumulate", [1, 2, 4, 8])
def test_micro_batches_split_their_step_and_lose_no_row(accumulate):
    steps, per_epoch = plan_steps(np.ones(59, int), 8, 2, "random",
                                  np.random.default_rng(0))  # last batches have 3 rows
    sizes = np.random.default_rng(1).integers(1, 5, 59)  # examples of a row: words of a sentence
    plan = Plan.of(steps, per_epoch, accumulate, sizes)
    assert plan.total_steps == len(steps) == 16
    assert [m for m, _, _ in plan.batches] == list(range(16 * accumulate))
    for i, rows in enumerate(steps):
        parts = plan.batches[i * accumulate:(i + 1) * accumulate]
        assert np.array_equal(np.concatenate([p for _, p, _ in parts]), rows)
        assert all(of == sizes[rows].sum() for _, _, of in parts)
        assert plan.examples(i) == sum(sizes[before].sum() for before in steps[:i])
    assert plan.examples() == 2 * sizes.sum()


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant"])
def test_learning_rate_is_that_of_transformers(scheduler, warmup):
    import torch
    from transformers import get_scheduler

    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(names[scheduler], optimizer, warmup, 40)
    for step in range(40):
        assert learning_rate_factor(step, 40, warmup, scheduler) == pytest.approx(optimizer.param_groups[0]["lr"],
                                                                                  abs=1e-12)
        optimizer.step()
        theirs.step()
    assert learning_rate_factor(40, 40, warmup,
                                scheduler) == (1.0 if scheduler == "constant" else pytest.approx(0.0, abs=1e-12))

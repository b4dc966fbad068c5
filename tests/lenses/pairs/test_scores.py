"""Accuracy, margins, groups and ages of acquisition: against plain formulas, and in what goes wrong in practice."""

from typing import Any

import numpy as np
import pytest
from tests.oracles import pairs as oracle

from finetrace.lenses.intervals import wilson_interval
from finetrace.lenses.pairs import summary
from finetrace.lenses.pairs.acquisition import NEVER, age, crossing, resampled
from finetrace.lenses.pairs.scores import Group, Pairs, accuracy, groups, mean_margin, points

STEPS = [0, 10, 100, 1000]


def some_pairs(counts: dict[tuple[str, str, str, bool], int]) -> Pairs:
    """(field, phenomenon, paradigm, control) -> how many."""
    keys = [key for key, count in counts.items() for _ in range(count)]
    fields, phenomena, paradigms, control = zip(*keys, strict=True)
    tokens = np.arange(1, 2 * len(keys) + 1).reshape(-1, 2)
    return Pairs(fields, phenomena, paradigms, np.array(control), tokens)


def whole(count: int) -> Group:
    return Group("", "", "", False, {("p/p", False): np.arange(count)})


def test_ties_are_half_a_pair() -> None:
    good, bad = [-1.0, -2.0, -3.0, -3.0], [-2.0, -1.0, -3.0, -4.0]
    assert points(np.array(good), np.array(bad)).tolist() == [1, 0, 0.5, 1]
    assert accuracy(points(np.array(good), np.array(bad)), whole(4))[0] == oracle.accuracy(good, bad) == 0.625


def test_intervals_of_one_paradigm_are_wilsons() -> None:
    value, low, high = accuracy(np.array([1.0] * 9 + [0.0]), whole(10))
    assert (value, low, high) == (0.9, *map(pytest.approx, wilson_interval(9, 10)))
    value, low, high = accuracy(np.ones(10), whole(10))
    assert value == high == 1 and low < 0.8


def test_a_score_is_the_mean_over_paradigms_whatever_their_sizes() -> None:
    parts = {("a/x", False): np.arange(2), ("a/y", False): np.arange(2, 10)}
    worth = np.array([1.0, 1.0, *[0.0] * 8])
    value, low, high = accuracy(worth, Group("", "a", "", False, parts))
    assert value == 0.5 and low < 0.5 < high
    mean, low, high = mean_margin(np.array([[2.0, 4.0, *range(8)]]), Group("", "a", "", False, parts))
    assert mean[0] == pytest.approx((3 + 3.5) / 2) and low[0] < mean[0] < high[0]
    assert np.isnan(mean_margin(np.array([1.0]), whole(1))[1])


def test_groups_and_what_the_whole_leaves_out() -> None:
    pairs = some_pairs({("syntax", "order", "a", False): 2, ("syntax", "order", "b", False): 3,
                        ("", "facts", "c", False): 1, ("", "facts", "c", True): 4})
    found = {(g.field, g.phenomenon, g.paradigm, g.control): g for g in groups(pairs)}
    assert {key: g.pairs for key, g in found.items()} == {
        ("", "", "", False): 6, ("syntax", "", "", False): 5, ("", "order", "", False): 5, ("", "facts", "", False): 1,
        ("", "facts", "", True): 4, ("", "order", "a", False): 2, ("", "order", "b", False): 3,
        ("", "facts", "c", False): 1, ("", "facts", "c", True): 4}
    assert list(found["", "", "", False].parts) == [("order/a", False), ("order/b", False), ("facts/c", False)]


@pytest.mark.parametrize("course", [[0.5, 0.5, 0.9, 1.0], [0.5, 0.9, 0.6, 1.0], [0.4, 0.74, 0.76, 1.0],
                                    [0.5, 0.6, 0.7, 0.8]])
def test_crossing_as_the_plain_formula(course: list[float]) -> None:
    assert crossing(np.array(STEPS), np.array(course)) == pytest.approx(oracle.age(STEPS, course))


def test_crossings_of_many_curves_and_of_those_without_one() -> None:
    random = np.random.default_rng(0)
    courses = np.concatenate([random.uniform(0.3, 0.7, (40, 3)), random.uniform(0.71, 1, (40, 1))], axis=1)
    expected = [oracle.age(STEPS, course.tolist()) for course in courses]
    known = np.isfinite(expected)
    np.testing.assert_allclose(crossing(np.array(STEPS), courses)[known], np.array(expected)[known])
    assert known.sum() > 20 and (crossing(np.array(STEPS), courses)[~known] == 0).all()
    assert crossing(np.array(STEPS), np.array([0.9, 0.9, 0.9, 0.5])) == NEVER


def test_a_known_age_and_its_interval() -> None:
    """Forty of fifty pairs are got right from step 100 on, all at chance before: the middle lies between 10 and
    100."""
    worth = np.full((4, 50), 0.5)
    worth[2:] = np.arange(50) < 40
    draws = resampled(worth, whole(50).parts, 500, 1)
    found = age(np.array(STEPS), whole(50), worth.mean(axis=1), 0.67, draws)
    assert found.value == pytest.approx(10 * (10 ** (np.log10(2) + 0.5 * np.log10(11 / 2)) - 1))
    assert 10 <= found.low <= found.value <= found.high <= 100 and not found.reason
    again = age(np.array(STEPS), whole(50), worth.mean(axis=1), 0.67, resampled(worth, whole(50).parts, 500, 1))
    assert again == found


def test_ages_that_are_absent_say_why() -> None:
    draws = {("p/p", False): np.full((100, 4), 0.9)}
    steps, group = np.array(STEPS), whole(10)
    assert age(steps[:1], group, np.array([0.9]), 0.8, draws).reason == "one checkpoint"
    never = age(steps, group, np.array([0.4, 0.5, 0.5, 0.6]), 0.45, draws)
    assert never.reason == "not above chance at the end (60.0 %)" and np.isnan([never.value, never.low]).all()
    early = age(steps, group, np.full(4, 0.9), 0.8, draws)
    assert early.reason == "above the middle from the first checkpoint on (step 0)"


def test_an_interval_is_open_where_resampled_sets_never_get_there() -> None:
    course = np.array([0.5, 0.5, 0.5, 0.7])
    draws = {("p/p", False): np.stack([course, course - 0.3] * 50)}
    found = age(np.array(STEPS), whole(10), course, 0.51, draws)
    assert found.value == found.low and np.isnan(found.high)


def scored() -> tuple[Pairs, np.ndarray]:
    """Two phenomena, a control; `order` is learned at step 100, `facts` never."""
    pairs = some_pairs({("grammar", "order", "a", False): 30, ("grammar", "order", "b", False): 30,
                        ("facts", "facts", "c", False): 40, ("facts", "held-out", "c", True): 20})
    scores = np.random.default_rng(3).normal(-20, 1, (4, 120, 2))
    scores[2:, :60, 0] += 9
    return pairs, scores


def test_the_table_and_what_is_made_of_it() -> None:
    pairs, scores = scored()
    table, reasons = summary.table(STEPS, scores, pairs, draws=200, seed=5)
    own = {"field": "", "paradigm": "", "phenomenon": "order"}
    assert table.value(step=1000, statistic="accuracy", **own) == 1
    assert 10 < table.value(step=1000, statistic="age_of_acquisition", **own) < 100
    assert set(reasons) >= {"facts", "held-out (control)"} and "order" not in reasons
    margin = (scores[-1, :60, 0] - scores[-1, :60, 1])
    assert table.value(step=1000, statistic="margin_nats", **own) == pytest.approx(margin.mean())
    numbers = summary.metrics(table, STEPS, pairs)
    assert numbers["accuracy"] == pytest.approx((2 + numbers["accuracy/facts"]) / 3)
    assert numbers["pairs"] == 120 and "accuracy/held-out/control" in numbers
    assert "age_of_acquisition/order" in numbers and "age_of_acquisition/facts" not in numbers
    curves = summary.curves(table, STEPS, pairs)
    assert list(curves) == ["step", "accuracy", "accuracy/order", "accuracy/facts", "accuracy/held-out/control"]
    record = summary.drawn(table, STEPS, pairs, reasons)
    assert list(record["courses"]) == ["order", "facts", "held-out (control)"]
    assert list(record["paradigms"]) == ["order: a", "order: b", "facts: c", "held-out: c"]


def test_the_order_of_pairs_does_not_matter() -> None:
    pairs, scores = scored()
    order = np.random.default_rng(1).permutation(120)
    moved = Pairs(*([values[i] for i in order] for values in (pairs.fields, pairs.phenomena, pairs.paradigms)),
                  pairs.control[order], pairs.tokens[order])
    one, other = (dict(summary.metrics(summary.table(STEPS, s, p, draws=200, seed=5)[0], STEPS, p))
                  for s, p in ((scores, pairs), (scores[:, order], moved)))
    assert one == pytest.approx(other)


def test_length_normalised_scores() -> None:
    """The long good sentence has the lower score in all, and the higher one per token."""
    pairs = Pairs(["", ""], ["p", "p"], ["p", "p"], np.zeros(2, bool), np.array([[10, 5], [10, 5]]))
    table, _ = summary.table([1], np.full((1, 2, 2), [-10.0, -9.0]), pairs, draws=100, seed=1)
    found: dict[str, Any] = {"step": 1, "field": "", "phenomenon": "", "paradigm": ""}
    assert table.value(statistic="accuracy", **found) == 0 and table.value(statistic="accuracy_per_token", **found) == 1


def test_settings_say_what_to_do() -> None:
    from finetrace.config.base import parse
    from finetrace.errors import FinetraceError
    from finetrace.lenses.pairs.settings import PairsSettings

    assert PairsSettings().scoring == "word_l2r"
    for wrong, said in (({"scoring": "l2r"}, "scoring"), ({"draws": 3}, "draws: 3 is less than 100"),
                        ({"checkpoints": [-1]}, "not a list of steps"), ({"sett": "x"}, "did you mean 'set'")):
        with pytest.raises(FinetraceError, match=said):
            parse(PairsSettings, wrong, "params.yaml: pairs")


def test_the_line_of_an_age_holds_its_point() -> None:
    from finetrace.lenses.pairs.figures import acquisition

    nan = float("nan")
    ages = {"early": np.array([5.0, 2.0, 9.0]), "open": np.array([300.0, 40.0, nan]), "never": np.full(3, nan)}
    (panel,) = acquisition(STEPS, ages, {"never": "one reason"}, axis="steps").axes
    line, _, open_line, _ = (one.get_xdata() for one in panel.lines)
    assert list(line) == [2, 9] and list(open_line) == [40, 1000] and panel.texts[0].get_text() == "one reason"

"""The multi-bootstrap: against explicit resampled lists, invariances, coverage, and what it refuses."""

import numpy as np
import pytest
from tests.oracles import dynamics as oracle

from finetrace.lenses.dynamics.resampling import Resampling, multi_bootstrap


def lists(resampling: Resampling) -> tuple[list[list[int]], list[list[int]]]:
    """The seeds and units of every draw, written out."""
    seeds = [np.repeat(np.arange(resampling.seeds), np.rint(w * resampling.seeds).astype(int)).tolist()
             for w in resampling._seed_weights]
    units = []
    for draw in range(resampling.draws):
        members = [np.repeat(m, w[draw]) for m, w in zip(resampling._members, resampling._weights, strict=True)]
        units.append(np.concatenate(members).tolist())
    return seeds, units


@pytest.mark.parametrize("metric", ["mean", "f1"])
def test_every_draw_is_that_of_written_out_seeds_and_sentences(metric):
    random = np.random.default_rng(0)
    sentences = np.sort(random.integers(0, 9, 25))
    sentences = np.unique(sentences, return_inverse=True)[1]
    values = random.integers(0, 2, size=(3, 25, 3)) if metric == "f1" else random.integers(0, 2, size=(3, 25))
    resampling = Resampling(3, sentences, 40, seed=5)
    found = resampling.over_seeds([getattr(resampling, metric)(one) for one in values])
    seeds, units = lists(resampling)
    assert all(len(s) == 3 and len(u) == resampling.units == sentences.max() + 1
               for s, u in zip(seeds, units, strict=True))
    np.testing.assert_allclose(found.draws, oracle.drawn_scores(values, sentences.tolist(), seeds, units, metric),
                               atol=1e-12)
    once = oracle.drawn_scores(values, sentences.tolist(), [[0, 1, 2]], [list(range(resampling.units))], metric)
    assert found.value == pytest.approx(once[0], abs=1e-12)


def test_within_strata_the_mean_of_means_is_resampled():
    random = np.random.default_rng(1)
    strata = np.array(["b"] * 4 + ["a"] * 10 + ["b"] * 2)
    hits = random.integers(0, 2, size=(2, 16)).astype(float)
    resampling = Resampling(2, np.arange(16), 30, seed=1, strata=strata)
    found = resampling.by_stratum(hits[0])
    np.testing.assert_allclose(found.value, [hits[0][strata == "a"].mean(), hits[0][strata == "b"].mean()])
    _, units = lists(resampling)
    for name, column in (("a", 0), ("b", 1)):
        inside = [[u for u in drawn if strata[u] == name] for drawn in units]
        assert all(len(drawn) == (strata == name).sum() for drawn in inside)
        np.testing.assert_allclose(found.draws[:, column],
                                   oracle.drawn_scores(hits, list(range(16)), [[0]] * 30, inside, "mean"))
    np.testing.assert_allclose(resampling.mean(hits[1]).value, np.mean([hits[1][strata == s].mean() for s in "ab"]))


def test_paired_arms_share_seeds_and_examples():
    random = np.random.default_rng(2)
    original = random.random((4, 200)) < 0.6
    adapted = original & (random.random((4, 200)) < 0.95)
    paired = multi_bootstrap(adapted, original, draws=500, seed=3)
    alone = [multi_bootstrap(arm, draws=500, seed=s) for s, arm in ((3, adapted), (4, original))]
    assert paired.value == pytest.approx(alone[0].value - alone[1].value)
    assert paired.high < 0 and paired.p == pytest.approx(1 / 501)
    assert paired.high - paired.low < 0.7 * (alone[0].high - alone[0].low)  # what both share cancels
    back = multi_bootstrap(original, adapted, draws=500, seed=3)
    np.testing.assert_allclose([back.value, back.low, back.high], [-paired.value, -paired.high, -paired.low])
    assert back.p == paired.p
    same = multi_bootstrap(original, original, draws=100)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert np.isnan(alone[0].p)


def test_permuting_seeds_or_examples_changes_only_the_draws():
    random = np.random.default_rng(3)
    hits = random.random((5, 300)) < np.array([0.5, 0.55, 0.6, 0.65, 0.7])[:, None]
    plain = multi_bootstrap(hits, draws=2000)
    for other in (hits[::-1], hits[:, random.permutation(300)]):
        found = multi_bootstrap(other, draws=2000)
        assert found.value == pytest.approx(plain.value)
        np.testing.assert_allclose([found.low, found.high], [plain.low, plain.high], atol=0.01)
    names = np.repeat([f"s{i}" for i in range(150)], 2)  # sentences in another order, their targets apart
    order = random.permutation(300)
    one, other = (multi_bootstrap(hits[:, o], units=names[o], draws=200) for o in (np.arange(300), order))
    np.testing.assert_allclose([one.value, one.low, one.high], [other.value, other.low, other.high])


def test_more_examples_of_the_same_sentences_make_no_narrower_interval():
    hits = np.random.default_rng(4).random((3, 60)) < 0.5
    once = multi_bootstrap(hits, draws=500)
    again = multi_bootstrap(np.repeat(hits, 3, axis=1), units=np.repeat(np.arange(60), 3), draws=500)
    np.testing.assert_allclose([once.low, once.high], [again.low, again.high])


def test_with_one_seed_only_examples_are_resampled_and_this_is_said():
    hits = np.random.default_rng(5).random((1, 80)) < 0.5
    one = multi_bootstrap(hits, draws=300)
    assert one.resampled == "examples" and one.low < one.value < one.high
    assert multi_bootstrap(np.repeat(hits, 2, axis=0), draws=300).resampled == "seeds and examples"
    numbers = Resampling(1, np.arange(3), 50, 0).of_numbers(np.array([[2.0, 3.0]]))
    assert numbers.value.tolist() == [2, 3] and np.isnan(numbers.interval()).all() and np.isnan(numbers.p()).all()
    several = Resampling(4, np.arange(3), 400, 0).of_numbers(np.array([1.0, 2.0, 3.0, 4.0]))
    low, high = several.interval()
    assert several.value == 2.5 and 1 <= low < 2 < 3 < high <= 4


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random, covered, of_examples, of_hits = np.random.default_rng(6), 0, 0, 0
    for trial in range(200):
        seeds, examples = random.normal(0, 0.05, size=(10, 1)), random.uniform(-0.25, 0.25, size=(1, 60))
        scores = 0.6 + seeds + examples
        found = multi_bootstrap(scores, draws=200, seed=trial)
        covered += bool(found.low <= 0.6 <= found.high)
        one = multi_bootstrap(scores[:1], draws=200, seed=trial)  # one training says little about the mean of all
        of_examples += bool(one.low <= 0.6 <= one.high)
        hits = multi_bootstrap(random.random((10, 60)) < scores, draws=200, seed=trial)
        of_hits += bool(hits.low <= 0.6 <= hits.high)
    assert 0.88 <= covered / 200 <= 0.98 and of_examples / 200 < 0.85
    assert of_hits / 200 >= 0.95  # what belongs to neither seed nor example is counted more than once: cautious


def test_f1_without_anything_to_find_is_zero_and_shapes_are_kept():
    resampling = Resampling(1, np.arange(4), 20, 0)
    assert resampling.f1(np.zeros((4, 3))).value == 0
    counts = np.zeros((2, 5, 4, 3), dtype=np.uint8)
    counts[..., 0] = 1
    found = resampling.f1(counts)
    assert found.value.shape == (2, 5) and found.draws.shape == (20, 2, 5) and (found.draws == 1).all()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: multi_bootstrap(np.zeros((2, 3)), np.zeros((2, 4))), "the other arm"),
    (lambda: multi_bootstrap(np.zeros((2, 3)), metric="auc"), "metric: 'auc' is none of"),
    (lambda: multi_bootstrap(np.zeros((2, 3)), metric="f1"), "hits: have shape"),
    (lambda: Resampling(0, np.arange(3), 10, 0), "at least one of both"),
    (lambda: Resampling(1, np.arange(3), 10, 0, np.zeros(2)), "strata: 2 of 3"),
    (lambda: Resampling(1, np.array([0, 0]), 10, 0, np.array([0, 1])), "lies in two strata"),
    (lambda: Resampling(1, np.arange(3), 10, 0).mean(np.zeros(4)), "4 items instead of 3"),
    (lambda: Resampling(2, np.arange(3), 10, 0).of_numbers(np.zeros(3)), "3 trainings instead of 2")])
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

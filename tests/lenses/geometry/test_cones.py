"""Class cones: the worked cases, loop oracles for any number of classes, and classes too small to compare."""

import math

import numpy as np
import pytest
from tests.oracles import geometry as oracle

from finetrace.lenses.geometry import cones


def classes(rows: int = 24, dim: int = 6, count: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes of unequal size whose labels are not 0, 1, 2."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.r_[np.arange(count), np.arange(count), random.integers(0, count, rows - 2 * count)])
    return random.normal(size=(rows, dim)) + 2 * random.normal(size=(count, dim))[labels], 3 + 2 * labels


def test_two_opposite_classes_are_at_plus_and_minus_1_and_the_first_value_is_exactly_1() -> None:
    direction = np.array([0.3, -1.7, 2.2])
    labels = np.array([0, 1, 0, 1, 1])
    vectors = np.where(labels == 0, 1, -1)[:, None] * direction * np.array([1, 2, 3, 0.1, 7])[:, None]
    found = cones.cone(vectors, labels, "first")
    assert found[0] == 1.0
    np.testing.assert_allclose(found, [1, -1, 1, -1, -1], rtol=0, atol=1e-15)
    statistics = cones.cone_statistics(vectors, labels)
    assert (statistics.within, statistics.between) == (pytest.approx(1), pytest.approx(-1))
    assert statistics.angle == pytest.approx(180, abs=1e-6)


def test_two_orthogonal_classes_are_at_1_and_0() -> None:
    labels = np.array([1, 1, 0, 0])
    vectors = np.eye(3)[labels] * [[1], [5], [2], [9]]
    np.testing.assert_allclose(cones.cone(vectors, labels, 0), [1, 1, 0, 0], rtol=0, atol=1e-15)
    np.testing.assert_allclose(cones.cone(vectors, labels), [[0, 1], [0, 1], [1, 0], [1, 0]], rtol=0, atol=1e-15)
    statistics = cones.cone_statistics(vectors, labels)
    assert (statistics.within, statistics.between) == (pytest.approx(1), pytest.approx(0))
    assert statistics.angle == pytest.approx(90)
    np.testing.assert_allclose(statistics.similarity, np.eye(2), rtol=0, atol=1e-15)


@pytest.mark.parametrize("reference", [0, 7, -1])
def test_the_cosine_with_any_row_is_that_of_the_oracle_and_exactly_1_for_itself(reference: int) -> None:
    vectors, labels = classes()
    found = cones.cone(vectors, labels, reference)
    assert found[reference] == 1.0 and found.shape == (24,)
    np.testing.assert_allclose(found, [oracle.cosine(v, vectors[reference]) for v in vectors], rtol=0, atol=1e-14)


@pytest.mark.parametrize("mean_of", ["units", "vectors"])
def test_cosines_with_class_means_of_either_kind(mean_of: cones.MeanOf) -> None:
    vectors, labels = classes()
    vectors[labels == 5] *= np.linspace(0.1, 30, (labels == 5).sum())[:, None]  # long vectors rule the mean of vectors
    basis = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if mean_of == "units" else vectors
    means = [basis[labels == c].mean(axis=0) for c in (3, 5, 7)]
    expected = [[oracle.cosine(v, m) for m in means] for v in vectors]
    found = cones.cone(vectors, labels, mean_of=mean_of)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def slow_own_and_other(vectors, labels):
    """Of each row, the cosine with the mean direction of the others of its class, and of each other class."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    own, other = [], []
    for i, label in enumerate(labels):
        rest = (labels == label) & (np.arange(len(labels)) != i)
        own.append(oracle.cosine(units[i], units[rest].mean(axis=0)))
        other += [oracle.cosine(units[i], units[labels == c].mean(axis=0)) for c in set(labels) - {label}]
    return np.mean(own), np.mean(other)


@pytest.mark.parametrize("count", [2, 3])
def test_a_row_is_left_out_of_its_own_mean_and_groups_of_all_means(count: int) -> None:
    vectors, labels = classes(30, 5, count)
    groups = np.arange(30) % 4
    found = cones.own_and_other(vectors, labels, groups)
    assert found.shape == (5, 2)
    np.testing.assert_allclose(found[0], slow_own_and_other(vectors, labels), rtol=0, atol=1e-12)
    for g in range(4):
        kept = groups != g
        np.testing.assert_allclose(found[1 + g], slow_own_and_other(vectors[kept], labels[kept]), rtol=0, atol=1e-12)


def test_noise_has_no_own_class_cosine() -> None:
    """Random directions in many dimensions are alike in no class; a row in its own mean made them look so."""
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(60, 2000)), np.arange(60) % 3
    (own, other), = cones.own_and_other(vectors, labels)
    assert abs(own) < 0.02 and abs(other) < 0.02
    assert cones.cone(vectors, labels)[np.arange(60), labels].mean() > 0.2


def test_the_interval_of_own_and_other_class_covers_the_truth() -> None:
    from finetrace.lenses.intervals import groups_of, jackknife_interval

    random, hits, values, ends = np.random.default_rng(2), np.zeros(2), [], []
    for draw in range(150):
        labels = np.arange(120) % 2
        vectors = random.normal(size=(120, 8)) + np.where(labels[:, None] == 0, 0.6, -0.2)
        found = cones.own_and_other(vectors, labels, groups_of(120, 20, draw))
        values.append(found[0])
        ends.append(jackknife_interval(found[0], found[1:]))
    truth = np.mean(values, axis=0)
    for low, high in ends:
        hits += (low <= truth) & (truth <= high)
    assert (hits >= 0.88 * 150).all() and (hits <= 149).all()


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("units", [True, False])
def test_statistics_equal_the_loops_over_all_pairs(count: int, units: bool) -> None:
    vectors, labels = classes(30, 5, count)
    found = cones.cone_statistics(vectors, labels, "units" if units else "vectors")
    expected = oracle.cones(vectors, labels, units)
    np.testing.assert_allclose(found.similarity, expected["similarity"], rtol=0, atol=1e-12)
    for name in ("within", "between", "angle", "scatter_ratio"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-9), name


def test_statistics_do_not_change_with_rotation_scale_row_order_and_names_of_classes() -> None:
    vectors, labels = classes()
    expected = cones.cone_statistics(vectors, labels)
    order = np.random.default_rng(1).permutation(len(labels))
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    for changed in ((4 * vectors @ turn, labels), (vectors[order], labels[order]), (vectors, 100 - labels)):
        found = cones.cone_statistics(*changed)
        for name in ("within", "between", "angle", "scatter_ratio"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-10), name


def test_scatter_keeps_its_digits_far_from_the_origin() -> None:
    vectors, labels = classes()
    expected = cones.cone_statistics(vectors, labels).scatter_ratio
    assert cones.cone_statistics(vectors + 1e7, labels).scatter_ratio == pytest.approx(expected, rel=1e-6)


def test_classes_that_are_points_are_infinitely_apart_and_coinciding_ones_not_at_all() -> None:
    labels = np.array([0, 0, 1, 1])
    assert math.isinf(cones.cone_statistics(np.eye(2)[labels], labels).scatter_ratio)
    assert cones.cone_statistics(np.eye(2)[[0, 1, 0, 1]], labels).scatter_ratio == pytest.approx(0)
    assert math.isnan(cones.cone_statistics(np.ones((4, 2)), labels).scatter_ratio)


def test_a_class_of_one_row_is_its_own_mean_and_has_no_pairs() -> None:
    vectors, labels = np.array([(1.0, 0), (1, 1), (0, 2)]), np.array([0, 0, 1])
    found = cones.cone_statistics(vectors, labels)
    assert math.isnan(found.similarity[1, 1]) and found.within == pytest.approx(math.sqrt(0.5))
    assert cones.cone(vectors, labels)[2, 1] == 1.0
    alone = cones.cone_statistics(vectors[1:], labels[1:])
    assert (
        math.isnan(alone.within) and alone.between == pytest.approx(math.sqrt(0.5)) and alone.angle == pytest.approx(45)
    )


def test_one_class_only_is_refused_but_its_cosines_are_defined() -> None:
    vectors = classes()[0]
    labels = np.full(len(vectors), 4)
    with pytest.raises(ValueError, match="labels hold one class, 4: cones compare classes"):
        cones.cone_statistics(vectors, labels)
    found = cones.cone(vectors, labels)
    assert found.shape == (24, 1)
    (own, other), = cones.own_and_other(vectors, labels)
    assert own < found.mean() and np.isnan(other)


def test_a_zero_vector_has_no_direction() -> None:
    vectors, labels = np.array([(0.0, 0), (1, 0), (1, 1)]), np.array([0, 0, 1])
    assert cones.cone(vectors, labels, "first").tolist() == [0, 0, 0]
    assert cones.cone_statistics(vectors, labels).within == pytest.approx(0, abs=1e-15)
    opposite = np.array([(1.0, 0), (-1, 0), (0, 1)])  # the mean of class 0 is zero: no angle
    assert math.isnan(cones.cone_statistics(opposite, labels).angle)


def test_leaving_groups_out_equals_computing_without_them() -> None:
    vectors, labels = classes(40)
    groups = np.arange(40) % 4
    found = cones.left_out_statistics(cones.class_sums(vectors, labels, groups))
    assert len(found) == 4
    for g, one in enumerate(found):
        expected = cones.cone_statistics(vectors[groups != g], labels[groups != g])
        for name in ("within", "between", "angle", "scatter_ratio"):
            assert getattr(one, name) == pytest.approx(getattr(expected, name), rel=1e-9), name
        np.testing.assert_allclose(one.similarity, expected.similarity, rtol=0, atol=1e-12)
    assert cones.left_out_statistics(cones.class_sums(vectors, labels)) == []


def test_a_class_that_is_left_out_whole_gives_nan_not_an_error() -> None:
    vectors, labels = classes(12, count=2)
    first, *_ = cones.left_out_statistics(cones.class_sums(vectors, labels, (labels == labels.max()).astype(int)))
    assert math.isnan(first.within) and math.isnan(first.angle) and math.isnan(first.similarity[0, 0])


@pytest.mark.parametrize(("vectors", "labels", "message"), [
    (np.ones((3, 2)), np.zeros(2), r"vectors \(3, 2\) and labels \(2,\)"),
    (np.ones(3), np.zeros(3), r"vectors \(3,\)"),
    (np.empty((0, 2)), np.empty(0), "at least one row"),
    (np.array([(1.0, 1), (np.inf, 0)]), np.zeros(2), "row 1 holds NaN or infinity"),
])
def test_bad_input_is_refused(vectors: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cones.cone(vectors, labels)


@pytest.mark.parametrize("reference", ["last", 24, -25])
def test_an_unknown_reference_is_refused(reference) -> None:
    with pytest.raises(ValueError, match=r"take 'class_mean', 'first' or a row number below 24"):
        cones.cone(*classes(), reference)

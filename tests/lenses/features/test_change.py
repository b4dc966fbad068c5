"""Feature change against slow oracles, invariances, worked numbers, and what is undefined."""

import numpy as np
import pytest
from tests.oracles import features as oracle

from finetrace.lenses.features import change as lens
from finetrace.lenses.intervals import jackknife_interval


def classes_apart(rows: int = 40, dim: int = 6, classes: int = 3, seed: int = 0, shift: float = 1.0) -> tuple:
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    return random.normal(size=(rows, dim)) + shift * random.normal(size=(classes, dim))[labels], labels


# --- cosine -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", [False, True])
def test_the_mean_cosine_is_that_of_all_pairs(diagonal: bool) -> None:
    x = classes_apart()[0] + 0.5
    found = lens.cosine_similarity(x, diagonal=diagonal)
    assert found.value == pytest.approx(oracle.cosine(x, diagonal), abs=1e-13) and found.n == 40 and np.isnan(found.low)


def test_worked_cosines() -> None:
    assert lens.cosine_similarity(np.outer([1.0, 2, 5], [3.0, 4])).value == pytest.approx(1)
    assert lens.cosine_similarity(np.eye(4)).value == 0 and lens.cosine_similarity(np.eye(4),
                                                                                   diagonal=True).value == 0.25
    assert lens.cosine_similarity(np.array([[1.0, 0], [-2, 0]])).value == -1
    assert np.isnan(lens.cosine_similarity(np.ones((1, 3))).value)


def test_a_feature_of_length_zero_has_no_direction() -> None:
    x = classes_apart(rows=10)[0]
    found = lens.cosine_similarity(np.concatenate([x, np.zeros((2, 6))]))
    assert found.value == pytest.approx(lens.cosine_similarity(x).value, abs=1e-14) and found.n == 10


def test_rotation_scale_and_order_do_not_change_the_cosine() -> None:
    x = classes_apart()[0]
    random = np.random.default_rng(1)
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    scaled = random.uniform(0.1, 9, size=(40, 1)) * x[random.permutation(40)] @ rotation
    other = random.uniform(0.1, 9, size=(40, 1)) * x @ rotation
    for changed in (scaled / np.linalg.norm(scaled, axis=1, keepdims=True), other):
        assert lens.cosine_similarity(changed).value == pytest.approx(lens.cosine_similarity(x).value, abs=1e-13)


def test_intervals_leave_out_whole_units() -> None:
    x = classes_apart(rows=30)[0] + 1
    sentences = np.arange(30) // 2
    units = lens.Units(sentences, groups=5, seed=3)
    assert units.count == 5 and all(len(set(units.group[sentences == s])) == 1 for s in range(15))
    kept = [x[units.group != g] for g in range(5)]
    expected = jackknife_interval(oracle.cosine(x), np.array([oracle.cosine(part) for part in kept]))
    found = lens.cosine_similarity(x, units)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12) and found.low < found.value < found.high
    norms = np.linalg.norm(x, axis=1)
    expected = jackknife_interval(norms.mean(), np.array([norms[units.group != g].mean() for g in range(5)]))
    found = lens.mean_norm(x, units)
    assert (found.value, found.low, found.high) == pytest.approx((norms.mean(), *expected), abs=1e-12)


def test_one_unit_gives_no_interval() -> None:
    found = lens.cosine_similarity(np.eye(3), lens.Units(np.zeros(3)))
    assert found.value == 0 and np.isnan([found.low, found.high]).all()


# --- change -------------------------------------------------------------------------------------------------------


def test_the_change_is_the_length_of_the_difference() -> None:
    before = classes_apart()[0]
    after = before @ np.diag([1.0, -1, 1, 1, 2, 1]) + 0.1
    found = lens.feature_change(before, after, lens.Units(np.arange(40)))
    assert found.value == pytest.approx(np.mean([np.sqrt(((a - b) ** 2).sum())
                                                 for a, b in zip(after, before, strict=True)]))
    lengths = np.abs(np.linalg.norm(after, axis=1) - np.linalg.norm(before, axis=1)).mean()
    assert found.value >= lengths and found.low < found.value < found.high
    assert lens.feature_change(before, before).value == 0
    assert lens.feature_change(before, -before).value == pytest.approx(2 * lens.mean_norm(before).value)
    with pytest.raises(ValueError, match=r"\(40, 6\) and \(39, 6\)"):
        lens.feature_change(before, after[1:])


# --- Fisher ratio -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "dim"), [(60, 5), (12, 12), (9, 30)])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_fisher_ratio_is_that_of_the_written_out_matrices(rows: int, dim: int, classes: int) -> None:
    x, labels = classes_apart(rows, dim, classes)
    found = lens.fisher_ratio(x, labels, ridge=0.05)
    value, ridge = oracle.fisher(x, labels, lens.RCOND, 0.05)
    assert (found.value, found.ridge) == pytest.approx((value, ridge), rel=1e-9)
    assert found.rank == min(dim, rows - classes) and found.singular == (rows - classes < dim)
    within, between = oracle.scatter(x, labels)
    kept = np.linalg.pinv(within, rcond=lens.RCOND, hermitian=True) @ within
    assert found.lost == pytest.approx(1 - np.trace(kept @ between @ kept) / np.trace(between), abs=1e-9)


def test_a_worked_ratio() -> None:
    x = np.array([[-1.0], [1.0], [3.0], [5.0]])  # class means 0 and 4, scatter 2 within each
    found = lens.fisher_ratio(x, np.array([0, 0, 1, 1]), ridge=0.5)
    assert found.value == pytest.approx(16 / 4) and found.ridge == pytest.approx(16 / 6)
    assert (found.rank, found.singular) == (1, False) and found.lost == pytest.approx(0, abs=1e-12)


def test_the_ratio_is_the_same_for_every_invertible_map_unless_singular() -> None:
    x, labels = classes_apart(60, 5)
    random = np.random.default_rng(2)
    mapped = x @ random.normal(size=(5, 5)) + 7
    assert lens.fisher_ratio(mapped, labels).value == pytest.approx(lens.fisher_ratio(x, labels).value, rel=1e-9)
    few, labels = classes_apart(12, 30)
    mapped = few @ random.normal(size=(30, 30))
    assert lens.fisher_ratio(mapped, labels).value != pytest.approx(lens.fisher_ratio(few, labels).value, rel=0.1)


def test_scale_repetition_and_names_of_classes_do_not_change_the_ratio() -> None:
    for rows in (60, 8):  # regular and singular
        x, labels = classes_apart(rows, 10)
        whole = lens.fisher_ratio(x, labels)
        for features, names in ((100 * x, labels), (np.tile(x, (3, 1)), np.tile(labels, 3)), (x + 50, 40 - 7 * labels)):
            other = lens.fisher_ratio(features, names)
            assert (other.value, other.ridge, other.rank) == pytest.approx((whole.value, whole.ridge, whole.rank),
                                                                           rel=1e-6)


def test_the_one_flat_direction_behind_a_layer_norm_is_not_called_singular() -> None:
    x, labels = classes_apart(60, 10)
    normed = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True) * np.linspace(0.5, 2, 10) + 1
    found = lens.fisher_ratio(normed.astype(np.float32), labels)
    assert (found.rank, found.singular) == (9, False) and found.lost < 1e-9
    one_less = lens.fisher_ratio(normed[:, 1:], labels)  # that coordinate follows from the others
    assert found.value == pytest.approx(one_less.value, rel=1e-4)


def test_noise_of_float32_is_not_taken_for_a_direction() -> None:
    x, labels = classes_apart(60, 10)
    flat = np.concatenate([x, x @ np.random.default_rng(3).normal(size=(10, 10))], axis=1) + 3.0
    exact, stored = lens.fisher_ratio(flat, labels), lens.fisher_ratio(flat.astype(np.float32), labels)
    assert stored.rank == exact.rank == 10 and stored.value == pytest.approx(exact.value, rel=1e-3)


def test_ratios_that_are_undefined_say_so() -> None:
    x = classes_apart()[0]
    alone = lens.fisher_ratio(x, np.zeros(40, dtype=int))
    assert np.isnan([alone.value, alone.ridge]).all()
    points = lens.fisher_ratio(np.repeat(np.random.default_rng(0).normal(size=(3, 5)), 4, axis=0) + 0.1,
                               np.arange(12) // 4)
    assert np.isnan(points.value) and points.singular and points.rank == 0
    same_means = lens.fisher_ratio(np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]]), np.array([0, 0, 1, 1]))
    assert (same_means.value, same_means.lost) == (0, 0)
    single = lens.fisher_ratio(x, np.where(np.arange(40) == 0, 2, np.arange(40) % 2))  # a class of one example
    assert np.isfinite(single.value) and single.value > 0


# --- head ---------------------------------------------------------------------------------------------------------


def test_head_rows_against_class_means() -> None:
    weight, x = np.array([[2.0, 0], [0, 3], [0, 0]]), np.array([[1.0, 1], [3, 3], [0, 5]])
    means = lens.class_means(x, np.array([0, 0, 1]), 3)
    np.testing.assert_allclose(means, [[2, 2], [0, 5], [np.nan, np.nan]])
    np.testing.assert_allclose(lens.head_cosines(weight, means),
                               [[np.sqrt(0.5), 0, np.nan], [np.sqrt(0.5), 1, np.nan], [np.nan] * 3], atol=1e-15)
    assert lens.head_norm(weight) == pytest.approx(np.sqrt(13)) and lens.head_norm(5 * weight) == pytest.approx(
        5 * np.sqrt(13)
    )


# --- pictures -----------------------------------------------------------------------------------------------------


def test_the_plane_holds_the_largest_variance() -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(50, 5)) * [1, 9, 0.1, 3, 0.5]
    found = lens.plane(x + 4)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(found.shares, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-10)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(2), atol=1e-12)
    assert np.abs(found.axes[0]).argmax() == 1 and found.axes[0, 1] > 0.9 and found.axes[1, 3] > 0.9
    np.testing.assert_allclose(found.centre, (x + 4).mean(axis=0))
    assert lens.plane(np.ones((3, 2))).shares.tolist() == [0, 0]


def test_tsne_keeps_neighbours_together_and_depends_on_the_seed_only() -> None:
    x, labels = classes_apart(45, 8, shift=6)
    found = lens.tsne(10 * x, seed=1)
    np.testing.assert_array_equal(found, lens.tsne(x, seed=1))  # directions only
    gaps = np.linalg.norm(found[:, None] - found[None], axis=-1) + 1e9 * np.eye(45)
    assert (labels[gaps.argmin(axis=1)] == labels).mean() > 0.95
    assert lens.tsne(np.ones((6, 3)), seed=0).tolist() == [[0, 0]] * 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lens.cosine_similarity(np.array([[1.0, np.nan], [1, 1]])), "row 0 holds NaN"),
        (lambda: lens.cosine_similarity(np.ones(3)), r"shape \(3,\)"),
        (lambda: lens.mean_norm(np.empty((0, 3))), r"shape \(0, 3\)"),
        (lambda: lens.fisher_ratio(np.eye(3), np.zeros(2)), r"shape \(2,\) instead of \(3,\)"),
        (lambda: lens.fisher_ratio(np.eye(3), np.arange(3), rcond=0), "rcond 0 must be"),
        (lambda: lens.fisher_ratio(np.eye(3), np.arange(3), ridge=0), "ridge 0 above 0"),
        (lambda: lens.plane(np.ones((1, 3))), "two points"),
        (lambda: lens.tsne(np.eye(4), 0), "4 are too few"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]

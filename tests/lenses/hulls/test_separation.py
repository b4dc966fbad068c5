"""Disjoint or not, with proof, and exact distances: worked numbers, certificates, an independent solver, invariances,
bad input."""

import numpy as np
import pytest
from tests.oracles import hulls as oracle

from finetrace.lenses.hulls import separation
from finetrace.lenses.hulls.blas_threads import one_blas_thread
from finetrace.lenses.hulls.nearest_points import Nearest, nearest_points
from finetrace.lenses.hulls.separation import (
    CommonPoint,
    Plane,
    Verdict,
    hull_distance,
    point_distance,
    reduced,
    separable,
)

SQUARE = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
SIMPLEX = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)


def cloud(seed: int, count: int, dim: int, shift: float = 0.0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, dim))
    points[:, 0] += shift
    return points


def moved(points: np.ndarray, *by: float) -> np.ndarray:
    return points + np.array(by)


def rotation(dim: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def assert_proved(a: np.ndarray, b: np.ndarray, verdict: Verdict) -> None:
    """Check a certificate by arithmetic alone."""
    if verdict.answer == "yes":
        plane = verdict.certificate
        assert isinstance(plane, Plane) and np.linalg.norm(plane.w) == pytest.approx(1)
        on_a, on_b = a @ plane.w + plane.offset, b @ plane.w + plane.offset
        assert on_a.min() > 0 > on_b.max()
        assert on_a.min() - on_b.max() == pytest.approx(verdict.margin, rel=1e-6, abs=1e-12 * np.abs(a).max())
        assert verdict.margin == plane.gap > 0
    else:
        point = verdict.certificate
        assert verdict.answer == "no" and verdict.margin == 0 and isinstance(point, CommonPoint)
        for rows, index, weights in ((a, point.a_index, point.a_weights), (b, point.b_index, point.b_weights)):
            assert (weights > 0).all() and weights.sum() == pytest.approx(1, abs=1e-14)
            np.testing.assert_allclose(weights @ rows[index], point.point, rtol=0, atol=1e-9 * np.abs(rows).max())
        assert point.residual <= 1e-9 * verdict.radius


# --- worked numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (SQUARE, moved(SQUARE, 3, 0), 2),
        (SQUARE, moved(SQUARE, 4, 4), 4.242640687119285),
        ([[0, 0], [0, 2]], [[1, 1], [5, 1]], 1),
        ([[0, 0]], [[3, 4]], 5),
        (SIMPLEX, [[1, 1, 1]], 1.1547005383792517),
        (SIMPLEX, [[2, 2, 2], [3, 2, 2], [2, 3, 2]], 2.886751345948129),
        ([[1, 3], [15, 3], [1, 6], [15, 6]], [[1, -3], [2, -3], [1, -1], [2, -1]], 4),
        ([[0, 0], [2, 2]], [[0, 2], [2, 0]], 0),
        (SQUARE, moved(SQUARE, 1, 0), 0),
        (SQUARE, moved(SQUARE, 1, 1), 0),
        (SQUARE, moved(SQUARE, 1, 0.3), 0),
        (SQUARE, SQUARE * 0.1 + 0.3, 0),
        (SQUARE, SQUARE, 0),
        ([[2.0, 3.0]], [[2.0, 3.0]], 0),
    ],
)
def test_distance_and_verdict_of_known_shapes(a: list, b: list, distance: float) -> None:
    a, b = np.array(a, float), np.array(b, float)
    for one, other in ((a, b), (b, a)):
        found = hull_distance(one, other)
        assert found.distance == pytest.approx(distance, abs=1e-14)
        assert 0 <= found.gap <= 1e-10
        np.testing.assert_allclose(np.linalg.norm(found.a_point - found.b_point), distance, atol=1e-14)
        verdict = separable(one, other)
        assert verdict.answer == ("yes" if distance else "no") and not verdict.touching
        assert 0 <= verdict.margin <= distance + 1e-14
        assert_proved(one, other, verdict)


@pytest.mark.parametrize(
    ("point", "hull", "distance"),
    [
        ((3, 0.5), SQUARE, 2),
        ((0.5, 0.5), SQUARE, 0),
        ((1, 0.5), SQUARE, 0),
        ((1, 1), SQUARE, 0),
        ((10, -5), [[5, 10], [0, 5], [10, 5], [5, 0]], 7.071067811865475),
    ],
)
def test_distance_of_a_point_to_a_hull(point: tuple, hull: list, distance: float) -> None:
    assert point_distance(np.array(point, float), np.array(hull, float)).distance == pytest.approx(distance, abs=1e-14)


@pytest.mark.parametrize("gap", [1e-4, 1e-6, 1e-7, 1e-9, 1e-11])
def test_a_tiny_gap_is_proved_and_flagged_as_touching_below_a_millionth_of_the_radius(gap: float) -> None:
    other = moved(SQUARE, 1 + gap, 0)
    verdict = separable(SQUARE, other)
    assert verdict.answer == "yes" and verdict.touching == (gap < 1e-6 * verdict.radius)
    assert verdict.margin == pytest.approx(gap, abs=3e-16)
    assert_proved(SQUARE, other, verdict)
    assert hull_distance(SQUARE, other).distance == pytest.approx(gap, abs=3e-16)


@pytest.mark.parametrize("gap", [1e-13, 0, -1e-12, -1e-6, -1e-3])
def test_squares_that_touch_or_overlap_a_little_have_a_common_point(gap: float) -> None:
    other = moved(SQUARE, 1 + gap, 0.25)
    assert separable(SQUARE, other).answer == "no"
    assert_proved(SQUARE, other, separable(SQUARE, other))
    assert hull_distance(SQUARE, other).distance == 0


def test_touching_squares_far_from_the_origin_are_not_called_apart_by_rounding() -> None:
    turn = rotation(2)
    for where in (0, 1e3, 1e6):
        a, b = (SQUARE + where) @ turn, (moved(SQUARE, 1, 0.25) + where) @ turn
        found = separable(a, b)
        assert found.answer == "no" or (found.touching and found.margin < 1e-9)
        apart = separable(a, (moved(SQUARE, 1.001, 0.25) + where) @ turn)
        assert apart.answer == "yes" and apart.margin <= 0.001 * (1 + 1e-6)


# --- certificates and an independent solver -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_random_hulls_agree_with_linear_programs_and_quadratic_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(6):
        dim = int(rng.integers(1, 11))
        a = cloud(int(rng.integers(1e6)), int(rng.integers(1, 15)), dim)
        b = cloud(int(rng.integers(1e6)), int(rng.integers(1, 15)), dim, shift=float(rng.choice([0, 1, 3])))
        verdict = separable(a, b)
        assert (verdict.answer == "no") == oracle.hulls_meet(a, b)
        assert_proved(a, b, verdict)
        found = hull_distance(a, b)
        assert (found.distance == 0) == (verdict.answer == "no")
        if found.distance:
            assert found.distance == pytest.approx(oracle.distance(a, b), rel=1e-6)
            assert found.gap <= 1e-8 * found.distance
            assert verdict.margin <= found.distance * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_small_integer_grids_with_shared_borders_agree_with_linear_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = []
    for _ in range(25):
        a, b = rng.integers(0, 4, (int(rng.integers(1, 7)), 3)), rng.integers(0, 4, (int(rng.integers(1, 7)), 3))
        verdict = separable(a, b)
        assert (verdict.answer == "no") == oracle.hulls_meet(a.astype(float), b.astype(float))
        assert_proved(a.astype(float), b.astype(float), verdict)
        answers.append(verdict.answer)
    assert {"yes", "no"} == set(answers)


@pytest.mark.parametrize(("count", "dim", "shift"), [(150, 64, 3.0), (150, 64, 0.5), (80, 200, 0.3), (400, 8, 6.0)])
def test_larger_hulls_are_bounded_from_both_sides(count: int, dim: int, shift: float) -> None:
    a, b = cloud(1, count, dim), cloud(2, count, dim, shift)
    found = nearest_points(a, b)
    if found.upper < 1e-9:
        assert oracle.hulls_meet(a, b)
    else:
        assert 0 < found.lower <= found.upper <= found.lower * (1 + 1e-9)
        assert (a @ found.normal).min() - (b @ found.normal).max() == pytest.approx(found.lower, rel=1e-9)
        nearest = found.a_weights @ a[found.a_index] - found.b_weights @ b[found.b_index]
        assert np.linalg.norm(nearest) == pytest.approx(found.upper, rel=1e-12)
    assert_proved(a, b, separable(a, b))


def test_exact_distance_is_just_above_that_of_a_converged_hard_margin_machine() -> None:
    from sklearn.svm import SVC

    for seed in range(3):
        a, b = cloud(seed, 30, 5), cloud(seed + 10, 30, 5, 8.0)
        machine = SVC(kernel="linear", C=1e6, tol=1e-6).fit(np.vstack([a, b]), [1] * 30 + [-1] * 30)
        w = machine.coef_[0] / np.linalg.norm(machine.coef_)
        lower = (a @ w).min() - (b @ w).max()
        exact = hull_distance(a, b).distance
        assert lower <= exact * (1 + 1e-12) and exact == pytest.approx(lower, rel=1e-5)


def test_nearly_dependent_points_keep_their_digits() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 3))
    a = np.vstack([base, base + 1e-9 * rng.normal(size=(6, 3)), base + 1e-7 * rng.normal(size=(6, 3))])
    b = moved(a[::-1], 8, 0, 0)
    found = hull_distance(a, b)
    assert found.gap <= 1e-8 * found.distance
    assert found.distance == pytest.approx(oracle.distance(a, b), rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_flat_and_stretched_hulls_are_measured_to_a_millionth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for dim in (5, 10, 30, 100):
        stretch = 10.0 ** rng.uniform(-4, 4, dim)  # the largest axis is up to 1e8 times the smallest
        a, b = cloud(int(rng.integers(1e6)), 60, dim) * stretch, cloud(int(rng.integers(1e6)), 40, dim) * stretch
        found = hull_distance(a, b)
        assert found.distance == 0 or found.gap <= 1e-6 * found.distance
        verdict = separable(a, b)
        assert (verdict.answer == "no") == (found.distance == 0)
        assert_proved(a, b, verdict)


def test_the_linear_program_proves_both_answers_alone() -> None:
    for b in (moved(SQUARE, 1.5, 0.2), moved(SQUARE, 1 + 1e-5, 0.5), SQUARE + 0.5, moved(SQUARE, 1, 0.25)):
        verdict = separation._by_linear_program(SQUARE, b, *separation.scale(SQUARE, b))
        assert verdict.method == "linear program"
        assert verdict.answer == separable(SQUARE, b).answer
        assert_proved(SQUARE, b, verdict)


def test_a_search_that_ends_early_is_settled_by_the_linear_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(a: np.ndarray, b: np.ndarray, **_: object) -> Nearest:
        one, first = np.ones(1), np.zeros(1, np.int64)
        return Nearest(a[0] - b[0], first, one, first, one, 1.0, -1.0, np.zeros(2), 1.0)

    monkeypatch.setattr(separation, "nearest_points", gives_up)
    verdict = separable(SQUARE, moved(SQUARE, 0.5, 0.25))
    assert (verdict.answer, verdict.method) == ("no", "linear program")
    monkeypatch.setattr("scipy.optimize.linprog", lambda *_, **__: type("Answer", (), {"x": None, "status": 4})())
    verdict = separable(SQUARE, moved(SQUARE, 0.5, 0.25))
    assert (verdict.answer, verdict.certificate) == ("undecided", None) and np.isnan(verdict.margin)


@pytest.mark.parametrize(
    ("a", "b", "method"),
    [
        (SQUARE, moved(SQUARE, 1, 1), "duplicate"),
        (SQUARE, moved(SQUARE, 3, 0), "means"),
        ([[0, 0], [10, 1], [20, 2], [1, 0.5]], [[0, -2], [1, -2], [2, -1.5], [0, -1.5]], "ridge"),
        (SQUARE, SQUARE + 0.5, "nearest points"),
    ],
)
def test_each_step_of_the_cascade_answers_what_it_can(a: list, b: list, method: str) -> None:
    a, b = np.array(a, float), np.array(b, float)
    verdict = separable(a, b)
    assert verdict.method == method
    assert_proved(a, b, verdict)


# --- invariances --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 3.0, 6.0])
def test_distance_scales_and_ignores_motion_order_and_interior_points(shift: float) -> None:
    a, b = cloud(3, 20, 5), cloud(4, 25, 5, shift)
    distance, answer = hull_distance(a, b).distance, separable(a, b).answer
    turn, move = rotation(5), np.arange(5) * 7.0
    inner = np.random.default_rng(0).dirichlet(np.ones(20), 10) @ a
    for one, other, factor in (
        (a @ turn, b @ turn, 1), (a + move, b + move, 1), (a * 1e-6, b * 1e-6, 1e-6), (a * 1e6, b * 1e6, 1e6),
        (b, a, 1), (a[::-1], b[::-1], 1), (np.vstack([inner, a]), b, 1), (np.vstack([a, a]), b, 1),
    ):
        assert hull_distance(one, other).distance == pytest.approx(distance * factor, rel=1e-9, abs=0)
        assert separable(one, other).answer == answer


def test_a_given_start_changes_the_work_not_the_answer() -> None:
    a, b = cloud(5, 60, 20), cloud(6, 60, 20, 4.0)
    found = hull_distance(a, b)
    again = hull_distance(a, b, start=(found.a_index, found.b_index))
    assert again.distance == pytest.approx(found.distance, rel=1e-9)
    odd = hull_distance(a, b, start=(np.array([0]), np.array([0])))
    assert odd.distance == pytest.approx(found.distance, rel=1e-9)


def test_a_bound_ends_the_search_once_the_distance_is_proved_larger() -> None:
    a, b = cloud(7, 60, 20), cloud(8, 60, 20, 6.0)
    exact = hull_distance(a, b).distance
    assert separation.proved_distance(a, b, 0.5 * exact) is None
    assert separation.proved_distance(a, b, 2 * exact) == pytest.approx(exact, rel=1e-9)


def test_fewer_points_than_dimensions_fit_into_fewer_coordinates_unchanged() -> None:
    points = cloud(9, 12, 50)
    small = reduced(points)
    assert small.shape == (12, 12)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(small[:, None] - small[None], axis=-1), distances, atol=1e-12)
    assert hull_distance(small[:5], small[5:]).distance == pytest.approx(hull_distance(points[:5], points[5:]).distance,
                                                                         rel=1e-9)
    assert reduced(points[:, :4]) is not small and reduced(points[:, :4]).shape == (12, 4)


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((0, 2)), SQUARE, "first set has shape"),
        (SQUARE, np.zeros((3, 0)), "second set has shape"),
        (SQUARE, [1.0, 2.0], "second set has shape"),
        (SQUARE, [[0, 1], [np.nan, 1]], "second set holds NaN or infinity in row 1"),
        ([[np.inf, 0]], SQUARE, "first set holds NaN or infinity in row 0"),
        (SQUARE, SIMPLEX, "2 and of 3 dimensions"),
    ],
)
def test_unusable_sets_are_refused_with_a_reason(a: list, b: list, message: str) -> None:
    for call in (separable, hull_distance):
        with pytest.raises(ValueError, match=message):
            call(np.asarray(a), np.asarray(b))


def test_a_matrix_is_not_a_point() -> None:
    with pytest.raises(ValueError, match="one vector"):
        point_distance(SQUARE, SQUARE)


# --- threads ------------------------------------------------------------------------------------------------------


def test_thread_pools_are_limited_inside_and_restored_after_the_last_block() -> None:
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    hull_distance(SQUARE, SQUARE + 2)  # loads the libraries
    before = threads()
    with one_blas_thread():
        with one_blas_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
    assert threads() == before
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert threads() == before

"""The hull probe's partition: the definition in plain loops, worked examples, shortcuts that change nothing, odd and
bad input."""

import tracemalloc

import numpy as np
import pytest
from tests.oracles import hulls as oracle

from finetrace.lenses.hulls.agglomeration import Agglomeration, merge_all, names_after
from finetrace.lenses.hulls.clustering import _Forward
from finetrace.lenses.hulls.clusters import Clusters
from finetrace.lenses.hulls.disjointness import Hulls
from finetrace.lenses.hulls.distances import label_distances, predict
from finetrace.lenses.hulls.partition import creation_order, estimate, given, overlaps, probe, renumbered
from finetrace.lenses.hulls.separation import separable

KINDS = ("cloud", "grid", "line", "cube", "shared")


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels: general position, integer grids with duplicates and touching hulls, collinear points, shared
    points."""
    rng = np.random.default_rng(seed)
    kind, dim, labels = KINDS[seed % len(KINDS)], int(rng.integers(2, 11)), int(rng.integers(2, 6))
    count = int(rng.integers(5, 25))
    points = {
        "cloud": lambda: rng.normal(size=(count, dim)),
        "grid": lambda: rng.integers(0, 4, (count, 2 + dim % 2)),
        "line": lambda: rng.integers(-9, 9, (count, 1)) * rng.integers(1, 4, (1, dim)),
        "cube": lambda: rng.integers(0, 2, (count, dim)),
        "shared": lambda: rng.normal(size=(max(3, count // 2), 3))[rng.integers(0, max(3, count // 2), count)],
    }[kind]()
    return points.astype(float), rng.integers(0, labels, count)


def blobs(seed: int, count: int, dim: int, labels: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    which = np.arange(count) % labels
    return rng.normal(size=(count, dim)) + spread * rng.normal(size=(labels, dim))[which], which


def assert_sound(found: Clusters, labels: np.ndarray) -> None:
    """Label-pure; clusters of different label disjoint apart from conflicting points; no two of a label could still
    unite."""
    conflicting = {int(row) for group in found.conflicts for row in group}
    groups = [found.rows(k) for k in range(found.count)]
    for rows, label in zip(groups, found.cluster_labels, strict=True):
        assert (np.asarray(labels)[rows] == label).all()
        assert len(rows) == 1 or not conflicting & set(rows.tolist())
    for i in range(found.count):
        for j in range(i):
            if found.cluster_labels[i] != found.cluster_labels[j]:
                inert = {int(groups[i][0]), int(groups[j][0])} <= conflicting
                assert inert or separable(found.points[groups[i]], found.points[groups[j]]).answer == "yes"
            else:
                union = np.concatenate([groups[i], groups[j]])
                assert any(separable(found.points[union], found.points[groups[k]]).answer == "no"
                           for k in range(found.count) if found.cluster_labels[k] != found.cluster_labels[i])


# --- the definition -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 50))])
def test_partition_is_that_of_the_plain_definition(block: int) -> None:
    for seed in range(5 * block, 5 * block + 5):
        points, labels = problem(seed)
        expected = oracle.assignment(points, labels)
        found = probe(points, labels)
        np.testing.assert_array_equal(found.assignment, expected, err_msg=f"problem {seed}")
        np.testing.assert_array_equal(probe(points, labels, shortcut=False).assignment, expected,
                                      err_msg=f"problem {seed}")
        assert "undecided" not in found.decisions
        assert found.linear == (found.count == len(np.unique(labels)) and not found.conflicts)


@pytest.mark.parametrize("seed", range(6))
def test_pairs_come_closest_first_whatever_is_united_and_discarded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 5, (36, 2)).astype(float) if seed % 2 else rng.normal(size=(36, 3)) + 1000.0
    labels = np.arange(36) % (1 + seed % 3)
    choices = rng.random(2000) < 0.3
    clusters = Agglomeration(points, labels, np.arange(36))
    for distance, low, high, united in oracle.closest_pairs(points, labels, lambda k: bool(choices[k])):
        found = clusters.pop()
        assert found is not None and found[1:] == (low, high) and found[0] == pytest.approx(distance, rel=1e-9,
                                                                                            abs=1e-12)
        if united:
            clusters.merge(low, high)
    assert clusters.pop() is None


def test_the_random_problems_are_of_every_sort() -> None:
    found = [probe(*problem(seed)) for seed in range(250)]
    assert sum(c.linear for c in found) >= 40 and sum(bool(c.conflicts) for c in found) >= 40
    assert sum(c.repeated > 0 for c in found) >= 40
    assert sum(not c.linear and c.count > len(c.classes) for c in found) >= 100
    assert {k for c in found for k in c.decisions} >= {"means", "overlap", "inherited overlap", "nearest points",
                                                       "reused plane"}


@pytest.mark.parametrize("block", range(5))
def test_groups_of_overlapping_labels_and_bisection_give_the_same_partition(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        points, labels = blobs(seed, 60, 3, 6, 1.5)
        found, plain = probe(points, labels), probe(points, labels, shortcut=False)
        np.testing.assert_array_equal(found.assignment, plain.assignment)
        assert found.linear == plain.linear


def test_result_is_sound_on_larger_problems() -> None:
    for seed, spread in ((0, 1.0), (1, 1.5)):
        points, labels = blobs(seed, 150, 4, 4, spread)
        found = probe(points, labels)
        assert not found.linear
        assert_sound(found, labels)
    points, labels = problem(4)
    assert_sound(probe(points, labels), labels)


def test_a_plane_found_for_two_clusters_serves_their_unions_from_either_side() -> None:
    points, labels = np.array([[0.0, 0], [1, 0], [0, 3], [1, 3], [2, 0], [2, 3]]), np.array([0, 0, 1, 1, 0, 1])
    hulls = Hulls(points)
    tests = _Forward(hulls, labels, np.arange(6), np.arange(6))
    up = np.array([0.0, 1.0])
    tests._keep(3, 1, up, np.array([3, 1]))
    for one, other, normal in ((3, 1, up), (1, 3, -up)):
        found, support = tests._plane(one, other)
        np.testing.assert_array_equal(found, normal)
        assert support.tolist() == [3, 1]
        union = np.array([one, 4 if one == 1 else 5])
        assert tests._reuse(union, one, int(union[1]), other)
    assert hulls.decisions["reused plane"] == 2
    assert not tests._reuse(np.array([0, 4]), 0, 4, 2)


# --- worked examples ----------------------------------------------------------------------------------------------


def test_points_on_a_line_with_known_states() -> None:
    points, labels = np.array([[0, 1, 2.5, 5, 5.8, 9, 9.5, 11]]).T, np.array([0, 0, 0, 1, 1, 0, 0, 1])
    pairs, distances = merge_all(points, labels, np.arange(8))
    assert [len(np.unique(names_after(8, pairs[:k]))) for k in range(7)] == [8, 7, 6, 5, 4, 3, 2]
    np.testing.assert_allclose(distances[:4], [0.5, 0.8, 1, 2])
    found = probe(points, labels)
    assert found.assignment.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert found.cluster_labels.tolist() == [0, 1, 0, 1] and not found.linear
    (component,) = found.components
    assert (component.end_merges, component.first_overlap) == (6, 5)
    assert found.merges.tolist() == [[5, 6], [3, 4], [0, 1], [0, 2]]
    np.testing.assert_allclose(found.merge_distances, [0.5, 0.8, 1, 2])


def test_interleaved_pairs_squares_and_rings() -> None:
    line = np.array([[0.0], [1], [5], [6], [10], [11]])
    assert probe(line, [0, 0, 1, 1, 0, 0]).assignment.tolist() == [0, 0, 1, 1, 2, 2]
    assert probe(line, [0, 0, 1, 1, 1, 1]).linear
    crossed = probe([[0, 0], [1, 1], [0, 1], [1, 0]], [0, 0, 1, 1])
    assert crossed.count == 3 and crossed.assignment.tolist() == [0, 0, 1, 2]
    angles = np.arange(12) * np.pi / 6
    ring = np.stack([3 * np.cos(angles), 3 * np.sin(angles)],
                    axis=1).round(12)  # rounded: equal distances are ties, not noise
    found = probe(np.vstack([ring, [(0.1, 0), (-0.1, 0.05), (0, -0.12)]]), [0] * 12 + [1] * 3)
    assert found.count == 3 and len(set(found.assignment[12:])) == 1


def test_few_points_in_general_position_are_always_linear() -> None:
    for seed in range(20):
        points = np.random.default_rng(seed).normal(size=(11, 10))
        found = probe(points, np.arange(11) % (2 + seed % 4))
        assert found.linear and found.count == 2 + seed % 4 and not len(found.merges)
    high = probe(np.random.default_rng(0).normal(size=(40, 300)), np.arange(40) % 4)
    assert high.linear and high.decisions["means"] == 6


def test_one_cluster_per_label_exactly_when_all_label_hulls_are_disjoint() -> None:
    answers = []
    for seed in range(30):
        points, labels = blobs(seed, 30, 4, 3, 2.0)
        apart = all(not oracle.hulls_meet(points[labels == a], points[labels == b]) for a in range(3) for b in range(a))
        assert probe(points, labels).linear == apart
        answers.append(apart)
    assert 5 < sum(answers) < 25


# --- invariances --------------------------------------------------------------------------------------------------


def test_partition_ignores_motion_scale_and_names_of_labels() -> None:
    points, labels = blobs(3, 70, 4, 4, 1.5)
    expected = probe(points, labels).assignment
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    for moved in (points @ turn, points + 100, points * 1e-5, points * 1e5, np.hstack([points, np.zeros((70, 90))])):
        np.testing.assert_array_equal(probe(moved, labels).assignment, expected)
    names = np.array(["d", "b", "a", "c"])
    found = probe(points, names[labels])
    np.testing.assert_array_equal(found.assignment, expected)
    assert found.classes.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(found.cluster_labels[found.assignment], names[labels])


def test_same_points_in_another_order_give_the_same_sets() -> None:
    points, labels = blobs(4, 70, 4, 4, 1.5)
    order = np.random.default_rng(1).permutation(70)
    first, second = probe(points, labels), probe(points[order], labels[order])
    sets = {frozenset(first.rows(k).tolist()) for k in range(first.count)}
    assert sets == {frozenset(order[second.rows(k)].tolist()) for k in range(second.count)}


def test_two_runs_are_identical_and_half_precision_input_is_widened() -> None:
    points, labels = blobs(5, 60, 3, 4, 1.5)
    first, second = probe(points, labels), probe(points.copy(), labels)
    np.testing.assert_array_equal(first.merges, second.merges)
    assert first.decisions == second.decisions
    half = points.astype(np.float16)
    np.testing.assert_array_equal(probe(half, labels).assignment, probe(half.astype(float), labels).assignment)


# --- odd input ----------------------------------------------------------------------------------------------------


def test_identical_points_of_different_labels_are_reported_and_stay_alone() -> None:
    points = np.array([[0, 0], [0, 0], [1, 0], [2, 0]], float)
    found = probe(points, ["a", "b", "a", "b"])
    assert [group.tolist() for group in found.conflicts] == [[0, 1]]
    assert found.count == 4 and not found.linear
    more = probe([[0, 0], [0, 0], [0, -0.0], [5, 5], [6, 6], [5, 5]], [0, 0, 1, 0, 0, 0])
    assert [group.tolist() for group in more.conflicts] == [[0, 1, 2]] and more.repeated == 2
    assert more.assignment.tolist() == [0, 1, 2, 3, 3, 3]


def test_conflicting_points_alone_do_not_split_the_rest_of_their_labels() -> None:
    points = np.array([[0.0], [1], [2], [2], [3], [4]])
    found = probe(points, [0, 0, 0, 1, 1, 1])
    assert found.assignment.tolist() == [0, 0, 1, 2, 3, 3]
    assert found.components[0].first_overlap is None


def test_points_that_float64_cannot_keep_apart_at_the_scale_of_the_data_stay_alone() -> None:
    points = np.array([[0.0], [1e-300], [1], [2], [3], [1000]])
    found = probe(points, [0, 1, 0, 1, 1, 0])
    assert found.assignment.tolist() == [0, 1, 2, 3, 3, 4] and not found.linear
    near = probe([[0.0], [1e-9], [1], [2]],
                 [0, 1, 0, 1])  # far above rounding: apart, and refused as the definition says
    assert near.count == 4 and oracle.assignment(np.array([[0.0], [1e-9], [1], [2]]), np.array([0, 1, 0, 1])).max() == 3


def test_one_point_per_label_one_label_and_absent_labels() -> None:
    single = probe([[0, 0], [1, 1], [2, 0]], ["x", "y", "z"])
    assert single.linear and single.assignment.tolist() == [0, 1, 2]
    alone = probe(np.zeros((3, 2)), [7, 7, 7], classes=[5, 7, 9])
    assert alone.linear and alone.count == 1 and alone.classes.tolist() == [5, 7, 9] and alone.repeated == 2
    one = probe([[1.0]], [0])
    assert one.linear and one.count == 1 and not one.components


def test_repeated_points_of_one_label_unite_first() -> None:
    points = np.array([[0, 0], [3, 3], [0, 0], [1, 1], [2, 2], [0, 0]], float)
    found = probe(points, [0, 0, 0, 1, 0, 0])
    assert found.merges[:2].tolist() == [[0, 2], [0, 5]] and found.repeated == 2
    assert found.assignment.tolist() == [0, 1, 0, 2, 1, 0]


@pytest.mark.parametrize(
    ("points", "labels", "classes", "message"),
    [
        (np.zeros((0, 3)), [], None, "at least one point"),
        (np.zeros(3), [0, 0, 0], None, "at least one point"),
        ([[0, 0], [0, np.nan]], [0, 1], None, "NaN or infinity, first in row 1"),
        ([[np.inf, 0], [0, 0]], [0, 1], None, "NaN or infinity, first in row 0"),
        ([[0, 0], [1, 1]], [0], None, "one for each of the 2 points"),
        ([[0, 0], [1, 1]], [0, np.nan], None, "labels hold NaN or infinity, first for point 1"),
        ([[0, 0], [1, 1]], ["a", "c"], ["a", "b"], "'c'.* is not among the classes"),
    ],
)
def test_unusable_input_is_refused_with_a_reason(points: list, labels: list, classes: list | None,
                                                 message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(points, labels, classes=classes)


# --- clusters from elsewhere --------------------------------------------------------------------------------------


def test_clusters_of_one_space_are_checked_in_another() -> None:
    points, labels = blobs(7, 80, 6, 4, 4.0)
    found = probe(points, labels)
    assert found.linear and given(points, labels, found.assignment).linear and not overlaps(found)
    crushed = points.copy()
    crushed[:, :] = np.random.default_rng(0).normal(size=points.shape) * 0.01
    crushed[labels == 3] += 10
    again = given(crushed, labels, found.assignment)
    three = found.assignment[labels == 3][0]
    assert not again.linear and overlaps(again) == [(a, b) for a in range(4) for b in range(a + 1, 4)
                                                    if three not in (a, b)]
    assert overlaps(again, min_size=21) == []
    points, labels = blobs(8, 80, 3, 4, 1.0)
    split = probe(points, labels)
    assert not split.linear and not given(points, labels, split.assignment).linear and not overlaps(split)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [([0, 0, 2], "0 .. clusters-1"), ([0, 0], "cluster number for each point"), ([0.0, 0, 1], "cluster number"),
     ([0, 1, 1], "cluster 1 has points of more than one label, among them row 2")],
)
def test_assignments_that_do_not_fit_are_refused(assignment: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given([[0.0], [1], [2]], [0, 0, 1], np.array(assignment))


# --- numbering, cost, progress, memory ----------------------------------------------------------------------------


def test_clusters_can_be_numbered_in_another_order() -> None:
    found = probe([[0.0], [1], [5], [6], [10], [11]], [0, 0, 1, 1, 0, 0])
    again = renumbered(found, [2, 0, 1])
    assert again.assignment.tolist() == [1, 1, 2, 2, 0, 0] and again.cluster_labels.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"each of the clusters 0 \.\. 2 once"):
        renumbered(found, [0, 0, 1])


def test_clusters_can_be_numbered_by_creation_as_in_the_original() -> None:
    found = probe([[0.0], [1], [5], [6], [10], [10.5], [20]], [0, 0, 1, 1, 0, 0, 1], shortcut=False)
    assert found.assignment.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert creation_order(found) == [3, 2, 0, 1]  # the single point, then by distance 0.5, 1, 1
    assert renumbered(found, creation_order(found)).assignment.tolist() == [2, 2, 3, 3, 1, 1, 0]


def test_long_runs_report_progress_and_their_cost_beforehand() -> None:
    told: list[tuple[str, int, int]] = []
    points, labels = blobs(6, 150, 3, 4, 1.0)
    probe(points, labels, progress=lambda *what: told.append(what))
    assert {phase for phase, _, _ in told} == {"labels", "search", "merge"}
    small, large = estimate(150, 3, 4), estimate(15_000, 3, 4)
    assert small.label_pairs == 6 and small.merges == 146
    assert 0 < small.linear_seconds < small.overlapping_seconds < large.overlapping_seconds
    assert large.bytes == 100 * small.bytes


def test_memory_of_merging_is_linear_in_points() -> None:
    points, labels = np.random.default_rng(0).normal(size=(1000, 2)), np.zeros(1000, np.int64)
    peaks = []
    for count in (500, 1000):
        tracemalloc.start()
        merge_all(points[:count], labels[:count], np.arange(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2.5 * peaks[0]
    assert peaks[1] < 1000 * 1000 * 8 / 2


@pytest.mark.parametrize("seed", range(12))
def test_order_of_creation_is_the_same_with_and_without_shortcuts(seed: int) -> None:
    points, labels = blobs(seed, 60, 3, 6, 2.0) if seed % 2 else problem(seed)
    short, plain = probe(points, labels), probe(points, labels, shortcut=False)
    assert creation_order(short) == creation_order(plain)
    last = {low: k for k, (low, _) in enumerate(plain.merges.tolist())}  # all merges of `plain` are in one sequence
    firsts = np.unique(plain.assignment, return_index=True)[1].tolist()
    assert creation_order(plain) == sorted(range(plain.count), key=lambda k: (last.get(firsts[k], -1), firsts[k]))


def test_states_share_their_planes() -> None:
    points, labels = blobs(2, 200, 6, 4, 1.0)
    found = probe(points, labels)
    np.testing.assert_array_equal(found.assignment, probe(points, labels, shortcut=False).assignment)
    assert found.decisions["reused plane"] > 0 and "undecided" not in found.decisions


def test_many_points_at_one_place_cost_little() -> None:
    points, labels = np.ones((3000, 8)), np.arange(3000) % 3
    points[:3] = [[0.0] * 8, [2.0] * 8, [3.0] * 8]
    tracemalloc.start()
    found = probe(points, labels)
    between = label_distances(found)
    ranked = predict(found, points[:5], labels[:5], nearest=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.count == 3000 and len(found.conflicts) == 1 and len(found.conflicts[0]) == 2997
    assert (between.vector == 0).all() and ranked.distances.max() == 0 and ranked.labels[0] == 0
    assert peak < 40 * points.nbytes  # a matrix of all pairs would take 375 times

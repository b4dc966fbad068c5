"""Distances of labels, spread within clusters, prediction and likeness of spaces: worked example, plain loops, missing
labels."""

import itertools

import numpy as np
import pytest

from finetrace.lenses.hulls.disjointness import mean_planes
from finetrace.lenses.hulls.distances import cluster_distances, label_distances, predict, similarity
from finetrace.lenses.hulls.partition import probe, renumbered
from finetrace.lenses.hulls.separation import hull_distance, point_distance

TEMPLATE = np.array([(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5), (0.25, 0.75), (0.75, 0.25), (0.5, 1.5)])
POINTS = np.vstack([TEMPLATE + np.array(move) for move in ((0, 0), (6, 0), (0, 8), (-6, 0))])
LABELS = list("A" * 8 + "B" * 8 + "C" * 8 + "B" * 8)
TEST = np.array([(0.5, 2.5), (3.9, 0.5), (0.5, 7), (0.5, 0.5), (-3, 0.5)])
LEGACY = {"min_size": 6, "reduce": "mean", "missing": "zero"}


def blobs(seed: int, count: int = 60, dim: int = 6, labels: int = 5, spread: float = 4.0) -> tuple[np.ndarray,
                                                                                                   np.ndarray]:
    rng = np.random.default_rng(seed)
    which = np.arange(count) % labels
    return rng.normal(size=(count, dim)) + spread * rng.normal(size=(labels, dim))[which], which


# --- the worked example -------------------------------------------------------------------------------------------


def test_worked_example_of_four_copies_of_a_template() -> None:
    clusters = probe(POINTS, LABELS)
    assert clusters.assignment.tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8 and not clusters.linear
    (component,) = clusters.components
    assert component.labels.tolist() == ["A", "B"] and component.first_overlap == component.end_merges == 22
    (whole,) = probe(POINTS, LABELS, shortcut=False).components
    assert whole.first_overlap == whole.end_merges == 29
    between = cluster_distances(clusters)
    values = between[np.triu_indices(4, 1)]
    assert np.isnan(between[1, 3]) and np.isnan(np.diag(between)).all()
    assert np.nanmin(values) == 5 and np.nanmax(values) == pytest.approx(8.514693183, abs=5e-10)
    assert np.nanmean(values) == pytest.approx(6.705877, abs=1e-6)
    found = label_distances(clusters, **LEGACY)
    assert found.pairs() == [("A", "B"), ("A", "C"), ("B", "C")]
    np.testing.assert_allclose(found.vector, [5, 6.5, 8.514693183], atol=5e-10)
    np.testing.assert_allclose(found.outside_min, [5, 5, 6.5])
    np.testing.assert_allclose(found.inside_max, [np.sqrt(2.5)] * 3)
    np.testing.assert_allclose(found.inside_mean, [0.882271004] * 3, atol=5e-10)
    assert found.ratio_max == pytest.approx(0.291902553, abs=1e-9) and found.ratio_mean == pytest.approx(0.162880801,
                                                                                                         abs=1e-9)


def test_worked_example_of_prediction() -> None:
    clusters = renumbered(probe(POINTS, LABELS), [0, 3, 2, 1])
    found = predict(clusters, TEST, list("ABCCA"))
    assert found.accuracy == 0.6 and found.labels.tolist() == ["A", "B", "C", "A", "B"]
    np.testing.assert_allclose(found.distances, [
        [1, 5.5, 5.7009, 5.7009], [2.1, 2.9, 8.0411, 8.9], [1, 5.5, 8.1317, 8.1317], [0, 5.5, 5.5, 7.5],
        [2, 3, 8.0777, 9],
    ], atol=5e-5)
    assert found.order.tolist() == [[0, 2, 1, 3], [3, 0, 2, 1], [2, 0, 1, 3], [0, 1, 3, 2], [1, 0, 2, 3]]


# --- against plain loops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_label_distances_are_those_of_plain_loops(spread: float) -> None:
    points, labels = blobs(0, spread=spread)
    clusters = probe(points, labels)
    groups = {k: [points[clusters.rows(c)] for c in range(clusters.count) if clusters.cluster_labels[c] == k]
              for k in range(5)}
    assert clusters.linear == (spread == 4.0)
    for size, reduce in ((1, "min"), (3, "mean")):
        found = label_distances(clusters, min_size=size, reduce=reduce)
        kept = {k: [g for g in group if len(g) >= size] for k, group in groups.items()}
        inner = {k: [[np.linalg.norm(p - q) for p, q in itertools.combinations(g, 2)] for g in group if len(g) > 1]
                 for k, group in kept.items()}
        for a, b in itertools.combinations(range(5), 2):
            pair = [hull_distance(g, h).distance for g in kept[a] for h in kept[b]]
            want = (min(pair) if reduce == "min" else np.mean(pair)) if pair else np.nan
            np.testing.assert_allclose(found.matrix[[a, b], [b, a]], want, rtol=1e-9)
        for k in range(5):
            row = found.matrix[k][np.isfinite(found.matrix[k])]
            np.testing.assert_allclose(found.outside_min[k], row.min() if len(row) else np.nan)
            np.testing.assert_allclose(found.inside_max[k], max((max(d) for d in inner[k]), default=np.nan))
            np.testing.assert_allclose(found.inside_mean[k],
                                       np.mean([np.mean(d) for d in inner[k]]) if inner[k] else np.nan)
            flat = [d for group in inner[k] for d in group]
            np.testing.assert_allclose(found.inside_mean_weighted[k], np.mean(flat) if flat else np.nan)


def test_spread_of_a_large_cluster_does_not_depend_on_blocks() -> None:
    points = np.random.default_rng(1).normal(size=(600, 3))
    found = label_distances(probe(points, np.zeros(600)))
    full = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert found.inside_max[0] == pytest.approx(full.max(), rel=1e-12)
    assert found.inside_mean[0] == pytest.approx(full.sum() / (600 * 599), rel=1e-12)


@pytest.mark.parametrize("nearest", [None, 1, 3])
def test_prediction_ranks_exact_distances(nearest: int | None) -> None:
    points, labels = blobs(2)
    clusters = probe(points, labels)
    new = blobs(2, count=70)[0][60:]
    found = predict(clusters, new, nearest=nearest)
    want = np.array([[point_distance(p, points[clusters.rows(k)]).distance for k in range(clusters.count)]
                     for p in new])
    np.testing.assert_allclose(found.distances, np.sort(want, axis=1)[:, : nearest or clusters.count], rtol=1e-8,
                               atol=1e-9)
    np.testing.assert_array_equal(found.labels, clusters.cluster_labels[np.argmin(want, axis=1)])
    assert np.isnan(found.accuracy)


def test_points_of_the_clusters_themselves_are_predicted_right() -> None:
    points, labels = blobs(3)
    assert predict(probe(points, labels), points, labels, nearest=1).accuracy == 1


def test_a_point_in_several_hulls_at_distance_zero_goes_to_the_first_cluster() -> None:
    clusters = probe([[0.0, 0], [2, 0], [0, 1], [2, 1]], ["b", "b", "a", "a"])
    found = predict(clusters, [[1, 0.5]])
    assert found.order.tolist() == [[0, 1]] and found.labels.tolist() == ["b"]


# --- missing labels and settings ----------------------------------------------------------------------------------


def test_labels_without_points_or_large_clusters_are_undefined_or_zero() -> None:
    points, labels = blobs(4, count=26, labels=5)
    clusters = probe(points, np.array([0, 2, 4, 6, 8])[labels], classes=range(0, 10, 2))
    assert clusters.linear  # 6 points of label 0, 5 of the others
    absent = label_distances(probe(points, labels, classes=range(6)))
    assert (
        np.isnan(absent.matrix[5]).all()
        and np.isnan(absent.inside_max[5])
        and np.isfinite(absent.outside_min[:5]).all()
    )
    small = label_distances(clusters, min_size=6)
    assert np.isnan(small.vector).all() and np.isfinite(small.inside_mean[0]) and np.isnan(small.inside_mean[1:]).all()
    assert np.isnan(small.ratio_max)
    zeros = label_distances(clusters, **LEGACY)
    assert (zeros.vector == 0).all() and (zeros.outside_min == 0).all() and (zeros.inside_max[1:] == 0).all()


def test_single_points_have_distances_but_no_spread() -> None:
    found = label_distances(probe([[0, 0], [3, 4], [0, 8]], [0, 1, 2]))
    np.testing.assert_allclose(found.vector, [5, 8, 5])
    assert np.isnan(found.inside_max).all() and np.isnan(found.ratio_mean)


@pytest.mark.parametrize("call", [
    lambda c: label_distances(c, reduce="max"), lambda c: label_distances(c, missing="none"),
    lambda c: label_distances(c, distances=np.zeros((2, 2))), lambda c: predict(c, [[1.0, 2, 3]]),
    lambda c: predict(c, [[np.nan, 1.0]]), lambda c: predict(c, TEST, ["A"]), lambda c: predict(c, TEST, nearest=0),
])
def test_unusable_settings_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"choose|shape|at least one"):
        call(probe(POINTS, LABELS))


# --- scaling and likeness -----------------------------------------------------------------------------------------


def test_distances_grow_with_the_points_layer_by_layer() -> None:
    base = label_distances(probe(POINTS, LABELS)).vector
    for layer in range(1, 13):
        np.testing.assert_allclose(label_distances(probe(POINTS * layer, LABELS)).vector, base * layer, rtol=1e-12)


def test_similarity_is_one_for_a_scaled_moved_turned_space_and_ignores_label_order() -> None:
    points, labels = blobs(5)
    first = label_distances(probe(points, labels))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    assert similarity(first, first).r == pytest.approx(1) and similarity(first, first).pairs == 10
    assert similarity(first, label_distances(probe(3 * points @ turn + 7, labels))).r == pytest.approx(1)
    other, _ = blobs(6)
    plain = similarity(first, label_distances(probe(other, labels)))
    assert -1 <= plain.r < 0.99
    assert plain.r == pytest.approx(np.corrcoef(first.vector, label_distances(probe(other, labels)).vector)[0, 1])
    swap = np.array([3, 1, 4, 0, 2])
    renamed = [label_distances(probe(p, swap[labels])) for p in (points, other)]
    assert similarity(*renamed).r == pytest.approx(plain.r)


def test_similarity_takes_only_pairs_that_both_spaces_have() -> None:
    points, labels = blobs(5)
    first = label_distances(probe(points, labels))
    fewer = label_distances(probe(points[labels != 2], labels[labels != 2]))
    assert similarity(first, fewer).pairs == 6 and similarity(first, fewer).r == pytest.approx(1)
    two = label_distances(probe(points[labels < 2], labels[labels < 2]))
    assert similarity(first, two).pairs == 1 and np.isnan(similarity(first, two).r)
    found = similarity(np.array([1, 2, np.nan, 4, 5.0]), np.array([2, 4, 6, 8, np.nan]))
    assert found.pairs == 3 and found.r == pytest.approx(1)
    assert np.isnan(similarity(np.array([1.0, 2]), np.array([1.0, 2])).r)
    assert np.isnan(similarity(np.ones(5), np.arange(5.0)).r) and similarity(np.ones(5), np.arange(5.0)).pairs == 5
    with pytest.raises(ValueError, match="match them by label"):
        similarity(np.ones(3), np.ones(4))


@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
def test_the_nearest_clusters_of_two_labels_are_found_without_looking_at_all(spread: float) -> None:
    points, labels = blobs(7, count=80, spread=spread)
    points[-6:] = points[:6]  # single points of several labels at one place
    clusters = probe(points, labels)
    every = cluster_distances(clusters)
    for size in (1, 2):
        near, all_pairs = label_distances(clusters, min_size=size), label_distances(clusters, min_size=size,
                                                                                    distances=every)
        np.testing.assert_allclose(near.matrix, all_pairs.matrix, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(near.outside_min, all_pairs.outside_min, rtol=1e-9, atol=1e-12)


def test_bounds_by_planes_between_means_hold() -> None:
    for seed, far in ((0, 0.0), (1, 1e6)):
        points, labels = blobs(seed, spread=1.0)
        points = points + far
        bounds = mean_planes(points, labels)
        for a, b in itertools.combinations(range(5), 2):
            distance = hull_distance(points[labels == a], points[labels == b]).distance
            assert bounds[a, b] == bounds[b, a] <= distance * (1 + 1e-9) + 1e-12


def test_single_points_are_ranked_among_clusters() -> None:
    clusters = probe([[0.0, 0], [1, 0], [5, 5], [5, 5], [9, 9]], ["a", "a", "b", "c", "d"])
    found = predict(clusters, [[5.0, 5], [0.5, 0], [8, 9]])
    assert found.order.tolist() == [[1, 2, 3, 0], [0, 1, 2, 3], [3, 1, 2, 0]]
    np.testing.assert_allclose(found.distances[0], [0, 0, np.sqrt(32), np.sqrt(41)])
    assert predict(clusters, [[5.0, 5], [0.5, 0], [8, 9]], nearest=1).order.tolist() == [[1], [0], [3]]

"""Centroids over training: plain means, lengths of motion, pictures that keep what they should."""

import numpy as np
import pytest

from finetrace.lenses.hulls.centroids import centroids, closest, displacements, plane


def test_centroids_are_plain_means_and_absent_labels_are_undefined() -> None:
    points = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float16)
    labels = np.arange(30) % 3
    found = centroids(points, labels, 5)
    assert found.dtype == np.float64 and found.shape == (5, 4)
    for label in range(3):
        np.testing.assert_allclose(found[label], points[labels == label].astype(float).sum(axis=0) / 10, rtol=1e-12)
    assert np.isnan(found[3:]).all()


def test_displacement_is_the_length_of_the_motion() -> None:
    before = np.array([[0.0, 0], [1, 1], [np.nan, np.nan]])
    found = displacements(before, before + np.array([[3, 4], [0, 0], [0, 0]]))
    assert found[:2].tolist() == [5, 0] and np.isnan(found[2])


def test_a_picture_of_flat_vectors_keeps_their_distances() -> None:
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(4, 5, 2))
    basis = np.linalg.qr(rng.normal(size=(7, 2)))[0]
    found = plane(flat @ basis.T + 3)
    want = np.linalg.norm(flat.reshape(-1, 1, 2) - flat.reshape(1, -1, 2), axis=-1)
    got = found.points.reshape(-1, 2)
    np.testing.assert_allclose(np.linalg.norm(got[:, None] - got[None], axis=-1), want, atol=1e-12)
    assert (
        found.points.shape == (4, 5, 2)
        and found.shares.sum() == pytest.approx(1)
        and found.shares[0] >= found.shares[1]
    )
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-12)


def test_shares_are_those_of_the_covariance() -> None:
    points = np.random.default_rng(2).normal(size=(40, 6)) * np.arange(1, 7)
    spread = np.linalg.eigvalsh(np.cov(points.T))[::-1]
    np.testing.assert_allclose(plane(points).shares, spread[:2] / spread.sum(), rtol=1e-10)


def test_without_centring_no_motion_stays_at_the_origin() -> None:
    moves = np.random.default_rng(3).normal(size=(6, 5)) + 2
    moves[0] = 0
    np.testing.assert_array_equal(plane(moves, centred=False).points[0], 0)
    assert np.abs(plane(moves).points[0]).max() > 0.1
    np.testing.assert_allclose(plane(moves).points.mean(axis=0), 0, atol=1e-12)


def test_a_picture_is_the_same_after_a_shift_and_larger_after_scaling() -> None:
    points = np.random.default_rng(4).normal(size=(9, 5))
    first = plane(points).points
    np.testing.assert_allclose(plane(points + 100).points, first, atol=1e-10)
    np.testing.assert_allclose(plane(3 * points).points, 3 * first, atol=1e-12)


def test_pictures_of_almost_nothing_are_defined() -> None:
    gone = plane(np.full((2, 3, 4), np.nan))
    assert gone.points.shape == (2, 3, 2) and np.isnan(gone.points).all() and gone.shares.tolist() == [0, 0]
    still = plane(np.ones((3, 4)))
    assert (still.points == 0).all() and still.shares.tolist() == [0, 0]
    line = plane(np.array([[1.0], [2.0], [np.nan]]))
    np.testing.assert_allclose(line.points[:2], [[-0.5, 0], [0.5, 0]])
    assert np.isnan(line.points[2]).all() and line.shares[0] == pytest.approx(1)


def test_the_closest_labels_are_named() -> None:
    means = np.array([[0.0, 0], [10, 0], [10.5, 0], [np.nan, 0], [11.5, 0], [30, 0]])
    assert closest(means) == [1, 2, 4] and closest(means, 2) == [1, 2]
    assert closest(means[[0, 3]]) == [0] and closest(means[3:4]) == []


@pytest.mark.parametrize("call", [
    lambda: centroids(np.zeros(3), np.zeros(3, int), 1), lambda: centroids(np.zeros((3, 2)), np.zeros(2, int), 1),
    lambda: centroids([[np.nan, 0]], [0], 1), lambda: displacements(np.zeros((2, 3)), np.zeros((3, 3))),
])
def test_unusable_input_is_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"shape|NaN"):
        call()

"""Kernel statistics against the slow oracle, on worked numbers, and under what must not matter."""

import numpy as np
import pytest
from tests.oracles import kernel_models as oracle

from finetrace.lenses.kernel import statistics

RANDOM = np.random.default_rng(5)


def features_kernel(rows: int = 7, classes: int = 3, dim: int = 6, head: np.ndarray | None = None) -> np.ndarray:
    """F of a linear encoder: <x, x'> V V^T."""
    x = RANDOM.normal(size=(rows, dim))
    head = RANDOM.normal(size=(classes, 5)) if head is None else head
    return np.einsum("nm,cd->ncmd", x @ x.T, head @ head.T)


def random_kernel(rows: int = 6, classes: int = 3, dim: int = 40) -> np.ndarray:
    jacobian = RANDOM.normal(size=(rows * classes, dim))
    return (jacobian @ jacobian.T).reshape(rows, classes, rows, classes)


def head_kernel(rows: int = 6, classes: int = 3, dim: int = 4) -> np.ndarray:
    """P: (<phi, phi'> + 1) I."""
    phi = RANDOM.normal(size=(rows, dim))
    return np.einsum("nm,cd->ncmd", phi @ phi.T + 1, np.eye(classes))


# --- rank, norms, spectrum ----------------------------------------------------------------------------------------


def test_the_matrix_runs_over_examples_first_and_classes_fastest() -> None:
    kernel = RANDOM.normal(size=(3, 2, 4, 2))
    np.testing.assert_array_equal(statistics.as_matrix(kernel), oracle.matrix(kernel))


def test_norms_are_those_of_the_matrix() -> None:
    kernel = random_kernel()
    found, matrix = statistics.spectrum(kernel), oracle.matrix(kernel)
    assert found.frobenius_norm == pytest.approx(np.linalg.norm(matrix), rel=1e-12)
    assert found.nuclear_norm == pytest.approx(np.linalg.norm(matrix, "nuc"), rel=1e-12)
    assert found.operator_norm == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-12)
    assert found.stable_rank == pytest.approx(np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2, rel=1e-12)
    np.testing.assert_allclose(found.singular_values, np.linalg.svd(matrix, compute_uv=False), rtol=1e-9)
    assert found.normalised[0] == 1 and found.nuclear_norm == pytest.approx(np.trace(matrix), rel=1e-12)


def test_a_kernel_that_is_not_symmetric_has_singular_values_not_eigenvalues() -> None:
    kernel = RANDOM.normal(size=(4, 2, 4, 2))
    expected = np.linalg.svd(oracle.matrix(kernel), compute_uv=False)
    np.testing.assert_allclose(statistics.spectrum(kernel).singular_values, expected)


def test_rank_of_the_pretrain_effective_part_is_a_multiple_of_the_classes() -> None:
    for classes in (2, 3, 5):
        kernel = head_kernel(rows=20, classes=classes, dim=4)
        assert statistics.spectrum(kernel).rank == classes * 5  # 4 directions and the bias


def test_rank_of_a_head_whose_rows_sum_to_zero_is_at_most_n_times_classes_less_one() -> None:
    rows, classes = 8, 3
    jacobian = RANDOM.normal(size=(rows, 5, 60))  # of the features
    for head, rank in ((RANDOM.normal(size=(classes, 5)), rows * classes), (None, rows * (classes - 1))):
        if head is None:
            head = RANDOM.normal(size=(classes, 5))
            head -= head.mean(axis=0)
        of_logits = np.einsum("ch,nhp->ncp", head, jacobian)
        assert statistics.spectrum(np.einsum("ncp,mdp->ncmd", of_logits, of_logits)).rank == rank


def test_the_tolerance_of_the_rank_is_the_float32_one_by_default_and_is_told() -> None:
    scales = np.array([1.0, 1e-3, 1e-5, 1e-9])
    kernel = np.einsum("nm,cd->ncmd", np.diag(scales), np.eye(2))
    found = statistics.spectrum(kernel)
    assert found.tolerance == 8 * np.finfo(np.float32).eps and found.rank == 6
    assert statistics.spectrum(kernel, tolerance=0).rank == 8
    assert statistics.spectrum(kernel, tolerance=1e-4).rank == 4
    assert statistics.spectrum(kernel, tolerance=1e-3).rank == 2  # at the tolerance is not above it
    assert statistics.spectrum(kernel, tolerance=1e-4).tolerance == 1e-4


def test_rank_and_normalised_spectrum_do_not_depend_on_the_scale_and_stable_rank_lies_between_one_and_rank() -> None:
    kernel = features_kernel()
    found, larger = statistics.spectrum(kernel), statistics.spectrum(1e6 * kernel)
    assert found.rank == larger.rank == 6 * 3 and larger.frobenius_norm == pytest.approx(1e6 * found.frobenius_norm)
    np.testing.assert_allclose(found.normalised, larger.normalised, atol=1e-12)
    assert 1 <= found.stable_rank <= found.rank and larger.stable_rank == pytest.approx(found.stable_rank)
    one = np.ones((4, 2, 4, 2))
    assert statistics.spectrum(one).stable_rank == pytest.approx(1) and statistics.spectrum(one).rank == 1
    identity = np.eye(8).reshape(4, 2, 4, 2)
    assert statistics.spectrum(identity).stable_rank == pytest.approx(8)


def test_the_order_of_examples_does_not_matter() -> None:
    kernel, order = random_kernel(), RANDOM.permutation(6)
    mixed = kernel[order][:, :, order]
    np.testing.assert_allclose(statistics.spectrum(mixed).singular_values, statistics.spectrum(kernel).singular_values,
                               rtol=1e-9)
    np.testing.assert_allclose(statistics.block_nuclear_norms(mixed),
                               statistics.block_nuclear_norms(kernel)[order][:, order])


def test_a_zero_kernel_has_rank_zero_and_no_stable_rank() -> None:
    found = statistics.spectrum(np.zeros((3, 2, 3, 2)))
    assert (found.rank, found.frobenius_norm, found.nuclear_norm) == (0, 0, 0)
    assert np.isnan(found.stable_rank) and np.isnan(found.normalised).all()


@pytest.mark.parametrize("classes", [1, 2, 3, 5])
def test_block_norms_are_the_nuclear_norm_of_each_pair(classes: int) -> None:
    kernel = RANDOM.normal(size=(4, classes, 6, classes))
    np.testing.assert_allclose(statistics.block_nuclear_norms(kernel), oracle.block_nuclear_norms(kernel), rtol=1e-10)
    kernel = head_kernel(classes=classes)
    np.testing.assert_allclose(statistics.block_nuclear_norms(kernel), oracle.block_nuclear_norms(kernel), rtol=1e-10)


def test_block_norms_in_parts_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = random_kernel(rows=7)
    whole = statistics.block_nuclear_norms(kernel)
    monkeypatch.setattr(statistics, "_BLOCK_NUMBERS", 130)  # two rows at a time
    np.testing.assert_array_equal(statistics.block_nuclear_norms(kernel), whole)


# --- FT Ratio -----------------------------------------------------------------------------------------------------


def test_ft_ratio_is_the_mean_of_the_ratios_of_examples() -> None:
    p, f = head_kernel(), random_kernel()
    delta = statistics.residuals(RANDOM.normal(size=(6, 3)), np.array([0, 1, 2, 0, 1, 2]))
    expected = oracle.ft_ratio(p, f, delta)
    assert statistics.ft_ratio(p, f, delta) == pytest.approx(expected, rel=1e-12)
    products = statistics.product(p, delta), statistics.product(f, delta)
    assert statistics.ft_ratio_from_products(*products) == pytest.approx(expected, rel=1e-12)
    assert statistics.ft_ratios_from_products(*products).mean() == pytest.approx(expected, rel=1e-12)


def test_ft_ratio_of_head_only_is_zero_of_encoder_only_is_one_and_above_one_where_the_terms_cancel() -> None:
    p, delta = head_kernel(), RANDOM.normal(size=(6, 3))
    assert statistics.ft_ratio(p, 0 * p, delta) == 0
    assert statistics.ft_ratio(0 * p, p, delta) == pytest.approx(1)
    assert statistics.ft_ratio(p, -4 * p, delta) == pytest.approx(4 / 3)
    assert statistics.ft_ratio(p, p, delta) == pytest.approx(0.5)
    assert statistics.ft_ratio(p, -p, delta) == np.inf


def test_an_example_that_nothing_moves_is_left_out_of_the_ratio() -> None:
    head, encoder = np.array([[1.0, 0], [0, 0]]), np.array([[1.0, 0], [0, 0]])
    np.testing.assert_array_equal(statistics.ft_ratios_from_products(head, encoder), [0.5, np.nan])
    assert statistics.ft_ratio_from_products(head, encoder) == 0.5
    assert np.isnan(statistics.ft_ratio_from_products(0 * head, 0 * head))


def test_residuals_are_one_hot_less_softmax_whatever_the_size_of_the_logits() -> None:
    found = statistics.residuals(np.array([[0.0, np.log(3)], [1000.0, -1000.0]]), np.array([0, 1]))
    np.testing.assert_allclose(found, [[0.75, -0.75], [-1, 1]], atol=1e-12)
    logits = RANDOM.normal(size=(5, 4))
    np.testing.assert_allclose(statistics.residuals(logits + 7, np.arange(5) % 4),
                               statistics.residuals(logits, np.arange(5) % 4))


# --- alignment ----------------------------------------------------------------------------------------------------


def test_alignment_is_that_of_the_centred_kernels() -> None:
    labels = np.array([0, 0, 1, 2, 2, 2])
    for kernel in (random_kernel(), head_kernel(), RANDOM.normal(size=(6, 3, 6, 3))):
        assert statistics.label_alignment(kernel, labels) == pytest.approx(oracle.label_alignment(kernel, labels),
                                                                           abs=1e-12)


def test_the_kernel_of_the_classes_aligns_fully_whatever_its_scale_and_shift() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    same = (labels[:, None] == labels).astype(float)
    kernel = np.einsum("nm,cd->ncmd", 3 * same + 5, np.eye(3))
    assert statistics.label_alignment(kernel, labels) == pytest.approx(1)
    assert statistics.label_alignment(-kernel, labels) == pytest.approx(-1)
    wrong = np.array([0, 1, 2, 0, 1, 2])
    assert statistics.label_alignment(kernel, wrong) < 0.2


def test_alignment_is_undefined_for_one_class_and_for_a_constant_kernel() -> None:
    assert np.isnan(statistics.label_alignment(random_kernel(), np.zeros(6, dtype=int)))
    assert np.isnan(statistics.label_alignment(0.1 * np.ones((6, 3, 6, 3)), np.arange(6) % 3))
    assert np.isnan(statistics.label_alignment(np.zeros((6, 3, 6, 3)), np.arange(6) % 3))


@pytest.mark.parametrize("classes", [2, 3])
def test_alignment_of_a_kernel_that_only_knows_each_example_is_small(classes: int) -> None:
    labels = np.arange(60) % classes
    identity = np.eye(60 * classes).reshape(60, classes, 60, classes)
    assert statistics.label_alignment(identity, labels) == pytest.approx(np.sqrt((classes - 1) / 59))
    found = [statistics.label_alignment(random_kernel(60, classes, 900), RANDOM.permutation(labels)) for _ in range(3)]
    np.testing.assert_allclose(found, np.sqrt((classes - 1) / 59), atol=0.03)


# --- velocity -----------------------------------------------------------------------------------------------------


def test_distance_is_one_less_the_cosine_of_kernels() -> None:
    a, b = random_kernel(), random_kernel()
    assert statistics.kernel_distance(a, b) == pytest.approx(oracle.kernel_distance(a, b), abs=1e-12)
    assert 0 < statistics.kernel_distance(a, b) < 1
    assert statistics.kernel_distance(a, b) == pytest.approx(statistics.kernel_distance(b, a))
    assert statistics.kernel_velocity(a, b, 8) == pytest.approx(oracle.kernel_distance(a, b) / 8)


def test_distance_ignores_scale_and_sees_the_smallest_turn() -> None:
    a = random_kernel()
    assert statistics.kernel_distance(a, 1e9 * a) < 1e-30
    assert statistics.kernel_distance(a, -a) == pytest.approx(2)
    other = random_kernel()
    tiny = statistics.kernel_distance(a, a + 1e-10 * other)
    assert tiny == pytest.approx(1e-12 * statistics.kernel_distance(a, a + 1e-4 * other),
                                 rel=1e-2)  # 1 - cosine would give 0
    assert np.isnan(statistics.kernel_distance(a, 0 * a))


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "message"), [
    (lambda: statistics.spectrum(np.zeros((3, 3))), "row example, class"),
    (lambda: statistics.spectrum(np.zeros((3, 2, 4, 2))), "between the same examples"),
    (lambda: statistics.spectrum(random_kernel(), tolerance=1.5), "tolerance"),
    (lambda: statistics.spectrum(np.full((3, 2, 3, 2), np.nan)), "not finite"),
    (lambda: statistics.block_nuclear_norms(np.zeros((0, 2, 0, 2))), "give"),
    (lambda: statistics.product(random_kernel(), np.zeros((5, 3))), "delta"),
    (lambda: statistics.ft_ratio_from_products(np.zeros((3, 2)), np.zeros((2, 2))), "products"),
    (lambda: statistics.label_alignment(random_kernel(), np.arange(5) % 3), "labels"),
    (lambda: statistics.label_alignment(random_kernel(), np.arange(6)), "0 .. 2"),
    (lambda: statistics.residuals(np.zeros((2, 2)), np.array([0, -1])), "0 .. 1"),
    (lambda: statistics.residuals(np.zeros((2, 2)), np.array([0.5, 1.0])), "whole number"),
    (lambda: statistics.kernel_distance(random_kernel(), random_kernel(rows=5)), "different examples"),
    (lambda: statistics.kernel_velocity(random_kernel(), random_kernel(), 0), "steps"),
])
def test_bad_input_is_refused_with_what_to_give(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

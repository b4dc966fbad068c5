"""Geometry of tokens: worked numbers, loop oracles, invariances, padding, and refused input."""

import math

import numpy as np
import pytest
from tests.oracles import geometry as oracle

from finetrace.lenses.geometry import anisotropy, gram
from finetrace.lenses.geometry import statistics as geometry

ROWS = np.array([(1, 2, 3, 4), (0, 1, 0, -1), (2, 0, 1, 1), (1, 1, 1, 1), (-1, 0.5, 2, 0)])
COSINES = [-0.258198887, 0.670820355, 0.912870884, 0.478091419, -0.288675129, 0, 0.154303357, 0.816496551, 0,
           0.327326834]


def cloud(tokens: int = 40, dim: int = 12, seed: int = 0, offset: float = 0.5) -> np.ndarray:
    """Correlated tokens around a common direction."""
    random = np.random.default_rng(seed)
    return random.normal(size=(tokens, dim)) @ random.normal(size=(dim, dim)) + offset


def rotation(dim: int, seed: int = 1) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


# --- cosines ------------------------------------------------------------------------------------------------------


def test_cosines_of_the_worked_example_with_a_masked_row() -> None:
    padded = np.vstack([ROWS, [[9, 9, 9, 9]]])
    tokens = geometry.real_tokens(padded, np.array([1, 1, 1, 1, 1, 0]))
    assert tokens.shape == (5, 4)
    found = geometry.cosine_similarities(tokens)
    np.testing.assert_allclose(found, COSINES, rtol=0, atol=1e-7)
    summary = geometry.cosine_summary(tokens)
    assert found.mean() == pytest.approx(0.281303538, abs=1e-7) == float(summary.mean)
    assert np.median(found) == pytest.approx(0.240815096, abs=1e-7) == float(summary.median)
    assert found.var() == pytest.approx(0.166820679, abs=1e-7) == float(summary.variance)
    assert summary.pairs == 10 == summary.histogram.sum()


@pytest.mark.parametrize(("tokens", "dim"), [(2, 5), (7, 30), (30, 7), (25, 25)])
def test_cosines_and_the_moments_of_their_summary_equal_the_pairwise_ones(tokens: int, dim: int) -> None:
    x = cloud(tokens, dim)
    pairs = oracle.cosine_pairs(x)
    np.testing.assert_allclose(geometry.cosine_similarities(x), pairs, rtol=0, atol=1e-14)
    summary = geometry.cosine_summary(x)
    assert float(summary.mean) == pytest.approx(pairs.mean(), abs=1e-12)
    assert float(summary.variance) == pytest.approx(pairs.var(), abs=1e-12)


def test_a_zero_vector_has_cosine_0_with_everything_in_all_forms() -> None:
    x = cloud(6, 4)
    x[[1, 4]] = 0
    pairs = geometry.cosine_similarities(x)
    np.testing.assert_allclose(pairs, oracle.cosine_pairs(x), rtol=0, atol=1e-14)
    assert (pairs == 0).sum() == 9  # 4 + 4 with the others, 1 with each other
    summary = geometry.cosine_summary(x)
    np.testing.assert_allclose([summary.mean, summary.variance], [pairs.mean(), pairs.var()], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_the_summary_of_many_blocks_equals_each_block_alone(dtype: type) -> None:
    states = np.stack([cloud(30, 16, seed) for seed in range(4)]).reshape(2, 2, 30, 16).astype(dtype)
    found = geometry.cosine_summary(states)
    assert found.mean.shape == found.variance.shape == found.median.shape == (2, 2) and found.pairs == 435
    atol = 1e-13 if dtype == np.float64 else 1e-6
    for at in np.ndindex(2, 2):
        pairs = oracle.cosine_pairs(states[at].astype(np.float64))
        for name, value in (("mean", pairs.mean()), ("variance", pairs.var()), ("median", np.median(pairs))):
            assert getattr(found, name)[at] == pytest.approx(value, abs=atol), name
        expected = np.histogram(pairs, bins=geometry.BINS, range=(-1, 1))[0]
        assert np.abs(np.cumsum(found.histogram[at]
                                - expected)).max() <= 1  # a pair may fall on the other side of an edge


def test_cosines_do_not_change_with_the_length_of_single_tokens() -> None:
    x = cloud()
    lengths = np.random.default_rng(3).uniform(1e-3, 1e3, (len(x), 1))
    np.testing.assert_allclose(geometry.cosine_similarities(x * lengths), geometry.cosine_similarities(x), rtol=0,
                               atol=1e-13)
    assert np.abs(geometry.cosine_similarities(x + 5) - geometry.cosine_similarities(x)).max() > 0.1  # but with a shift


def test_one_token_has_no_cosine() -> None:
    assert geometry.cosine_similarities(ROWS[:1]).shape == (0,)
    summary = geometry.cosine_summary(np.zeros((3, 1, 4), dtype=np.float32))
    assert summary.mean.shape == (3,) and np.isnan(summary.mean).all() and summary.histogram.sum() == 0 == summary.pairs


def test_random_tokens_have_cosines_around_0_as_wide_as_theory_says() -> None:
    k, d = 400, 768
    pairs = geometry.cosine_similarities(np.random.default_rng(0).normal(size=(k, d)))
    assert abs(pairs.mean()) < 3 / math.sqrt(d * k * (k - 1) / 2)
    assert pairs.std() == pytest.approx(1 / math.sqrt(d), rel=0.02)


# --- padding and special tokens -----------------------------------------------------------------------------------


def test_padding_left_right_or_inside_changes_nothing() -> None:
    states = np.random.default_rng(0).normal(size=(3, 5, 4))
    expected = geometry.cosine_summary(states)
    for places in ([0, 1, 2, 3, 4], [7, 8, 9, 10, 11], [0, 2, 3, 7, 9]):
        mask = np.zeros(12, dtype=int)
        mask[places] = 1
        padded = np.full((3, 12, 4), 1e3)
        padded[:, places] = states
        real = geometry.real_tokens(padded, mask)
        np.testing.assert_array_equal(real, states)
        np.testing.assert_array_equal(geometry.cosine_summary(real).mean, expected.mean)


def test_leaving_special_tokens_out_drops_two() -> None:
    special = np.array([1, 0, 0, 0, 1, 1, 1])  # padding counts as special in most tokenizers' masks
    mask = np.array([1, 1, 1, 1, 1, 0, 0])
    padded = np.vstack([ROWS, np.zeros((2, 4))])
    assert len(geometry.real_tokens(padded, mask)) - len(geometry.real_tokens(padded, mask, special)) == 2
    np.testing.assert_array_equal(geometry.real_tokens(padded, mask, special), ROWS[1:4])


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"states \(5, 4\) and mask \(6,\)"):
        geometry.real_tokens(ROWS, np.ones(6))
    with pytest.raises(ValueError, match=r"special \(4,\)"):
        geometry.real_tokens(ROWS, np.ones(5), np.ones(4))


# --- trace --------------------------------------------------------------------------------------------------------


def test_trace_of_the_worked_example() -> None:
    assert geometry.covariance_trace(ROWS) == pytest.approx(6.65, abs=1e-12)
    assert geometry.covariance_trace(ROWS, ddof=0) == pytest.approx(5.32, abs=1e-12)
    assert math.isnan(geometry.covariance_trace(ROWS[:1])) and geometry.covariance_trace(ROWS[:1], ddof=0) == 0


def test_trace_equals_the_covariance_matrix_and_keeps_its_digits_far_from_the_origin() -> None:
    x = cloud(200, 30)
    assert geometry.covariance_trace(x) == pytest.approx(oracle.covariance_trace(x), rel=1e-12)
    assert geometry.covariance_trace(x + 1e6) == pytest.approx(oracle.covariance_trace(x), rel=1e-8)


def test_trace_scales_with_the_square_and_the_scaled_trace_not_at_all() -> None:
    x = cloud()
    assert geometry.covariance_trace(3 * x) == pytest.approx(9 * geometry.covariance_trace(x), rel=1e-12)
    assert geometry.scaled_trace(3 * x) == pytest.approx(geometry.scaled_trace(x), rel=1e-12)
    assert geometry.covariance_trace(x @ rotation(12)) == pytest.approx(geometry.covariance_trace(x), rel=1e-12)
    assert math.isnan(geometry.scaled_trace(np.zeros((4, 3))))


def test_equal_tokens_and_orthonormal_tokens() -> None:
    equal = np.tile(ROWS[0], (6, 1))
    np.testing.assert_allclose(geometry.cosine_similarities(equal), 1, rtol=0, atol=1e-15)
    assert float(geometry.cosine_summary(equal).variance) == pytest.approx(0, abs=1e-12)
    assert geometry.covariance_trace(equal) == pytest.approx(0, abs=1e-12)
    assert geometry.effective_rank(equal) == pytest.approx(1, abs=1e-12)
    orthonormal = rotation(7)[:5]
    np.testing.assert_allclose(geometry.cosine_similarities(orthonormal), 0, rtol=0, atol=1e-15)
    assert geometry.covariance_trace(orthonormal) == pytest.approx(1, abs=1e-12)
    assert geometry.effective_rank(orthonormal) == pytest.approx(5, abs=1e-12)


# --- effective rank -----------------------------------------------------------------------------------------------


def test_effective_rank_of_the_worked_example_and_of_its_squares() -> None:
    assert geometry.effective_rank(ROWS) == pytest.approx(3.215204171, abs=1e-9)
    assert geometry.effective_rank(ROWS, weights="sv2") == pytest.approx(1.992195014, abs=1e-9)
    np.testing.assert_allclose(gram.singular_values(gram.gram(ROWS)),
                               [6.142328452, 2.414500266, 1.503453583, 1.196501976], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("matrix", "rank"),
                         [(np.eye(5), 5), (np.diag([4.0, 2, 1]), 2.600490006), (np.diag([3.0, 3, 0]), 2),
                                              (np.outer([1.0, 2, 3], [1.0, -1, 2, 5]), 1), (7 * rotation(9)[:4], 4)])
def test_effective_rank_of_known_spectra(matrix: np.ndarray, rank: float) -> None:
    assert geometry.effective_rank(matrix) == pytest.approx(rank, abs=1e-9)
    assert float(gram.effective_rank_of_gram(gram.gram(matrix))) == pytest.approx(rank, abs=1e-6)


def test_effective_rank_invariances_and_bounds() -> None:
    x = cloud(30, 12)
    expected = geometry.effective_rank(x)
    assert expected == pytest.approx(oracle.effective_rank(x), rel=1e-12)
    for changed in (5 * x, 1e-30 * x, x @ rotation(12), rotation(30) @ x, x[::-1], np.vstack([x, x])):
        assert geometry.effective_rank(changed) == pytest.approx(expected, rel=1e-10)
    low = x[:, :3] @ np.random.default_rng(0).normal(size=(3, 12))
    assert 1 <= geometry.effective_rank(low) <= 3
    assert geometry.effective_rank(x, centre=True) == pytest.approx(oracle.effective_rank(x, centre=True), rel=1e-10)
    assert geometry.effective_rank(x + 500) < 1.5  # the mean direction rules, unless it is taken away
    assert geometry.effective_rank(x + 500, centre=True) == pytest.approx(geometry.effective_rank(x, centre=True),
                                                                          rel=1e-8)
    assert geometry.effective_rank(x, weights="sv2") == pytest.approx(oracle.effective_rank(x, squared=True), rel=1e-10)


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.empty((0, 3))])
def test_nothing_has_no_effective_rank(x: np.ndarray) -> None:
    assert math.isnan(geometry.effective_rank(x)) and math.isnan(float(gram.effective_rank_of_gram(gram.gram(x))))


@pytest.mark.parametrize("value", [0.1, 1e-8, 12345.678])
def test_equal_tokens_have_no_centred_effective_rank_however_they_are_rounded(value: float) -> None:
    x = np.full((7, 3), value) * [1, 3, 7]
    assert math.isnan(geometry.effective_rank(x, centre=True))
    assert math.isnan(float(gram.effective_rank_of_gram(gram.gram(x), centre=True)))
    assert math.isnan(geometry.participation_ratio(x)) and math.isnan(geometry.iso_score(x))


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("shape", [(1500, 768), (300, 768)])
def test_streamed_gram_equals_the_svd_of_the_stack(shape: tuple[int, int], centre: bool) -> None:
    x = (np.random.default_rng(0).normal(size=shape) + 0.1).astype(np.float32)
    sums = gram.gram(x[:100])
    for start in range(100, len(x), 450):
        sums = sums + gram.gram(x[start:start + 450])
    assert sums.count == len(x)
    expected = geometry.effective_rank(x, centre)
    assert float(gram.effective_rank_of_gram(sums, centre)) == pytest.approx(expected, rel=1e-6)
    if not centre and len(x) == 1500:
        assert expected == pytest.approx(709.3, abs=2)


def test_leaving_groups_out_equals_computing_without_them() -> None:
    x = cloud(60, 8)
    groups = np.arange(60) % 4
    whole, without = gram.leave_out(x, groups)
    assert float(gram.effective_rank_of_gram(whole)) == pytest.approx(geometry.effective_rank(x), rel=1e-9)
    for g in range(4):
        rest = x[groups != g]
        assert gram.effective_rank_of_gram(without, True)[g] == pytest.approx(geometry.effective_rank(rest, True),
                                                                              rel=1e-9)
        assert gram.participation_ratio_of_gram(without)[g] == pytest.approx(geometry.participation_ratio(rest),
                                                                             rel=1e-9)


def test_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="weights 'svd': take 'sv'"):
        geometry.effective_rank(ROWS, weights="svd")  # type: ignore[arg-type]


# --- isotropy and dimension ---------------------------------------------------------------------------------------


def test_iso_score_follows_the_published_steps_from_a_line_to_a_ball() -> None:
    x = cloud(50, 9)
    assert geometry.iso_score(x) == pytest.approx(oracle.iso_score(x), rel=1e-10)
    assert geometry.participation_ratio(x) == pytest.approx(oracle.participation_ratio(x), rel=1e-10)
    ball = np.vstack([np.eye(6), -np.eye(6)])
    assert geometry.iso_score(ball) == pytest.approx(1, abs=1e-12) and geometry.participation_ratio(
        ball
    ) == pytest.approx(6)
    for offset in (1e3, 1e7):  # of a spread of 1: what is left of float64 is what the tokens themselves have lost
        assert geometry.participation_ratio(x + offset) == pytest.approx(oracle.participation_ratio(x), rel=1e-7)
    line = np.outer(np.arange(5.0), [1, 2, 3, 4])
    assert geometry.iso_score(line) == pytest.approx(0, abs=1e-12) and geometry.participation_ratio(
        line
    ) == pytest.approx(1)
    for changed in (3 * x, x + 100, x @ rotation(9)):
        assert geometry.iso_score(changed) == pytest.approx(geometry.iso_score(x), rel=1e-8)
    assert math.isnan(geometry.iso_score(np.arange(5.0)[:, None]))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_two_nn_finds_the_dimension_of_a_flat_sheet_in_space(dimension: int) -> None:
    random = np.random.default_rng(0)
    x = random.random((1200, dimension)) @ random.normal(size=(dimension, 20))
    assert geometry.intrinsic_dimension(x) == pytest.approx(dimension, rel=0.12)


def test_two_nn_equals_the_loop_oracle_and_ignores_duplicates_shift_and_scale() -> None:
    x = np.random.default_rng(1).normal(size=(60, 4))
    expected = oracle.two_nn(x)
    assert geometry.intrinsic_dimension(x) == pytest.approx(expected, rel=1e-9)
    assert geometry.intrinsic_dimension(x, discard=0.0) == pytest.approx(oracle.two_nn(x, 0.0), rel=1e-9)
    for changed in (np.vstack([x, x[:20], x[5:6]]), 7 * x + 3):
        assert geometry.intrinsic_dimension(changed) == pytest.approx(expected, rel=1e-6)


def test_two_nn_takes_a_seeded_part_of_many_tokens() -> None:
    x = np.random.default_rng(1).normal(size=(300, 4))
    ratios, index = geometry.neighbour_ratios(x, limit=100, seed=5)
    assert len(ratios) == 100 == len(set(index.tolist()))
    np.testing.assert_array_equal(geometry.neighbour_ratios(x, limit=100, seed=5)[1], index)
    assert geometry.neighbour_ratios(x, limit=100, seed=6)[1].tolist() != index.tolist()


def test_too_few_points_have_no_dimension() -> None:
    assert math.isnan(geometry.intrinsic_dimension(ROWS[:2])) and math.isnan(geometry.intrinsic_dimension(np.ones((50,
                                                                                                                   3))))
    square = np.array([(0.0, 0), (0, 1), (1, 0), (1, 1)])  # both neighbours equally near: no slope
    assert math.isnan(geometry.intrinsic_dimension(square))
    with pytest.raises(ValueError, match="discard 1"):
        geometry.two_nn(np.ones(5), discard=1.0)


# --- across sentences ---------------------------------------------------------------------------------------------


def test_anisotropy_is_the_mean_cosine_over_all_pairs_of_different_sentences() -> None:
    x = cloud(20, 6)
    offsets = np.array([0, 3, 4, 4, 11, 20])  # one sentence is empty
    sentences = np.repeat(np.arange(5), np.diff(offsets))
    assert anisotropy.anisotropy(x, offsets) == pytest.approx(oracle.anisotropy(x, sentences), abs=1e-12)
    assert anisotropy.anisotropy(np.tile(ROWS[0], (20, 1)), offsets) == pytest.approx(1)
    assert math.isnan(anisotropy.anisotropy(x, np.array([0, 20])))


def test_resampled_anisotropy_counts_a_sentence_as_often_as_drawn_but_never_against_itself() -> None:
    x, offsets = cloud(14, 5), np.array([0, 3, 8, 14])
    sums, counts = anisotropy.sentence_sums(geometry.unit_vectors(x), offsets)
    found = anisotropy.weighted_anisotropy(sums, counts, np.array([[1.0, 1, 1], [2, 0, 1], [3, 0, 0]]))
    parts = [x[:3], x[3:8], x[8:]]
    copies = np.vstack([parts[0], parts[0], parts[2]])
    same = np.repeat([0, 0, 2], [3, 3, 6])  # the two copies are one sentence
    assert found[0] == pytest.approx(anisotropy.anisotropy(x, offsets), abs=1e-12)
    assert found[1] == pytest.approx(oracle.anisotropy(copies, same), abs=1e-12)
    assert math.isnan(found[2])


def test_intra_sentence_similarity_is_the_mean_cosine_with_the_mean() -> None:
    x = cloud(9, 5)
    assert anisotropy.intra_sentence_similarity(x) == pytest.approx(oracle.intra_sentence_similarity(x), abs=1e-12)
    assert anisotropy.intra_sentence_similarity(rotation(16)[:4]) == pytest.approx(0.5)  # 1 / sqrt(4)


@pytest.mark.parametrize("contexts", [2, 4])
def test_self_similarity_compares_a_type_across_sentences_only(contexts: int) -> None:
    random = np.random.default_rng(0)
    x, ids, sentences = cloud(60, 6), random.integers(0, 8, 60), np.sort(random.integers(0, 6, 60))
    expected = oracle.self_similarity(x, ids, sentences, contexts)
    assert len(expected) >= 2
    np.testing.assert_allclose(anisotropy.self_similarity(x, ids, sentences, contexts), expected, rtol=0, atol=1e-12)
    static = np.random.default_rng(1).normal(size=(8, 6))[ids]
    np.testing.assert_allclose(anisotropy.self_similarity(static, ids, sentences, contexts), 1, rtol=0, atol=1e-12)
    assert anisotropy.self_similarity(x, ids, sentences, contexts=7).shape == (0,)


def test_half_precision_vectors_whose_squares_overflow_keep_their_directions() -> None:
    x = (1000 * cloud(30, 6)).astype(np.float16)
    ids, sentences = np.arange(30) % 3, np.arange(30) // 3
    assert np.isfinite(x).all() and np.square(x.astype(np.float64)).sum(axis=1).max() > np.finfo(np.float16).max
    expected = oracle.self_similarity(x.astype(np.float64), ids, sentences, 5)
    np.testing.assert_allclose(anisotropy.self_similarity(x, ids, sentences), expected, rtol=0, atol=1e-6)
    pairs = oracle.cosine_pairs(x.astype(np.float64))
    assert float(geometry.cosine_summary(x).mean) == pytest.approx(pairs.mean(), abs=1e-6)


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="offsets must ascend from 0 to the number of tokens, 5"):
        anisotropy.anisotropy(ROWS, np.array([0, 4]))


# --- histograms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["broad", "narrow", "two clusters", "few"])
def test_histogram_quantiles_are_right_to_a_thousandth(kind: str) -> None:
    random = np.random.default_rng(0)
    x = {"broad": cloud(90, 20), "narrow": random.normal(size=(60, 20)) * 0.01 + 1, "few": cloud(4, 3),
         "two clusters": np.repeat(np.eye(20)[:2], 15, axis=0) + 1e-3 * random.normal(size=(30, 20))}[kind]
    pairs = oracle.cosine_pairs(x)
    shares = np.linspace(0, 1, 41)
    histogram = geometry.cosine_summary(x).histogram
    np.testing.assert_allclose(geometry.histogram_quantiles(histogram, shares), np.quantile(pairs, shares), rtol=0,
                               atol=1e-3)
    low, q1, _, q3, high = geometry.box_of(histogram)
    reach = 1.5 * (q3 - q1)
    assert low == pytest.approx(pairs[pairs >= q1 - reach - 1e-3].min(), abs=2e-3)
    assert high == pytest.approx(pairs[pairs <= q3 + reach + 1e-3].max(), abs=2e-3)


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert np.isnan(geometry.box_of(np.zeros(geometry.BINS, dtype=int))).all()


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [geometry.cosine_similarities, geometry.covariance_trace,
                                      geometry.effective_rank, geometry.iso_score, geometry.intrinsic_dimension])
def test_nan_and_wrong_shapes_are_refused(function) -> None:
    with pytest.raises(ValueError, match="token 1 holds NaN"):
        function(np.array([[1.0, 2], [np.nan, 1], [1, 1]]))
    with pytest.raises(ValueError, match=r"tokens \(2, 5, 4\): give \(token, dim\)"):
        function(np.ones((2, 5, 4)))

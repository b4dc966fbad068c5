"""Similarity: slow oracles, identities, worked numbers, undefined cases, refused input."""

import subprocess
import sys

import numpy as np
import pytest
from tests.oracles import similarity as oracle

from finetrace.lenses.similarity import measures as lens

FUNCTIONS = {"cka": lens.linear_cka, "svcca": lens.svcca, "pwcca": lens.pwcca, "procrustes": lens.procrustes_similarity,
             "rsa": lens.rsa}
every_measure = pytest.mark.parametrize("measure", lens.MEASURES)


def related(n: int = 60, dims: tuple[int, int] = (5, 7), noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray,
                                                                                                     np.ndarray]:
    """(example, dim_a) and (example, dim_b) that share part of their information; means and variances far from even."""
    random = np.random.default_rng(seed)
    a = random.normal(size=(n, dims[0])) * np.linspace(3, 0.5, dims[0])
    b = a @ random.normal(size=dims) + noise * random.normal(size=(n, dims[1]))
    return a + 4, b - random.normal(size=dims[1])


def rotation(dim: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


# --- against the oracles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [(3, 4), (5, 2), (30, 40), (2, 60)])  # by features, and by examples
@pytest.mark.parametrize("debiased", [True, False])
def test_cka_equals_the_sums_over_all_quadruples(dims: tuple[int, int], debiased: bool) -> None:
    a, b = related(9, dims, noise=3.0)
    assert lens.linear_cka(a, b, debiased) == pytest.approx(oracle.cka(a, b, debiased), abs=1e-11)


@pytest.mark.parametrize("dims", [(6, 8), (40, 50)])
def test_cka_equals_the_matrix_formula(dims: tuple[int, int]) -> None:
    a, b = related(41, dims, noise=20.0)
    assert lens.linear_cka(a, b) == pytest.approx(oracle.naive_cka(a, b), abs=1e-12)


def test_both_routes_of_cka_give_the_same() -> None:
    a, b = related(30, (6, 8))
    padded = [np.hstack([x, np.zeros((30, 200))]) for x in (a, b)]  # empty dimensions change nothing but the route
    for debiased in (True, False):
        assert lens.linear_cka(*padded, debiased) == pytest.approx(lens.linear_cka(a, b, debiased), abs=1e-13)


@pytest.mark.parametrize(("dims", "by_examples"),
                         [((3, 9), False), ((3, 10), False), ((9, 10), False), ((10, 11), True)])
def test_cka_takes_the_smaller_route(dims: tuple[int, int], by_examples: bool) -> None:
    sides = [lens.represent(side) for side in related(10, dims)]
    lens._trace(*sides)
    assert ("kernel" in vars(sides[0])) == by_examples


@pytest.mark.parametrize("dims", [(4, 5), (30, 20)])
def test_left_out_groups_equal_cka_of_what_is_left(dims: tuple[int, int]) -> None:
    a, b = related(24, dims, noise=10.0)
    groups = np.random.default_rng(1).integers(0, 4, 24)
    found = lens._cka(lens.represent(a, groups), lens.represent(b, groups))
    expected = [oracle.naive_cka(a, b)] + [oracle.naive_cka(a[groups != g], b[groups != g]) for g in range(4)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("variance", [0.6, 0.9, 0.99, 1.0])
def test_svcca_equals_the_oracle(variance: float) -> None:
    a, b = related(80, (6, 9))
    assert lens.svcca(a, b, variance) == pytest.approx(oracle.svcca(a, b, variance), abs=1e-9)


@pytest.mark.parametrize("dims", [(6, 9), (9, 6), (5, 5)])
def test_pwcca_equals_the_oracle(dims: tuple[int, int]) -> None:
    a, b = related(80, dims, noise=5.0)
    assert lens.pwcca(a, b) == pytest.approx(oracle.pwcca(a, b), abs=1e-9)


def test_procrustes_equals_what_is_left_after_the_best_rotation() -> None:
    a, b = related(50, (6, 6), noise=4.0)
    assert lens.procrustes_similarity(a, b) == pytest.approx(oracle.procrustes(a, b), abs=1e-12)


def test_procrustes_of_unequal_widths_equals_padding_with_zeros() -> None:
    a, b = related(50, (4, 6))
    assert lens.procrustes_similarity(a, b) == pytest.approx(oracle.procrustes(np.hstack([a, np.zeros((50, 2))]), b),
                                                             abs=1e-12)


def test_rsa_equals_the_rank_correlation_of_cosine_distances() -> None:
    a, b = related(40, noise=4.0)
    assert lens.rsa(a, b) == pytest.approx(oracle.rsa(a, b), abs=1e-12)


def test_rsa_gives_equal_examples_their_mean_rank() -> None:
    a, _ = related(12)
    a[6:] = a[:6]  # each pair of examples now ties with three others, and is told apart by rounding errors alone
    ranks = lens.represent(a).dissimilarity_ranks
    grid = np.zeros((12, 12))
    grid[np.triu_indices(12, 1)] = ranks
    grid += grid.T
    for i in range(6):
        assert grid[i, i + 6] == grid[0, 6] == ranks.min()
        for j in range(i):
            assert grid[i, j] == grid[i + 6, j] == grid[i, j + 6] == grid[i + 6, j + 6]


# --- identities ---------------------------------------------------------------------------------------------------


@every_measure
@pytest.mark.parametrize("dim", [5, 90])  # fewer and more dimensions than examples
def test_equal_representations_have_similarity_1(measure: str, dim: int) -> None:
    a, _ = related(60, (dim, 3))
    assert FUNCTIONS[measure](a, a) == pytest.approx(1, abs=1e-12)


@every_measure
@pytest.mark.parametrize("dims", [(5, 7), (80, 90)])
def test_rotation_scale_and_translation_of_the_second_change_nothing(measure: str, dims: tuple[int, int]) -> None:
    a, b = related(60, dims, noise=6.0)
    moved = 17.5 * b @ rotation(dims[1]) + 3.0
    value = FUNCTIONS[measure](a, b)
    assert value < 0.99
    assert FUNCTIONS[measure](a, moved) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("measure", sorted({*lens.MEASURES} - {"pwcca"}))
def test_rotation_of_the_first_changes_nothing_except_in_pwcca(measure: str) -> None:
    a, b = related(noise=6.0)
    assert FUNCTIONS[measure](a @ rotation(5) + 1, b) == pytest.approx(FUNCTIONS[measure](a, b), abs=1e-10)


@pytest.mark.parametrize("measure", sorted({*lens.MEASURES} - {"pwcca"}))
def test_exchanging_the_sides_changes_nothing_except_in_pwcca(measure: str) -> None:
    a, b = related(noise=6.0)
    assert FUNCTIONS[measure](a, b) == pytest.approx(FUNCTIONS[measure](b, a), abs=1e-12)


def test_pwcca_takes_its_weights_from_the_first() -> None:
    random = np.random.default_rng(0)
    shared, other = random.normal(size=(300, 1)), random.normal(size=(300, 2))
    a = np.hstack([10 * shared, other[:, :1]])  # the shared direction is most of a
    b = np.hstack([shared, 10 * other[:, 1:]])  # and little of b
    assert lens.pwcca(a, b) > 0.9 and lens.pwcca(b, a) < 0.25
    assert lens.pwcca(3 * a - 1, b) == pytest.approx(lens.pwcca(a, b), abs=1e-12)
    a, b = related(noise=20.0)
    assert abs(lens.pwcca(a @ rotation(5), b) - lens.pwcca(a, b)) > 0.001  # sums over the columns of a


def test_invertible_maps_do_not_change_cca_but_cka_and_procrustes() -> None:
    a, b = related(100, (5, 5), noise=3.0)
    stretched = b @ np.diag([1, 20, 3, 0.1, 5]) @ rotation(5)
    assert lens.svcca(a, stretched, 1.0) == pytest.approx(lens.svcca(a, b, 1.0), abs=1e-10)
    assert lens.svcca(stretched, a, 1.0) == pytest.approx(lens.svcca(b, a, 1.0), abs=1e-10)
    assert lens.pwcca(a, stretched) == pytest.approx(lens.pwcca(a, b), abs=1e-10)
    assert lens.svcca(b, stretched, 1.0) == pytest.approx(1, abs=1e-10)
    assert lens.linear_cka(b, stretched) < 0.9 and lens.procrustes_similarity(b, stretched) < 0.9


@every_measure
def test_the_order_of_examples_does_not_matter(measure: str) -> None:
    a, b = related(50, noise=6.0)
    order = np.random.default_rng(3).permutation(50)
    assert FUNCTIONS[measure](a[order], b[order]) == pytest.approx(FUNCTIONS[measure](a, b), abs=1e-12)
    assert abs(FUNCTIONS[measure](a, b[order]) - FUNCTIONS[measure](a, b)) > 0.05  # of one side alone it does


@every_measure
def test_half_precision_and_large_offsets_do_not_break_it(measure: str) -> None:
    a, b = related(60, noise=6.0)
    value = FUNCTIONS[measure](a, b)
    assert FUNCTIONS[measure](a.astype(np.float16), b.astype(np.float32) + 1000) == pytest.approx(value, abs=2e-2)


# --- unrelated representations ------------------------------------------------------------------------------------


def test_debiased_cka_of_unrelated_representations_is_0_on_average_and_the_biased_is_not() -> None:
    found = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        a, b = random.normal(size=(20, 40)), random.normal(size=(20, 40))
        found.append([lens.linear_cka(a, b), lens.linear_cka(a, b, debiased=False)])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(200)
    assert abs(mean[0]) < 4 * error[0] and error[0] < 0.01
    assert mean[1] > 0.6


@pytest.mark.parametrize("measure", ["svcca", "pwcca"])
def test_cca_caps_its_directions_so_that_unrelated_representations_do_not_reach_1(measure: str) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(50, 60)), random.normal(size=(50,
                                                             60))  # uncapped, 49 directions on both sides: exactly 1
    value = FUNCTIONS[measure](a, b)
    assert value < 0.6
    cut = [np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[0][:, :50 // lens.EXAMPLES_PER_DIRECTION]
           for x in (a, b)]
    assert lens.svcca(a, b) == pytest.approx(np.linalg.svd(cut[0].T @ cut[1])[1].mean(), abs=1e-12)


def test_intervals_of_cka_cover_the_true_value() -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(4, 4))
    a, noise = random.normal(size=(20_000, 4)), random.normal(size=(20_000, 4))
    b = a @ mixing + 2 * noise
    truth = lens.linear_cka(a, b)
    groups = np.arange(100) % 20
    covered = 0
    for part in range(200):
        rows = slice(100 * part, 100 * part + 100)
        found = lens.compare(lens.represent(a[rows], groups), lens.represent(b[rows], groups), ["cka"])["cka"]
        assert found.low < found.value < found.high
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_only_cka_with_groups_has_an_interval_and_it_ends_at_1() -> None:
    a, b = related(60, noise=0.3)
    groups = np.arange(60) % 6
    found = lens.compare(lens.represent(a, groups), lens.represent(b, groups))
    assert list(found) == list(lens.MEASURES)
    assert found["cka"].low < found["cka"].value < found["cka"].high <= 1
    assert all(np.isnan([found[m].low, found[m].high]).all() for m in lens.MEASURES[1:])
    assert np.isnan(lens.compare(lens.represent(a), lens.represent(b))["cka"].low)
    few = lens.compare(*(lens.represent(side, np.arange(16) % 4)
                         for side in related(16, (2, 2), noise=2.0, seed=13)))["cka"]
    assert few.low < few.value < 0.8 and few.high == 1
    same = lens.compare(lens.represent(a, groups), lens.represent(a, groups))["cka"]
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1), abs=1e-12)
    for measure, value in found.items():
        assert value.value == pytest.approx(FUNCTIONS[measure](a, b), abs=1e-12)


# --- worked numbers -----------------------------------------------------------------------------------------------


def test_worked_numbers() -> None:
    a = np.array([[1.0], [-1], [0], [0]])
    b = np.array([[0.0], [0], [1], [-1]])
    both = np.hstack([a, b])
    # of four examples, a pair and the other two are the same division to the unbiased estimator
    assert lens.linear_cka(a, b) == pytest.approx(1, abs=1e-12) == oracle.cka(a, b)
    assert lens.linear_cka(a, b, debiased=False) == 0
    assert lens.linear_cka(a, both, debiased=False) == pytest.approx(1 / np.sqrt(2))
    assert lens.procrustes_similarity(a, b) == pytest.approx(0, abs=1e-12)
    assert lens.procrustes_similarity(a, both) == pytest.approx(1 / np.sqrt(2))
    assert lens.procrustes_similarity(both, both * [1, 3]) == pytest.approx(4 / np.sqrt(2 * 10))


# --- undefined ----------------------------------------------------------------------------------------------------


@every_measure
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_a_constant_representation_has_no_similarity(measure: str, rounding: float) -> None:
    a, _ = related(40)
    constant = np.full((40, 6), 0.1, dtype=np.float32) + rounding * np.random.default_rng(0).normal(size=(40, 6))
    for sides in ((a, constant), (constant, a), (constant, constant), (a, np.zeros((40, 3)))):
        assert np.isnan(FUNCTIONS[measure](*sides))


@pytest.mark.filterwarnings("error")
def test_where_leaving_a_group_out_leaves_a_constant_there_is_no_interval() -> None:
    a, b = related(12)
    a[:9] = a[0]
    groups = np.arange(12) // 3
    found = lens.compare(lens.represent(a, groups), lens.represent(b, groups))
    assert np.isfinite(found["cka"].value) and np.isnan([found["cka"].low, found["cka"].high]).all()


@pytest.mark.filterwarnings("error")
def test_one_example_that_differs_has_no_debiased_cka_and_no_rsa_error() -> None:
    a, b = related(10)
    a[1:] = a[0]
    a[0] += 1  # its kernel is a sum of row and column terms, which centring takes away
    assert np.isnan(lens.linear_cka(a, b))
    assert -1 <= lens.rsa(a, b) <= 1


@pytest.mark.filterwarnings("error")
def test_four_examples_are_enough() -> None:
    a, b = related(4, (2, 3))
    for value in (FUNCTIONS[m](a, b) for m in lens.MEASURES):
        assert -1 <= value <= 1
    for groups in (np.arange(4), np.arange(4) // 2, np.zeros(4, dtype=int)):  # three, two and none are left: too few
        assert np.isnan(lens.compare(lens.represent(a, groups), lens.represent(b, groups), ["cka"])["cka"].low)


def test_directions_of_rounding_errors_are_left_out() -> None:
    a, b = related(60)
    twice = np.hstack([a.astype(np.float32),
                       (a / 3).astype(np.float32)])  # not exactly proportional: 5 directions of noise
    assert lens.represent(twice).singular.shape == (5,)
    assert lens.svcca(twice, b, 1.0) == pytest.approx(lens.svcca(np.hstack([a, a / 3]), b, 1.0), abs=1e-5)


# --- choices of rows ----------------------------------------------------------------------------------------------


def test_rsa_of_many_examples_takes_a_seeded_part_of_them() -> None:
    a, b = related(90, noise=4.0)
    first = lens.rsa(a, b, rsa_rows=30, seed=1)
    assert first == lens.rsa(a, b, rsa_rows=30, seed=1) != lens.rsa(a, b, rsa_rows=30, seed=2)
    assert first == pytest.approx(lens.rsa(a, b), abs=0.25)
    assert len(lens.represent(a, rsa_rows=30).dissimilarity_ranks) == 30 * 29 / 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: lens.linear_cka(a[:3], b[:3]), "at least 4 examples"),
        (lambda a, b: lens.rsa(a[:3], b[:3]), "at least 4 examples"),
        (lambda a, b: lens.svcca(a[:, :0], b), "at least 4 examples and 1 dimension"),
        (lambda a, b: lens.linear_cka(a, b[:-1]), "60 and 59 examples: both sides must be about the same ones"),
        (lambda a, b: lens.pwcca(a, b[:-1]), "60 and 59 examples"),
        (lambda a, b: lens.linear_cka(a[0], b), r"2 axes \(example, dim\)"),
        (lambda a, b: lens.linear_cka(np.ones((9, 2), int), b), "expected floats"),
        (lambda a, b: lens.procrustes_similarity(np.where(np.arange(60)[:, None] == 7, np.nan, a), b),
         "first in example 7"),
        (lambda a, b: lens.svcca(a, b, 0.0), "variance is 0.0"),
        (lambda a, b: lens.svcca(a, b, 1.1), "variance is 1.1"),
        (lambda a, b: lens.rsa(a, b, rsa_rows=3), "rsa_rows is 3"),
        (lambda a, b: lens.represent(a, np.arange(59)), "one group, from 0 on, for each of 60"),
        (lambda a, b: lens.represent(a, np.arange(60) - 1), "from 0 on"),
        (lambda a, b: lens.compare(lens.represent(a), lens.represent(b), ["cosine"]),
         "unknown measure 'cosine': use some of"),
        (lambda a, b: lens.compare(lens.represent(a, np.arange(60) % 3), lens.represent(b)),
         "groups of both sides differ"),
        (lambda a, b: lens.compare(lens.represent(a, np.arange(60) % 3), lens.represent(b, np.arange(60) // 9)),
         "of both sides"),
    ],
)
def test_bad_input_is_refused_with_the_fix(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*related())


def test_import_needs_numpy_only() -> None:
    code = ("import sys; import finetrace.lenses.similarity.measures; "
            "print([m for m in ('scipy', 'pandas', 'torch', 'matplotlib', 'sklearn', 'mlflow') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

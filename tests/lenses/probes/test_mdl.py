"""Online code length: the loop oracle, known cases, classes that come late, refused input."""

import numpy as np
import pytest
from tests.oracles import probe_parts as oracle

from finetrace.lenses.probes.mdl import FRACTIONS, online_code


def problems(count: int = 2, rows: int = 120, dim: int = 5, classes: int = 3, signal: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(rows) % classes)
    means = rng.normal(size=(count, classes, dim)) * signal
    return (rng.normal(size=(count, rows, dim)) + means[:, y]).astype(np.float32), y


def test_bits_are_those_of_the_loop() -> None:
    X, y = problems()
    y[:2] = [3, 4]  # classes of one row: most blocks do not know them
    code = online_code(X, y, l2=[0.05], fractions=[0.01, 0.03, 0.1, 0.3, 1.0], seed=9, tolerance=1e-8)
    assert code.ends.tolist() == [1, 4, 12, 36, 120]
    for p in range(2):
        assert code.bits[p] == pytest.approx(oracle.online_code(X[p], y, code.ends.tolist(), 0.05, 9), abs=1e-4)
    np.testing.assert_allclose(code.block_bits.sum(axis=1), code.bits)
    assert code.uniform_bits == pytest.approx(120 * np.log2(5))
    np.testing.assert_allclose(code.compression, code.uniform_bits / code.bits)


def test_one_block_is_the_uniform_code() -> None:
    X, y = problems(1, 64, classes=4)
    code = online_code(X, y, fractions=[1.0])
    assert code.bits[0] == 128 == code.uniform_bits and code.compression[0] == 1


def test_published_fractions_of_few_rows_lose_their_empty_blocks() -> None:
    X, y = problems(1, 100)
    assert online_code(X, y).ends.tolist() == [1, 2, 3, 6, 12, 25, 50, 100]
    assert len(FRACTIONS) == 11 and FRACTIONS[-1] == 1


def test_separable_classes_compress_and_noise_does_not() -> None:
    X, y = problems(1, 400, signal=6.0)
    noise = np.random.default_rng(1).normal(size=X.shape)
    code = online_code(np.concatenate([X, noise]), y)
    assert code.compression[0] > 5 and 0.8 < code.compression[1] < 1.02
    constant = online_code(np.zeros_like(X), (np.arange(400) < 40).astype(int))
    entropy = -(0.1 * np.log2(0.1) + 0.9 * np.log2(0.9))
    assert constant.bits[0] / 400 == pytest.approx(entropy, rel=0.15)  # it learns the frequencies, and no more


def test_until_two_classes_are_seen_laplace_decides() -> None:
    X, y = np.zeros((1, 8, 2)), np.array([0, 0, 0, 0, 0, 0, 0, 1])
    order = next(s for s in range(50) if np.random.default_rng(s).permutation(8)[-1] == 7)
    code = online_code(X, y, fractions=[0.125, 0.5, 1.0], seed=order)
    assert code.ends.tolist() == [1, 4, 8]
    expected = [1.0, -3 * np.log2(2 / 3), -3 * np.log2(5 / 6) - np.log2(1 / 6)]
    np.testing.assert_allclose(code.block_bits[0], expected)


def test_names_of_labels_and_order_of_problems_do_not_matter() -> None:
    X, y = problems(3)
    one, other = online_code(X, y, l2=[0.1]), online_code(X[[2, 0]], 7 * y + 2, l2=[0.1])
    np.testing.assert_allclose(other.bits, one.bits[[2, 0]], rtol=1e-6)
    np.testing.assert_array_equal(one.bits, online_code(X, y, l2=[0.1]).bits)
    assert (one.bits != online_code(X, y, l2=[0.1], seed=1).bits).all()


def test_bad_input_is_refused() -> None:
    X, y = problems(1)
    for fractions in ([], [0.5], [0.5, 0.2, 1.0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="must ascend from above 0 to 1"):
            online_code(X, y, fractions=fractions)
    with pytest.raises(ValueError, match="the labels hold 1 class"):
        online_code(X, y * 0)

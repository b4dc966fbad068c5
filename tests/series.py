"""Series of rows that tests of the information dynamics look at, and how two results are compared."""

import numpy as np

from finetrace.lenses.infodynamics import measures as lens

FIELDS = ("novelty", "transience", "resonance", "novelty_sd", "transience_sd", "resonance_sd")


def rows(m: int, classes: int = 3, concentration: float = 0.5, seed: int = 0) -> np.ndarray:
    """(example, class) Dirichlet rows; a small concentration gives confident rows."""
    return np.random.default_rng(seed).dirichlet(np.full(classes, concentration), m)


def one_hot(m: int, shares: list[float], seed: int = 0) -> np.ndarray:
    return np.eye(len(shares))[np.random.default_rng(seed).choice(len(shares), size=m, p=shares)]


def assert_same(found: lens.Dynamics, expected: lens.Dynamics | dict[str, np.ndarray], atol: float = 1e-12) -> None:
    for name in FIELDS:
        want = expected[name] if isinstance(expected, dict) else getattr(expected, name)
        np.testing.assert_allclose(getattr(found, name), want, rtol=0, atol=atol, equal_nan=True, err_msg=name)

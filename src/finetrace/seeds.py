"""Randomness by name: every random choice comes from the study's seed and a purpose, never from `seed + 1`."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive(seed: int, *purpose: str | int) -> int:
    """A 32-bit seed for one purpose, e.g. `derive(study.seed, "order", trajectory.seed)`.

    Equal arguments give equal seeds on every machine and Python version; different purposes are independent.
    """
    text = "/".join([str(int(seed)), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def generator(seed: int, *purpose: str | int) -> "np.random.Generator":
    """A numpy Generator for one purpose."""
    import numpy as np

    return np.random.default_rng(derive(seed, *purpose))

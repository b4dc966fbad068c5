"""Pictures in tests: what a person sees of a figure, however it is compressed."""

import io
from pathlib import Path

import numpy as np

LARGEST = 2_000  # pixels: a side that a page still shows


def pixels(picture: bytes | Path) -> np.ndarray:
    """A PNG file, or its bytes, as (height, width, channel)."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture if isinstance(picture, bytes) else picture.read_bytes())))


def assert_drawn(picture: bytes | Path) -> None:
    """Something is drawn, and it fits a page."""
    found = pixels(picture)
    assert found.std() > 0, "the picture is empty"
    assert max(found.shape[:2]) <= LARGEST, f"the picture has {found.shape[1]} x {found.shape[0]} pixels"

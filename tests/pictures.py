"""Pictures in tests: what a person sees of a figure, however it is compressed; and sketches, which nobody sees."""

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def sketch(figure: "Figure", dpi: int = 100) -> bytes:
    """Stands for a figure's PNG file, most of whose time goes into layout and pixels: equal where all that would be
    drawn is equal."""
    from matplotlib.collections import Collection
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    digest = hashlib.sha256(str(dpi).encode())
    for artist in figure.findobj():
        drawn: list[object] = [type(artist).__name__]
        if isinstance(artist, Text):
            drawn += [artist.get_text(), artist.get_color()]
        elif isinstance(artist, Line2D):
            drawn += [artist.get_xydata(), artist.get_color(), artist.get_linestyle()]
        elif isinstance(artist, Collection):
            drawn += [artist.get_offsets(), artist.get_array(), artist.get_facecolor(),
                      *(path.vertices for path in artist.get_paths())]
        elif isinstance(artist, AxesImage):
            drawn += [artist.get_array(), artist.get_extent()]
        elif isinstance(artist, Patch):
            drawn += [artist.get_verts(), artist.get_facecolor()]
        for value in drawn:
            digest.update(np.ma.filled(np.ma.asarray(value), 0).tobytes() if isinstance(value, np.ndarray)
                          else repr(value).encode())
    return b"\x89PNG\r\n\x1a\n" + digest.digest()

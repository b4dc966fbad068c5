"""Damage to files of unfinished work: a flipped bit, a lost end."""

from collections.abc import Callable
from pathlib import Path


def flip(path: Path) -> None:
    """Flip a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Lose the last bytes."""
    path.write_bytes(path.read_bytes()[:-min(20, path.stat().st_size)])


WAYS: dict[str, Callable[[Path], None]] = {"flipped": flip, "truncated": truncate}

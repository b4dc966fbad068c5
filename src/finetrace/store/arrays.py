"""Dense arrays as .npy files: atomic writes, memory-mapped reads, never pickled."""

from pathlib import Path

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.store.files import atomic_file


def write_array(path: Path, values: np.ndarray) -> None:
    """Write one .npy file atomically."""
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, values, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Open a .npy file read-only, memory-mapped; a damaged or truncated file is an error that names it."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError("it is an .npz archive")
        return values
    except FileNotFoundError as error:
        raise FinetraceError(f"{path}: no such array; run the stage that writes it (dvc repro)") from error
    except (ValueError, OSError, EOFError) as error:
        raise FinetraceError(f"{path}: not a readable array ({error}); delete it and run its stage again") from error

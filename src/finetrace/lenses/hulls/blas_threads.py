"""One thread for the linear algebra inside a block of many small steps.

numpy and scipy bring a thread pool each; steps that alternate between them leave each pool spinning while the other
works, which costs up to ten times the time of one thread.
"""

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

_lock = threading.Lock()
_held: list[Any] = []
_depth = 0


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit the pools while any block is open, in any thread; the last block to close restores what was set before."""
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _held.append(_controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _held.pop().restore_original_limits()


@cache
def _controller() -> Any:
    """Looking for the libraries takes a millisecond: once, after both have been loaded."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

"""How many threads an item may use: items that run side by side share the cores."""

import os

NAME = "FINETRACE_THREADS"
"""Environment variable in which the driver says it."""


def share() -> int | None:
    """Threads for this item, at least 1; None where nobody said, and libraries take all cores."""
    threads, limit = os.environ.get(NAME, ""), os.environ.get("OMP_NUM_THREADS", "")
    if not threads.isdecimal():
        return None
    return max(1, min(int(threads), int(limit) if limit.isdecimal() else int(threads)))

"""Calls that need nothing of each other, in processes of their own where there are many."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from finetrace.store.threads import share

Result = TypeVar("Result")
MANY = 20
"""Calls, or trajectories that they are about, from which on processes of their own pay."""


def side_by_side(call: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], *, many: bool) -> Iterator[Result]:
    """Results in the order of the arguments; begins at once, and goes on while the caller does something else.

    many: whether to use all cores that the item has; otherwise each result is computed when it is asked for.
    """
    from joblib import Parallel, delayed

    processes = Parallel(n_jobs=(share() or -1) if many else 1, return_as="generator")
    results: Iterator[Result] = processes(delayed(call)(*each) for each in arguments)
    return results

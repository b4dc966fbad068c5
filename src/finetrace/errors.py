"""The one exception that means: the user can fix this."""

from collections.abc import Iterator
from contextlib import contextmanager


class FinetraceError(Exception):
    """Bad input. The message says what is wrong, where (file, row or key) and what to do."""


@contextmanager
def blame(where: str, fix: str = "") -> Iterator[None]:
    """Turn a ValueError of a pure function into a FinetraceError that says where it comes from: `where: what is wrong; fix`.

    where: a file, or a section of params.yaml, such as "params.yaml: kernel, for micro-a/micro-topic/ft/s1".
    """
    try:
        yield
    except ValueError as error:
        raise FinetraceError(f"{where}: {error}" + (f"; {fix}" if fix else "")) from error

"""The one exception that means: the user can fix this."""


class FinetraceError(Exception):
    """Bad input. The message says what is wrong, where (file, row or key) and what to do."""

"""finetrace shows what training does to a language model."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetrace.training.callback import TraceCallback as TraceCallback
    from finetrace.training.traced_loop import trace as trace

__version__ = "0.1.0"

_PUBLIC = {"TraceCallback": "finetrace.training.callback", "trace": "finetrace.training.traced_loop"}
"""Name -> the module that it comes from, loaded when the name is first used (torch takes seconds)."""


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)

"""finetrace shows what training does to a language model.

    import finetrace as ft

    trajectory = ft.open("outputs/micro-a/micro-sentiment/ft/s1")   # what a study left
    states = ft.hidden_states("models/micro-a", ["a text"])         # what a model says about texts
    ft.lens.geometry.effective_rank(states.tokens[0][-1])           # the functions of the lenses

What stands here is loaded when its name is first used, so that importing finetrace costs nothing.
"""

TYPE_CHECKING = False  # as type checkers know it, without importing typing
if TYPE_CHECKING:
    from finetrace.api.lens import lens as lens
    from finetrace.api.texts import TextStates as TextStates
    from finetrace.api.texts import hidden_states as hidden_states
    from finetrace.api.trajectory import Trajectory as Trajectory
    from finetrace.api.trajectory import open as open
    from finetrace.errors import FinetraceError as FinetraceError
    from finetrace.training.callback import TraceCallback as TraceCallback
    from finetrace.training.traced_loop import trace as trace

__version__ = "0.1.0"

_PUBLIC = {
    "FinetraceError": "finetrace.errors",
    "TextStates": "finetrace.api.texts",
    "Trajectory": "finetrace.api.trajectory",
    "hidden_states": "finetrace.api.texts",
    "lens": "finetrace.api.lens",
    "open": "finetrace.api.trajectory",
    "TraceCallback": "finetrace.training.callback",
    "trace": "finetrace.training.traced_loop",
}
"""Name -> the module that it comes from, loaded when the name is first used (torch takes seconds)."""


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})

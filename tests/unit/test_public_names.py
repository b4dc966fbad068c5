"""The public names of `finetrace`: what a notebook may rely on, and that importing it costs nothing."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import finetrace
from finetrace.api.lens import FUNCTIONS

ROOT = Path(__file__).parents[2]
NAMES = {
    "FinetraceError": "(message: object = '')",
    "TextStates": "(cls, mean, tokens, words)",
    "TraceCallback": "(folder: str | pathlib.Path, **options: Any)",
    "Trajectory": "(folder)",
    "hidden_states": "(model: str | pathlib.Path, texts: collections.abc.Iterable[str], *, max_length: int = 128) -> "
                     "finetrace.api.texts.TextStates",
    "lens": "calibration, convergence, dynamics, features, geometry, hulls, infodynamics, pairs, probes, similarity",
    "trace": "(model: Any, optimizer: Any, folder: str | pathlib.Path, *, loader: Any, epochs: float = 1.0, "
             "accumulate: int = 1, steps: int = 0, start: int = 0, tokenizer: Any = None, "
             "settings: dict[str, Any] | None = None, seeds: dict[str, int] | None = None, **options: Any) -> "
             "collections.abc.Iterator[finetrace.training.traced_loop.TracedLoop]",
    "open": "(place: str | pathlib.Path) -> 'Trajectory'",
    "Trajectory.checkpoint": "(self, step: int) -> pathlib.Path",
    "Trajectory.hidden": "(self, step: int, layer: int, kind: Literal['cls', 'mean'] = 'cls') -> 'np.ndarray'",
    "Trajectory.hidden_rows": "(self) -> 'pd.DataFrame'",
    "Trajectory.history": "(self, columns: list[str] | None = None) -> 'pd.DataFrame'",
    "Trajectory.metrics": "(self, lens: str) -> dict[str, float]",
    "Trajectory.predictions": "(self, step: int, split: str = 'validation') -> 'pd.DataFrame'",
    "Trajectory.signals": "(self, columns: list[str] | None = None) -> 'pd.DataFrame'",
    "Trajectory.table": "(self, lens: str) -> 'LongTable'",
}
"""Public name -> its signature, or the names within."""
ATTRIBUTES = ["answers", "folder", "label_names", "lenses", "manifest", "states", "steps"]
"""What else a trajectory has."""
CHANGED = ("the public API has changed. If that is meant: bring NAMES in this file up to date, say it in CHANGELOG.md "
           "(under Changed, where a notebook has to be mended) and list a new name in docs/api.md")


def signature(found: Any) -> str:
    """How it is called; of a dataclass the names of its fields."""
    if hasattr(found, "__dataclass_fields__"):
        return f"({', '.join(found.__dataclass_fields__)})"
    return ", ".join(dir(found)) if not callable(found) else re.sub(r"typing\.", "", str(inspect.signature(found)))


def test_public_names_and_their_signatures_are_stable() -> None:
    found = {name: signature(getattr(finetrace, name)) for name in finetrace._PUBLIC if name in NAMES}
    methods = {name: value for name, value in vars(finetrace.Trajectory).items()
               if not name.startswith("_") and inspect.isfunction(value)}
    found |= {f"Trajectory.{name}": signature(value) for name, value in methods.items()}
    assert found == NAMES, CHANGED
    others = {name for name in dir(finetrace.Trajectory) if not name.startswith("_")} - set(methods)
    assert sorted({*others, *finetrace.Trajectory.__dataclass_fields__}) == ATTRIBUTES, CHANGED


def test_every_public_name_is_there_and_listed() -> None:
    listed = (ROOT / "docs/api.md").read_text("utf-8")
    for name, module in finetrace._PUBLIC.items():
        assert getattr(finetrace, name) is not None and name in dir(finetrace)
        assert f"{module}.{name}" in listed or f"ft.{name}." in listed, f"docs/api.md does not list {name}"
    with pytest.raises(AttributeError, match="no attribute 'opem'"):
        finetrace.opem  # noqa: B018


def test_every_function_of_a_lens_is_there_and_listed() -> None:
    listed = re.findall(r"^::: finetrace\.lenses\.(\w+)\.\w+\.(\w+)$", (ROOT / "docs/api.md").read_text("utf-8"),
                        flags=re.MULTILINE)
    assert sorted(listed) == sorted((lens, name) for lens, names in FUNCTIONS.items() for name in names)
    assert dir(finetrace.lens) == sorted(FUNCTIONS)
    for lens, names in FUNCTIONS.items():
        of_lens = getattr(finetrace.lens, lens)
        assert dir(of_lens) == sorted(names)
        for name in names:
            assert inspect.getdoc(getattr(of_lens, name)), f"{lens}.{name} says what it does"
    with pytest.raises(AttributeError, match="has no 'geometri'; it has calibration"):
        finetrace.lens.geometri  # noqa: B018
    with pytest.raises(AttributeError, match="geometry has no 'rank'; it has anisotropy"):
        finetrace.lens.geometry.rank  # noqa: B018


def test_importing_finetrace_loads_nothing() -> None:
    code = ("import sys; before = set(sys.modules); import finetrace; dir(finetrace); "
            "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(ROOT / "src")})
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "pandas", "pyarrow", "torch", "transformers", "mlflow", "yaml"}
    assert loaded - set(sys.stdlib_module_names) == {"finetrace"}

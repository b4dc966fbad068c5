"""What may import what: no import climbs, no circle closes (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
GROUND = {"errors", "seeds", "layout", "progress", "longtable", "tags", "group"}
OPEN = ("stage", "work", "states", "files", "inputs")
"""Modules of a lens that know files and stages."""
USES = {
    "errors": set(),
    "seeds": set(),
    "progress": set(),
    "longtable": set(),
    "tags": set(),
    "group": {"errors"},
    "layout": {"errors"},
    "config": GROUND,
    "store": GROUND,
    "data": {"config", "store", *GROUND},
    "models": {"store", *GROUND},
    "figures": set(),
    "lens": {"seeds", "longtable", "progress"},
    "lens headlines": set(),
    "lens settings": {"config", *GROUND},
    "lens figures": {"lens", "figures", "longtable"},
    "inference": {"models", "store", "config", *GROUND},
    "training": {"inference", "models", "data", "store", "config", "lens", *GROUND},
    "study": {"lens settings", "data", "store", "config", *GROUND},
    "pipeline": {"study", "store", "config", "figures", *GROUND},
    "originals": {"lens", "store", *GROUND},
    "reports": {"study", "lens", "store", *GROUND},
    "atlas": {"reports", "study", "lens", "lens headlines", "lens figures", "figures", "store", *GROUND},
    "tracking": {"pipeline", "study", "store", "config", "lens headlines", *GROUND},
    "first_look": {"atlas", "lens", "lens stage", "lens settings", "lens headlines", "figures", "inference", "models",
                   "data", "store", "config", *GROUND},
    "api": {"first_look", "inference", "models", "store", *GROUND},
    "lens stage": {"lens", "lens settings", "lens figures", "pipeline", "originals", "training", "inference", "models",
                   "data", "store", "config", *GROUND},
}
"""Room -> rooms that it may use, besides itself."""
EXCEPTIONS = {("finetrace.lenses.kernel.compute", "finetrace.models.head")}  # it differentiates a model


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in (SRC / "finetrace").rglob("*.py"):
        found[".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """Modules of finetrace that a module imports, also inside functions, without those for the type checker."""
    tree = ast.parse(modules()[name].read_text("utf-8"))
    unseen = {id(node) for test in ast.walk(tree) if isinstance(test, ast.If)
              and "TYPE_CHECKING" in ast.unparse(test.test)
              for part in test.body for node in ast.walk(part)}
    return frozenset(found for node in ast.walk(tree) if id(node) not in unseen for found in _named(node)) - {name}


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules())
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finetrace"):
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in modules() else str(node.module)


def room(name: str) -> str:
    parts = name.split(".")[1:]
    if parts[:1] != ["lenses"]:
        return parts[0] if parts else ""
    if "figures" in parts:
        return "lens figures"
    if parts[-1] in ("headline", "headlines"):
        return "lens headlines"
    return (
        "lens settings"
        if parts[-1] == "settings"
        else "lens stage"
        if parts[-1] in OPEN and len(parts) == 3
        else "lens"
    )


def test_every_room_is_known() -> None:
    assert {room(name) for name in modules()} - {"", "cli"} == set(USES)


@pytest.mark.parametrize("of", sorted(USES))
def test_no_import_climbs(of: str) -> None:
    names = [name for name in modules() if room(name) == of]
    climbing = [f"{name} imports {other}" for name in names for other in imports(name)
                if room(other) not in (of, *USES[of]) and (name, other) not in EXCEPTIONS]
    assert names and not climbing


def test_no_circle_closes() -> None:
    graph = {name: imports(name) for name in modules()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert len(order) == len(graph)


def test_a_lens_is_one_folder() -> None:
    lenses = sorted(path for path in (SRC / "finetrace/lenses").iterdir() if (path / "stage.py").is_file())
    assert len(lenses) >= 15
    for lens in lenses:
        script = SRC.parent / "pipelines" / f"{lens.name}.py"
        assert f"from finetrace.lenses.{lens.name}.stage import main" in script.read_text("utf-8")
        assert len(script.read_text("utf-8").splitlines()) <= 20, f"{script.name} is a few lines"
        assert (lens / "figures.py").is_file() or (lens / "figures").is_dir()
        assert (lens / "__init__.py").is_file()


def test_only_tracking_knows_mlflow_only_pipeline_dvc_only_tuning_optuna() -> None:
    homes = {"mlflow": ("tracking",), "dvc": ("pipeline",), "ray": ("pipeline",), "optuna": ("training",)}
    found = {package: set() for package in homes}  # type: ignore[var-annotated]
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            words = [a.name for a in node.names] if isinstance(node, ast.Import) else (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            for package in {word.split(".")[0] for word in words} & homes.keys():
                found[package].add(room(name))
    assert {package: tuple(rooms) for package, rooms in found.items()} == homes


def test_headlines_decide_no_measurement() -> None:
    """Another sentence about a metric measures nothing again: only what shows them imports them, and they import
    nothing."""
    headlines = {name for name in modules() if room(name) == "lens headlines"}
    importing = {name for name in modules() if imports(name) & headlines} - headlines
    assert len(headlines) >= 11 and importing
    assert {room(name) for name in importing} == {"atlas", "tracking", "first_look"}
    assert set().union(*(imports(name) for name in headlines)) == {"finetrace.lenses.headline"}


def test_files_are_read_in_one_sitting() -> None:
    files = [*SRC.rglob("*.py"), *(SRC.parent / "pipelines").glob("*.py")]
    long = {str(path): count for path in files if (count := len(path.read_text("utf-8").splitlines())) > 400}
    assert len(files) > 300 and not long, "split a file of more than 400 lines by what its parts are about"


def test_functions_are_read_at_a_glance() -> None:
    files = [*SRC.rglob("*.py"), *(SRC.parent / "pipelines").glob("*.py")]
    functions = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text("utf-8")))
                 if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f"{path.name}: {node.name}": lines for path, node in functions
            if (lines := (node.end_lineno or 0) - node.lineno + 1) > 60}
    assert len(functions) > 1500 and not long, "split a function of more than 60 lines by what its parts do"

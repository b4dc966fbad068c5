"""dvc.yaml: every stage depends on the lens and figure modules that it imports, directly or through others."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
LENSES = ["infodynamics", "geometry", "similarity", "comparison", "hulls", "probes", "convergence", "calibration", "features",
          "kernel", "edges", "cloze", "downstream", "dynamics", "cross-task", "directprobe"]
ROOMS = ("lenses", "figures", "directprobe")


def imported(file: Path) -> set[Path]:
    """Modules of the rooms, and neighbouring scripts, that a file imports; a package stands for all its modules."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    found = {ROOT / "pipelines" / f"{n}.py" for n in names}
    for name in names:
        parts = name.split(".")
        if parts[0] == "finetrace" and len(parts) > 1 and parts[1] in ROOMS:
            package = ROOT.joinpath("src", *parts[:3])
            found |= {package, package.with_suffix(".py"), ROOT.joinpath("src", *parts[:2]).with_suffix(".py")}
    rooms = {ROOT / "src/finetrace" / room for room in ROOMS}
    return {path for path in found - rooms if path.is_file() or (path / "__init__.py").is_file()}


def reached(file: Path) -> set[Path]:
    found, waiting = set(), [file]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += set().union(*(imported(file) for file in (one.glob("*.py") if one.is_dir() else [one])))
    return found


@pytest.mark.parametrize("lens", LENSES)
def test_a_lens_depends_on_all_that_it_imports_and_on_nothing_else_of_the_lenses(lens):
    inside = ("pipelines/", *(f"src/finetrace/{room}" for room in ROOMS))
    listed = {ROOT / dep for dep in STAGES[lens]["do"]["deps"] if dep.startswith(inside)}
    style = ROOT / "src/finetrace/figures/style.py"  # draws the figures of every lens (stage.write_figures)
    assert listed == reached(ROOT / "pipelines" / f"{lens.replace('-', '_')}.py") | {style}


@pytest.mark.parametrize("lens", LENSES)
def test_a_lens_depends_on_the_outputs_that_its_script_names(lens):
    text = (ROOT / "pipelines" / f"{lens.replace('-', '_')}.py").read_text()
    deps = STAGES[lens]["do"]["deps"]
    for name in ("hidden", "history.parquet", "probe.parquet", "signals.parquet"):
        if f'"{name}"' in text:
            assert any(dep.endswith(f"/{name}") for dep in deps), name

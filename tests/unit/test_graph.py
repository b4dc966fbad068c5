"""dvc.yaml: every stage depends on the lens and figure modules that it imports, directly or through others."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
LENSES = ["infodynamics", "geometry", "similarity", "comparison", "probes", "convergence"]


def imported(file: Path) -> set[Path]:
    """Modules of finetrace.lenses and finetrace.figures, and neighbouring scripts, that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    inside = [ROOT / "src" / f"{n.replace('.', '/')}.py" for n in names
              if n.startswith(("finetrace.lenses.", "finetrace.figures."))]
    beside = [ROOT / "pipelines" / f"{n}.py" for n in names]
    return {path for path in (*inside, *beside) if path.is_file()}


def reached(file: Path) -> set[Path]:
    found, waiting = set(), [file]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += imported(one)
    return found


@pytest.mark.parametrize("lens", LENSES)
def test_a_lens_depends_on_all_that_it_imports_and_on_nothing_else_of_the_lenses(lens):
    listed = {ROOT / dep for dep in STAGES[lens]["do"]["deps"] if dep.startswith(("pipelines/", "src/"))}
    style = ROOT / "src/finetrace/figures/style.py"  # draws the figures of every lens (stage.write_figures)
    assert listed == reached(ROOT / "pipelines" / f"{lens}.py") | {style}


@pytest.mark.parametrize("lens", LENSES)
def test_a_lens_depends_on_the_outputs_that_its_script_names(lens):
    text = (ROOT / "pipelines" / f"{lens}.py").read_text()
    deps = STAGES[lens]["do"]["deps"]
    for name in ("hidden", "history.parquet", "probe.parquet", "signals.parquet"):
        if f'"{name}"' in text:
            assert any(dep.endswith(f"/{name}") for dep in deps), name

"""Fingerprints of the project's own scripts: they follow the imports that another way finds, no more and no fewer."""

import ast
from functools import cache
from pathlib import Path

import pytest

from finetrace.pipeline.fingerprint import NOT_DECIDING, Fingerprints

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {path.stem: path for path in sorted((ROOT / "pipelines").glob("*.py"))}
MODULES = {".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): path
           for path in sorted((ROOT / "src" / "finetrace").rglob("*.py"))}
FOLLOWED = [name for name in MODULES if not any(f"{name}.".startswith(f"{prefix}.") for prefix in NOT_DECIDING)]


@cache
def oracle(label: str) -> set[str]:
    """Labels of the files that a script, or a module, imports by itself, found in another way."""
    path = ROOT / label if "/" in label else MODULES[label]
    tree, names = ast.parse(path.read_text("utf-8")), set[str]()
    package = label if path.name == "__init__.py" else label.rpartition(".")[0]
    unseen = {part for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
              for statement in node.body for part in ast.walk(statement)}
    for node in set(ast.walk(tree)) - unseen:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = [package.rsplit(".", node.level - 1)[0]] if node.level else []
            base = ".".join([*around, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    names |= {name.rsplit(".", count)[0] for name in names for count in range(name.count(".") + 1)}
    return {f"pipelines/{name}.py" for name in names & SCRIPTS.keys()} | names & set(FOLLOWED)


def closure(*labels: str) -> set[str]:
    """Labels of all files that importing these executes or may execute."""
    found, waiting = set(labels), [*labels]
    while waiting:
        new = oracle(waiting.pop()) - found
        found |= new
        waiting += new
    return found


@pytest.fixture(scope="module")
def real() -> Fingerprints:
    return Fingerprints(ROOT)


@pytest.mark.parametrize("script", SCRIPTS)
def test_real_scripts(real: Fingerprints, script: str) -> None:
    found = real.of(SCRIPTS[script])
    assert set(found.modules) == closure(f"pipelines/{script}.py")
    tasks = {f"finetrace/data/tasks/{path.name}" for path in (ROOT / "src/finetrace/data/tasks").glob("*.yaml")}
    assert set(found.data) & tasks == (tasks if "finetrace.data.registry" in found.modules else set())


def test_real_modules(tmp_path: Path) -> None:
    """Every module, imported by a script of its own."""
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "pipelines").mkdir()
    for name in FOLLOWED:
        (tmp_path / "pipelines" / f"of {name}.py").write_text(f"import {name}\n")
    prints = Fingerprints(tmp_path)
    assert len(FOLLOWED) > 100
    for name in FOLLOWED:
        around = [name.rsplit(".", count)[0] for count in range(name.count(".") + 1)]
        found = prints.of(Path(f"pipelines/of {name}.py")).modules
        assert found.keys() - {f"pipelines/of {name}.py"} == closure(*around), name


@pytest.mark.parametrize("prefix, reason", NOT_DECIDING.items())
def test_not_deciding_exists(prefix: str, reason: str) -> None:
    assert prefix in MODULES and len(reason) > 10

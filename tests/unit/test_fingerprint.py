"""Fingerprints of scripts: they change with the meaning of the code that decides a result, and with nothing else."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetrace.errors import FinetraceError
from finetrace.pipeline import fingerprint
from finetrace.pipeline.fingerprint import Fingerprint, Fingerprints

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = dict.fromkeys(fingerprint.DECIDING, "1.0")
SEEDS, RANK, SHAPES = "src/finetrace/seeds.py", "src/finetrace/lenses/rank.py", "src/finetrace/shapes.py"
TREE = {
    **dict.fromkeys([f"src/finetrace{part}/__init__.py" for part in ("", "/lenses", "/figures", "/tracking")], ""),
    SEEDS: "import hashlib\n\ndef derive(seed: int, width: int = 8) -> int:\n    return seed * width\n",
    RANK: "def rank(x):\n    return x - 1\n",
    SHAPES: "dot = 1\n",
    "src/finetrace/lenses/trace.py": "from finetrace import seeds\n\ndef trace(x):\n    return x + seeds.derive(1)\n",
    "src/finetrace/figures/style.py": "from finetrace.figures.colours import BLUE\nfrom finetrace.shapes import dot\n",
    "src/finetrace/figures/colours.py": "BLUE = 'blue'\n",
    "src/finetrace/tracking/live.py": "from finetrace.lenses import rank\n",
    "pipelines/trace.py": "from finetrace.lenses.trace import trace\n\ndef main():\n"
                          "    from finetrace.figures.style import dot\n    from finetrace.tracking.live import rank\n",
    "pipelines/rank.py": "import finetrace.lenses.rank\n",
    "pipelines/both.py": "from rank import finetrace\nfrom trace import main\n",
}


class Project:
    """A small project: scripts of the traces, with figures; of the ranks; and one that imports these two."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache = root, root / "far" / "cache.json"
        for name, text in TREE.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        """Write a file, however deep."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def all(self, **more: Any) -> dict[str, Fingerprint]:
        """The fingerprint of every script."""
        prints = Fingerprints(self.root, **{"versions": VERSIONS.get, **more})
        return {path.stem: prints.of(path) for path in sorted((self.root / "pipelines").glob("*.py"))}

    def of(self, text: str, **more: Any) -> Fingerprint:
        """The fingerprint of a new script with this text."""
        self.write("pipelines/new.py", text)
        return Fingerprints(self.root, **{"versions": VERSIONS.get, **more}).of(Path("pipelines/new.py"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def changed(before: dict[str, Fingerprint], after: dict[str, Fingerprint]) -> tuple[set[str], set[str]]:
    """The scripts whose numbers, and those whose drawings, must be made again."""
    return ({name for name in before if before[name].measure != after[name].measure},
            {name for name in before if before[name].draw != after[name].draw})


def test_members(project: Project) -> None:
    found, lenses = project.all(), ["finetrace", "finetrace.lenses"]
    traces = [*(f"finetrace.figures{part}" for part in ("", ".colours", ".style")), *lenses, "finetrace.lenses.trace",
              "finetrace.seeds", "finetrace.shapes", "pipelines/trace.py"]
    assert list(found["trace"].modules) == sorted(traces)
    assert list(found["rank"].modules) == [*lenses, "finetrace.lenses.rank", "pipelines/rank.py"]
    assert set(found["both"].modules) == {*traces, *found["rank"].modules, "pipelines/both.py"}
    for one in found.values():
        assert re.fullmatch("[0-9a-f]{128}", one.measure + one.draw)
        assert all(re.fullmatch("[0-9a-f]{16}", text) for text in one.modules.values())
    assert project.all() == found


@pytest.mark.parametrize("one, other, same", [
    (TREE[SEEDS], TREE[SEEDS].replace("lib\n", "lib  # why\n\n# here\n").replace("\n    ", "\n\n    ") + "\n\n", True),
    (TREE[SEEDS], "import hashlib\ndef derive(\n  seed:int, width : int=8,\n)->int: return (seed *\n width)", True),
    (TREE[SEEDS], "'Doc.'\n" + TREE[SEEDS].replace(":\n", ":\n    '''doc'''\n    'two'\n") + "    'three'\n", True),
    ("class Odd(Exception):\n    pass\n", "class Odd(Exception):\n    'Doc.'\n", True),
    ("def f():\n    'one'\n", "def f():\n    'two'\n    pass\n", True), ("", "'''Doc.'''\n", True),
    ("class A:\n    x: int = 1\n    'Of x.'\n    y = 'it\\'s'\n", 'class A:\n    x: int = 1\n    y = "it\'s"\n', True),
    ("x = 1_000\n'Of x.'\n", "x = 1000\n", True), ("x = 'a' 'b'", "x = (\n 'ab')", True),
    ("x = 1", "x = 1.0", False), ("x = 1", "x = True", False), ("x = 'a'", "x = b'a'", False), ("f'{x}'", "", False),
    ("x = a", "x = 'a'", False), ("x = {**a}", "x = {None: a}", False), ("x = 'doc'", "'doc'", False),
])
def test_two_ways_to_write(project: Project, one: str, other: str, same: bool) -> None:
    before = project.of("import finetrace.seeds\n" + one)
    project.write(SEEDS, f"# comment\n{TREE[SEEDS]}'docstring'\n")
    assert (before == project.of("import finetrace.seeds\n" + other)) is same


TRACES, RANKS, NONE = {"trace", "both"}, {"rank", "both"}, set[str]()  # scripts that reach what is changed


@pytest.mark.parametrize("name, old, new, measured, drawn", [
    *((SEEDS, *change, TRACES, NONE) for change in [
        ("int = 8", "int = 9"), ("seed * width", "seed + width"), ("return seed", "return width"), ("hashlib", "json"),
        ("def derive", "@staticmethod\ndef derive"), ("seed: int", "seed: float"), ("seed * width", "width * seed"),
        ("-> int", "-> float"), ("    return", "    seed += 1\n    return"), ("int, width", "int, *, width"),
        ("def derive", "async def derive"), ("import hashlib", "x = 'hashlib'")]),
    *((f"src/finetrace{part}/__init__.py", "", "x = 1", {"trace", "rank", "both"}, NONE) for part in ("", "/lenses")),
    (RANK, "- 1", "- 2", RANKS, NONE), ("pipelines/rank.py", "import", "x = 1\nimport", RANKS, NONE),
    (SHAPES, "= 1", "= 2", NONE, TRACES),
    ("pipelines/both.py", "main", "main as m", {"both"}, NONE), ("src/finetrace/tracking/live.py", "k", "", NONE, NONE),
    ("src/finetrace/figures/style.py", "BLUE", "BLUE as B", NONE, TRACES),
    ("src/finetrace/figures/__init__.py", "", "x = 1", NONE, TRACES),
])
def test_changes(project: Project, name: str, old: str, new: str, measured: set[str], drawn: set[str]) -> None:
    before = project.all()
    assert old in TREE[name]
    project.write(name, TREE[name].replace(old, new))
    assert changed(before, project.all()) == (measured, drawn)


def test_reached_both_ways_belongs_to_measure(project: Project) -> None:
    before = project.all()
    project.write(RANK, TREE[RANK] + "import finetrace.shapes\n")
    after = project.all()
    assert changed(before, after) == ({"rank", "both"}, {"both"})
    project.write(SHAPES, "dot = 2\n")
    assert changed(after, project.all()) == ({"rank", "both"}, {"trace"})


@pytest.mark.parametrize("text", [
    "import finetrace.lenses.rank", "import finetrace.lenses.rank as r", "from finetrace.lenses import rank",
    "from finetrace.lenses.rank import rank", "def f():\n    from finetrace.lenses import rank",
    "class A:\n    async def f(self):\n        if self:\n            import finetrace.lenses.rank",
    "try:\n    import nothing_here\nexcept ImportError:\n    from finetrace.lenses import rank",
    "match 1:\n    case 1:\n        from finetrace.lenses import rank",
    "if TYPE_CHECKING:\n    pass\nelse:\n    from finetrace.lenses import rank",
    "if not TYPE_CHECKING:\n    from finetrace.lenses import rank",
    "from finetrace.lazy import anything", "import finetrace.near.one", "import rank",
])
def test_ways_to_import(project: Project, text: str) -> None:
    project.write("src/finetrace/lazy/__init__.py", "def __getattr__(name):\n    from finetrace.lenses import rank\n")
    project.write("src/finetrace/near/__init__.py", "from .. import near\n")
    project.write("src/finetrace/near/one.py", "from . import two\nfrom .two import x\n")
    project.write("src/finetrace/near/two.py", "from ..lenses.rank import rank\nx = 1\n")
    found = project.of(text)
    assert {"finetrace", "finetrace.lenses", "finetrace.lenses.rank"} <= set(found.modules)
    project.write(RANK, "def rank(x):\n    return x - 2\n")
    assert project.of(text).measure != found.measure


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_type_checking_is_not_followed(project: Project, test: str) -> None:
    lines = f"import typing\nfrom typing import TYPE_CHECKING\nif {test}:\n    "
    found = project.of(f"{lines}from finetrace.lenses import rank\n    import torch\nx = 1\n")
    assert set(found.modules) == {"pipelines/new.py"} and not found.packages
    assert project.of(f"{lines}import finetrace.gone\nx = 1\n") == found != project.of(f"{lines}import json\nx = 2\n")


def test_bare_folders_packages_over_modules_and_circles(project: Project) -> None:
    project.write("src/finetrace/bare/inner.py", "from finetrace import twice\nx = 1\n")
    project.write("src/finetrace/twice.py", "x = 1\n")
    project.write("src/finetrace/twice/__init__.py", "def f():\n    import finetrace.bare.inner\n")
    text = "import finetrace.bare.inner\nfrom finetrace import bare\nfrom finetrace.bare import inner\n"
    found = project.of(text)
    assert set(found.modules) == {"finetrace", "finetrace.bare.inner", "finetrace.twice", "pipelines/new.py"}
    project.write("src/finetrace/twice.py", "x = 3\n")
    assert project.of(text) == found


@pytest.mark.parametrize("text, told", [  # "# !" marks the line that is told
    ("x = 1\nfrom finetrace.lenses.rank import *  # !", "finetrace.lenses.rank"), ("from rank import *", "rank"),
    ("import importlib\nimportlib.import_module('finetrace.lenses.rank')  # !", "import_module"),
    ("import importlib as i\n\ndef f():\n    i.import_module('x')  # !\n    i.import_module('y')", "import_module"),
    ("from importlib import import_module as load", "import_module"), ("x = 1\n__import__('json')  # !", "__import__"),
    ("exec('x = 1')", "exec"), ("x = [\n eval(t)  # !\n for t in '12']\neval('3')", "eval"),
    ("import builtins\nbuiltins.eval('1')  # !", "eval"), ("from builtins import exec as run", "exec"),
    ("from runpy import run_path", "runpy"), ("from importlib.util import module_from_spec", "module_from_spec"),
    ("import importlib.machinery as m\nm.SourceFileLoader('x', 'y')  # !", "SourceFileLoader"),
    ("import finetrace.lenses\nimport finetrace.gone  # !", "finetrace.gone"),
    ("import finetrace.lenses.rank.gone", "finetrace.lenses.rank.gone"),
    ("def f():\n    from finetrace.gone.far import x  # !", "finetrace.gone"),
    ("from finetrace.lenses import gone", "lenses.gone"), ("from finetrace.bare import gone", "finetrace.bare.gone"),
    ("from ..bad import x", "relative"), ("from pathlib import Path\nx = Path(__file__).parent  # !", "PACKAGE_DATA"),
    ("from importlib import resources", "PACKAGE_DATA"), ("import importlib.resources as r", "PACKAGE_DATA"),
    ("from importlib.resources import files", "PACKAGE_DATA"), ("import pkgutil", "PACKAGE_DATA"),
    ("import finetrace\nx = finetrace.__path__  # !", "PACKAGE_DATA"),
    ("PACKAGE_DATA = (x for x in 'ab')\ny = __file__  # !", "PACKAGE_DATA"),
    ("PACKAGE_DATA = 'tasks'\ny = __file__  # !", "PACKAGE_DATA"),
    ("x = 1\nif:  # !\n", "cannot be parsed"), ("x = 1\0", "cannot be parsed"),
])
@pytest.mark.parametrize("inside", [False, True], ids=["script", "module"])
def test_refused(project: Project, text: str, told: str, inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_NS", 0)
    project.write("src/finetrace/bare/inner.py", "x = 1\n")
    project.write("src/finetrace/bad.py", text)
    line = next((number for number, line in enumerate(text.split("\n"), 1) if "# !" in line), 1)
    place = f"{'src/finetrace/bad' if inside else 'pipelines/new'}.py:{line}: "
    for cached in (None, project.cache, project.cache):
        with pytest.raises(FinetraceError, match=f"^{re.escape(place)}.*{re.escape(told)}.*"):
            project.of("import finetrace.bad" if inside else text, cache=cached)


@pytest.mark.parametrize("text", [
    "from importlib import metadata\nmetadata.version('x')", "import importlib.util\nimportlib.util.find_spec('x')",
    "model.eval()\nexecutor.exec('1')", "for eval, value in {}.items():\n    print(eval)", "from math import *",
    "PACKAGE_DATA = ()\nx = __file__", "PACKAGE_DATA: tuple[str, ...] = ()\nx = __file__", "x = '__file__'  # exec()",
    "from finetrace import __doc__", "from finetrace.tracking import anything",
])
def test_allowed(project: Project, text: str) -> None:
    assert "pipelines/new.py" in project.of(text).modules


def test_bad_modules_elsewhere_and_any_path(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = project.all()
    project.write("src/finetrace/bad.py", "def f(:\n")
    project.write("src/finetrace/worse.py", "exec('1')\n")
    assert project.all() == before == project.all(cache=project.cache)
    monkeypatch.chdir(project.root)
    prints, found = Fingerprints(Path("."), VERSIONS.get), before["rank"]
    assert prints.of(Path("pipelines/rank.py")) == prints.of(project.root / "pipelines" / "rank.py") == found
    for script in ("pipelines/gone.py", SEEDS, "../trace.py"):
        with pytest.raises(FinetraceError, match="no such script"):
            prints.of(Path(script))


def test_package_data(project: Project) -> None:
    folder = "src/finetrace/lenses"
    project.write(RANK, "PACKAGE_DATA = ('tasks', 'one.txt')\nx = __file__\n")
    for name in ("tasks/glue.yaml", "tasks/deep/more.yaml", "tasks/__pycache__/x.pyc", "one.txt", "other.txt"):
        project.write(f"{folder}/{name}", "a: 1")
    before = project.all()
    names = ("one.txt", "tasks/deep/more.yaml", "tasks/glue.yaml")
    assert list(before["rank"].data) == [f"finetrace/lenses/{name}" for name in names]
    assert not before["trace"].data and before["both"].data == before["rank"].data
    project.write(f"{folder}/tasks/__pycache__/x.pyc", "2")
    project.write(f"{folder}/other.txt", "2")
    assert project.all() == before
    for name in ("tasks/glue.yaml", "tasks/new.yaml", "one.txt", "tasks/deep/more.yaml"):
        project.write(f"{folder}/{name}", "a: 2")
        before, earlier = project.all(), before
        assert changed(earlier, before) == ({"rank", "both"}, set())
    (project.root / folder / "tasks/new.yaml").rename(project.root / folder / "tasks/newer.yaml")
    assert changed(before, project.all()) == ({"rank", "both"}, set())
    project.write("src/finetrace/figures/colours.py", "PACKAGE_DATA = ['map.csv']\nBLUE = __file__\n")
    project.write("src/finetrace/figures/map.csv", "1")
    before = project.all()
    project.write("src/finetrace/figures/map.csv", "2")
    assert changed(before, project.all()) == (set(), {"trace", "both"})
    (project.root.parent / "secret").write_text("x")
    for entry in ("gone", "../../secret"):
        with pytest.raises(FinetraceError, match=re.escape(f"pipelines/new.py: PACKAGE_DATA: there is no '{entry}'")):
            project.of(f"PACKAGE_DATA = ({entry!r},)")


def test_versions(project: Project) -> None:
    project.write("src/finetrace/figures/plot.py", "import matplotlib\nimport numpy\nimport scipy\n")
    for name, text in {"numpy": "import numpy.linalg", "scipy": "def f():\n    from scipy import stats",
                       "sk": "import sklearn", "torch": "import torch.nn as nn", "peft": "from peft import LoraConfig",
                       "none": "import json, yaml, odd", "plot": "import matplotlib.pyplot",
                       "figures": "from finetrace.figures import plot", "full": "import scipy, a_figures"}.items():
        project.write(f"pipelines/a_{name}.py", text)
    before = project.all()
    assert list(before["a_sk"].packages) == ["numpy", "scikit-learn", "scipy"]
    assert {"accelerate", "numpy", "safetensors", "torch", "transformers"} < set(before["a_peft"].packages)
    assert not before["a_none"].packages and not before["rank"].packages
    numpy = project.all(versions={**VERSIONS, "numpy": "2.0"}.get)
    assert changed(before, numpy) == ({"a_numpy", "a_scipy", "a_sk", "a_peft", "a_full"}, {"a_plot", "a_figures"})
    assert numpy["a_scipy"].packages == {"numpy": "2.0", "scipy": "1.0"}
    plot = project.all(versions={**VERSIONS, "matplotlib": "2.0"}.get)
    assert changed(before, plot) == (set(), {"a_plot", "a_figures", "a_full"})
    assert project.all(versions={**VERSIONS, "torch": "1.0+cu128"}.get) == before
    gone = project.all(versions={**VERSIONS, "torch": None}.get)
    assert changed(before, gone)[0] == {"a_torch", "a_peft"} and gone["a_torch"].packages["torch"] == "absent"
    here = Fingerprints(project.root).of(Path("pipelines/a_torch.py")).packages["torch"]
    assert here == str(fingerprint.installed("torch")).partition("+")[0]


def test_packages_that_are_not_installed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise fingerprint.metadata.PackageNotFoundError(name)

    for function in ("version", "requires"):
        monkeypatch.setattr(fingerprint.metadata, function, nothing)
    monkeypatch.setattr(fingerprint, "_search", lambda: {})
    found = project.of("import sklearn, numpy, PIL", versions=fingerprint.installed)
    assert found.packages == {"numpy": "absent", "scikit-learn": "absent"}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are parsed, as they are parsed, with files cached however new they are."""
    names: list[str] = []
    read = fingerprint._read
    monkeypatch.setattr(fingerprint, "_read", lambda name, *rest: (names.append(name), read(name, *rest))[1])
    monkeypatch.setattr(fingerprint, "SETTLED_NS", 0)
    return names


def test_cache_gives_the_same(project: Project, reads: list[str]) -> None:
    project.write(RANK, "PACKAGE_DATA = ('x',)\nfrom finetrace.lenses import trace\nimport numpy, yaml\n")
    project.write("src/finetrace/lenses/x", "1")
    plain = project.all(versions=fingerprint.installed)
    assert len(reads) == len(set(reads)) > 8
    assert project.all(versions=fingerprint.installed, cache=project.cache) == plain
    reads.clear()
    assert project.all(versions=fingerprint.installed, cache=project.cache) == plain and not reads
    assert os.listdir(project.cache.parent) == ["cache.json"]
    project.write("src/finetrace/lenses/x", "2")
    assert changed(plain, project.all(versions=fingerprint.installed, cache=project.cache)) == ({"rank", "both"}, set())


def test_cache_after_a_change(project: Project, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before, path = project.all(cache=project.cache), project.root / SEEDS
    status, text = path.stat(), path.read_text()
    reads.clear()
    path.write_text(text.replace("= 8", "= 9"))  # of the same size
    assert changed(before, project.all(cache=project.cache)) == ({"trace", "both"}, set())
    assert reads == ["finetrace.seeds"]
    path.write_text(text)
    assert project.all(cache=project.cache) == before
    path.write_text(text.replace("= 8", "= 7"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # and as old
    assert changed(before, project.all(cache=project.cache)) == ({"trace", "both"}, set())
    monkeypatch.setattr(fingerprint, "SETTLED_NS", 10**12)
    project.cache.unlink()
    for _ in range(2):  # files that have just changed are not cached
        reads.clear()
        project.all(cache=project.cache)
        assert len(reads) > 8
    path.unlink()
    with pytest.raises(FinetraceError, match=r"finetrace\.seeds"):
        project.all(cache=project.cache)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"3", b'"x"', b"{}", b'{"header": 1}', b"\xff\xfe", None])
def test_broken_cache(project: Project, reads: list[str], text: bytes | None) -> None:
    right, whole = project.all(cache=project.cache), project.cache.read_text()
    wrong = json.dumps({**json.loads(whole), "files": {"finetrace": 3}}).encode()
    project.cache.write_bytes(wrong if text is None else text)
    assert project.all(cache=project.cache) == right and project.cache.read_text() == whole
    project.write("file", "")
    assert project.all(cache=project.root / "file" / "cache.json") == right  # cannot be written


def test_cache_of_others(project: Project, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = project.all(cache=project.cache)
    other = Project(project.root.parent / "other")
    reads.clear()
    assert other.all(cache=project.cache) == right and reads
    for place, name, value in ((fingerprint, "__file__", __file__), (sys, "version", "4.0")):
        monkeypatch.setattr(place, name, value)
        reads.clear()
        assert other.all(cache=project.cache) == right and reads


def test_the_form_of_a_meaning(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form is pinned: another changes every fingerprint, and so needs another FORMAT."""
    tree = ast.parse("def f(x: int = 1, *y) -> None:\n    'doc'\nif a.b:\n    c[0] = -1.5\n")
    assert fingerprint.FORMAT == 1 and fingerprint._Writer()[ast.Module](tree) == (
        "FunctionDef(name='f',args=arguments(args=[arg(arg='x',annotation=Name(int))],vararg=arg(arg='y'),"
        "defaults=[Constant(1)]),body=[Pass()],returns=Constant(None)),"
        "If(Attribute(Name(a),b),[Assign(targets=[Subscript(value=Name(c),slice=Constant(0))],"
        "value=UnaryOp(op=USub(),operand=Constant(1.5)))],[])")
    before = project.all()
    monkeypatch.setattr(fingerprint, "FORMAT", 2)
    assert changed(before, project.all()) == ({*before}, {*before})


def test_light_to_import() -> None:
    code = "import sys, finetrace.pipeline.fingerprint; sys.exit(len({'numpy', 'torch', 'yaml'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True)


def test_what_leads_persons_to_modules_means_nothing(tmp_path: Path) -> None:
    """`finetrace.TraceCallback` is no part of any stage, and a stage that imports it in this way is refused."""
    project = Project(tmp_path)
    before = project.all()
    project.write("src/finetrace/__init__.py", "_PUBLIC = {'rank': 'finetrace.lenses.rank'}\n\n"
                  "def __getattr__(name):\n    import importlib\n    return importlib.import_module(_PUBLIC[name])\n")
    assert project.all() == before
    with pytest.raises(FinetraceError, match=r"imports finetrace\.Trace, which does not exist"):
        project.of("from finetrace import Trace\n")

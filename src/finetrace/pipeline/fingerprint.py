"""What the code means that decides a pipeline script's result, as two hashes.

A result must be made again when, and only when, the meaning of what decides it changes: of the project's modules that a
script reaches, without what changes no number (comments, layout, `NOT_DECIDING`); of files that they read
(`PACKAGE_DATA`); and the versions of deciding packages. What the syntax tree cannot show is refused.
"""

import ast
import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from finetrace.errors import FinetraceError
from finetrace.store.files import write_text
from finetrace.store.verified import SETTLED_NS

FORMAT = 1  # to be raised when the rules of this module change: every fingerprint differs then
PACKAGE, SCRIPTS = "finetrace", "pipelines"
LEADING = re.compile("_PUBLIC|__getattr__|TYPE_CHECKING")  # in the package itself: they lead a person to modules
FIGURES = "figures"  # the last word of modules that draw, and of packages of such
NOT_DECIDING = {
    "finetrace.tracking": "MLflow is a projection of finished outputs",
    "finetrace.api": "what a notebook uses; no stage does",
    "finetrace.cli": "the command line starts stages and decides nothing in them",
    **{f"finetrace.pipeline.{name}": "decides when a stage runs and whether a result counts, not what it gives"
       for name in ("accept", "accepted", "executor", "fingerprint", "nursery", "repro", "together", "unchanged")},
    "finetrace.store.verified": "finds damage, and changes nothing that is read",
    **{f"finetrace.{name}": "what a person sees" for name in ("pipeline.names", "progress", "training.watch")},
}
"""Module, with all below it -> why it decides no number though scripts import it. Such modules are not followed."""
DECIDING = ("accelerate", "datasets", "hmmlearn", "matplotlib", "numpy", "optuna", "pandas", "peft", "pyarrow",
            "safetensors", "scikit-learn", "scipy", "tokenizers", "torch", "transformers")
DRAWING = ("matplotlib",)  # decides how figures look, and no number
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml"}  # known without a search of all that is installed (0.6 s)
LOADING = set("__import__ builtins.eval builtins.exec import_module module_from_spec runpy SourceFileLoader".split())
READING = {"__file__", "__path__", "importlib.resources", "pkgutil"}  # ways to files beside a module
SUSPECT = re.compile(rf"\b({'|'.join(word.rpartition('.')[2] for word in (*LOADING, *READING))})\b".encode())
Versions = Callable[[str], str | None]
_search = cache(metadata.packages_distributions)


@dataclass(frozen=True)
class Fingerprint:
    """What decides a script's result.

    measure: hex SHA-256 of all that decides numbers;  draw: hex SHA-256 of what the figures alone reach, no measure;
    modules: dotted name, or path of a script -> first 16 digits of its meaning's hash;  data: path from src -> hash;
    packages: distribution -> version, "absent" where none is installed. These three are sorted and cover both hashes.
    """

    measure: str
    draw: str
    modules: dict[str, str]
    data: dict[str, str]
    packages: dict[str, str]


def installed(distribution: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)
    return None


class Fingerprints:
    """The fingerprints of a project's scripts, with files as they are when this object first looks at them.

    root: project folder with src/finetrace and pipelines;  versions: distribution -> version, None where it is absent;
    cache: JSON file that saves the next process parsing what has not changed; where it is broken it is written anew.
    """

    def __init__(self, root: Path, versions: Versions = installed, cache: Path | None = None) -> None:
        self._root = Path(os.path.abspath(root))
        self._cache = _Cache(cache, self._root)
        self._packages = _Packages(versions, self._cache.packages)
        self._paths: dict[str, str] = {}  # module or script -> its file
        self._places: dict[str, str | None] = {}  # name -> module or script, "" for a bare folder, None if NOT_DECIDING
        self._modules: dict[str, _Module] = {}
        self._list(self._root / "src", PACKAGE)
        self._list(self._root / SCRIPTS, "")
        if cache:  # read all that a script may reach, so that the cache is written once
            for name in self._paths:
                with contextlib.suppress(FinetraceError):  # raised again when a script reaches it
                    self._module(name)
            self._packages.behind(self._modules.values())
            self._cache.write()

    def of(self, script: Path) -> Fingerprint:
        """The fingerprint of a script in the folder of pipelines; a relative path starts at the project folder.

        Raises FinetraceError, naming file, line and remedy, when there is no such script, or a module that it reaches
        cannot be parsed, imports what does not exist or the syntax tree does not show, or does not declare its data.
        """
        name = Path(os.path.relpath(self._root / script, self._root)).as_posix()
        if name not in self._paths or not name.startswith(f"{SCRIPTS}/"):
            raise FinetraceError(f"{self._root / script}: no such script; name one of {self._root / SCRIPTS}/*.py")
        all_, measured = self._reached(name), self._reached(name, figures=False)
        packages, measuring = self._packages.behind(all_.values()), self._packages.behind(measured.values(), DRAWING)
        drawn = {name: module for name, module in all_.items() if name not in measured}
        return Fingerprint(
            measure=_digest(measured, measuring),
            draw=_digest(drawn, dict(packages.items() - measuring.items())),
            modules={name: module.meaning[:16] for name, module in sorted(all_.items())},
            data=dict(sorted(entry for module in all_.values() for entry in module.data.items())), packages=packages)

    def _list(self, base: Path, within: str) -> None:
        """Note what can be imported from a folder of the search path."""
        for folder, _, files in os.walk(base / within):
            parts = Path(folder).relative_to(base).parts
            for file in (f for f in files if f.endswith(".py")):
                names = parts if file == "__init__.py" else (*parts, file.removesuffix(".py"))
                dotted = ".".join(names)
                name = dotted if within else Path(SCRIPTS, *parts, file).as_posix()
                if f"{dotted}.".startswith(tuple(f"{prefix}." for prefix in NOT_DECIDING)):
                    self._places[dotted] = None
                elif file == "__init__.py" or dotted not in self._paths:  # Python prefers the folder x to the file x.py
                    self._paths[name], self._places[dotted] = os.path.join(folder, file), name
                for around in accumulate(names[:-1], "{}.{}".format):
                    self._places.setdefault(around, "")

    def _reached(self, script: str, *, figures: bool = True) -> "dict[str, _Module]":
        """The script and all that running it may import;  figures: also the figures and what is behind them."""
        reached, waiting = {script: self._module(script)}, [script]
        while waiting:
            for name in reached[waiting.pop()].imports - reached.keys():
                if figures or FIGURES not in name.split("."):
                    reached[name] = self._module(name)
                    waiting.append(name)
        return reached

    def _module(self, name: str) -> "_Module":
        if name not in self._modules:
            source = self._cache.source(name, self._paths[name])
            if source.problem:
                raise self._error(name, *source.problem)
            project_modules, foreign = set[str](), set[str]()
            for line, base, names in source.imports:
                top = base.partition(".")[0]
                if top == PACKAGE or top in self._places:
                    project_modules |= self._targets(name, line, base, names)
                elif top not in sys.stdlib_module_names:
                    foreign.add(top)
            self._modules[name] = _Module(source.meaning, project_modules, foreign, self._data(name, source.data or []))
        return self._modules[name]

    def _targets(self, name: str, line: int, base: str, names: list[str]) -> set[str]:
        """What an import executes: the module, the packages around it, and those of its names that are modules."""
        targets = [*accumulate(base.split("."), "{}.{}".format)]
        missing = [dotted for dotted in targets if dotted not in self._places]
        for bound in () if missing else names:
            if bound == "*":
                raise self._error(name, line, f"imports * from {base}, which hides what it uses; name what it imports")
            if (inner := f"{base}.{bound}") in self._places:
                targets.append(inner)
            elif (place := self._places[base]) is not None and not bound.startswith("__"):
                exports = self._cache.source(place, self._paths[place]).names if place else []
                missing += [inner] if exports is not None and {bound, "__getattr__"}.isdisjoint(exports) else []
        if missing:
            raise self._error(name, line, f"imports {missing[0]}, which does not exist; correct or remove the import")
        return {place for dotted in targets if (place := self._places[dotted])}

    def _data(self, name: str, entries: list[str]) -> dict[str, str]:
        """Path from src -> hash of the files that a module declares to read."""
        hashes, folder = {}, os.path.dirname(self._paths[name])
        for entry in entries:
            path = Path(os.path.normpath(os.path.join(folder, entry)))
            if not path.exists() or not path.is_relative_to(self._root):
                raise self._error(name, 0, f"PACKAGE_DATA: there is no {entry!r} beside it; correct the entry")
            for file in path.rglob("*") if path.is_dir() else [path]:
                if file.is_file() and "__pycache__" not in file.parts:
                    hashes[Path(os.path.relpath(file, self._root / "src")).as_posix()] = _sha256(file.read_bytes())
        return hashes

    def _error(self, name: str, line: int, text: str) -> FinetraceError:
        return FinetraceError(f"{os.path.relpath(self._paths[name], self._root)}:{f'{line}:' if line else ''} {text}")


class _Module(NamedTuple):
    """What a file contributes. imports: modules of the project;  foreign: top names of others;  data: path -> hash."""

    meaning: str
    imports: set[str]
    foreign: set[str]
    data: dict[str, str]


class _Source(NamedTuple):
    """The parsed content of one file."""
    meaning: str
    imports: list[tuple[int, str, list[str]]]  # line, module, names (none for a plain import)
    data: list[str] | None
    problem: tuple[int, str] | None  # line, text
    names: list[str] | None  # that the __init__.py of a package binds; None for other files


class _Writer(dict[type, Callable[[Any], str]]):
    """Class of a node -> how its meaning is written, in a form that `FORMAT` numbers; imports are noted on the way.

    That of ast.dump differs between versions of Python; here empty fields do not count, as a later one may add some.
    """

    def __init__(self) -> None:
        super().__init__({str: ascii, int: repr, bool: repr, type(None): repr})
        self.imports: list[Any] = []
        self |= {ast.Module: lambda node: self._block(node.body), ast.If: self._if,
                 ast.Attribute: lambda node: f"Attribute({self[node.value.__class__](node.value)},{node.attr})",
                 ast.Name: lambda node: f"Name({node.id})", ast.Constant: lambda node: f"Constant({node.value!a})"}

    def __missing__(self, kind: type[ast.AST]) -> Callable[[Any], str]:
        name, noted = kind.__name__, kind in (ast.Import, ast.ImportFrom)
        silent = ("ctx", "kind", "type_comment", "type_ignores")  # told by the rest, or telling nothing
        fields = [(f, f in ("body", "orelse", "finalbody")) for f in kind._fields if f not in silent]

        def write(node: Any) -> str:
            if noted:
                self.imports.append(node)
            parts = []
            for field, block in fields:
                value = getattr(node, field, None)
                if value.__class__ is list:
                    if value:
                        text = self._block(value) if block else ",".join([self[item.__class__](item) for item in value])
                        parts.append(f"{field}=[{text}]")
                elif value is not None:
                    parts.append(f"{field}={self[value.__class__](value)}")
            return f"{name}({','.join(parts)})"

        self[kind] = write
        return write

    def _block(self, statements: list[Any]) -> str:
        """Statements without docstrings, wherever they stand; a block that had nothing else does nothing."""
        return ",".join([self[node.__class__](node) for node in statements if not (
            node.__class__ is ast.Expr and node.value.__class__ is ast.Constant and node.value.value.__class__ is str
        )]) or "Pass()"

    def _if(self, node: ast.If) -> str:
        """A condition. What stands there for the type checker does not run, so it means nothing."""
        test, body, orelse = node.test, node.body, node.orelse
        name = test.operand if isinstance(test, ast.UnaryOp) else test
        if "TYPE_CHECKING" in (getattr(name, "id", None), getattr(name, "attr", None)):
            body, orelse = ([], orelse) if name is test else (body, [])
        return f"If({self[test.__class__](test)},[{self._block(body)}],[{self._block(orelse) if orelse else ''}])"


def _read(name: str, path: str, writer: _Writer) -> _Source:
    """The parsed content of a module's or script's file, or the problem that prevents it."""
    content, is_package, problem = Path(path).read_bytes(), path.endswith("__init__.py"), None
    try:
        tree = ast.parse(content)
        if name == PACKAGE:  # a stage that imports such a name is refused: it is not bound here
            tree.body = [node for node in tree.body if not LEADING.search(ast.dump(node))]
        writer.imports.clear()
        meaning = _sha256(f"{FORMAT} {writer[ast.Module](tree)}")
    except (SyntaxError, ValueError, RecursionError) as error:
        line, text = getattr(error, "lineno", None) or 1, getattr(error, "msg", error)
        return _Source("", [], None, (line, f"cannot be parsed ({text}); correct it"), None)
    data, imports = _declared(tree), list[tuple[int, str, list[str]]]()
    around = [] if "/" in name else name.split(".") if is_package else name.split(".")[:-1]
    for node in writer.imports:
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            imports += [(node.lineno, name, []) for name in names]
        elif node.level > len(around):
            problem = node.lineno, "its relative import leads out of the package; name the module in full"
        else:
            parts = around[:len(around) + 1 - node.level] if node.level else []
            imports.append((node.lineno, ".".join([*parts, *filter(None, [node.module])]), names))
    for line, used in sorted(_suspects(tree), reverse=True) if SUSPECT.search(content) else ():
        if used not in READING:
            problem = line, f"uses {used}; what that runs cannot be followed: write an import statement or plain code"
        elif data is None:
            problem = line, ("looks for files beside the module; add PACKAGE_DATA = ('FOLDER',), a plain tuple of the "
                             "files and folders there that it reads, or PACKAGE_DATA = () where it reads none")
    bound = {text.partition(".")[0] for node in ast.walk(tree) for field in ("id", "name", "asname")
             if isinstance(text := getattr(node, field, None), str)} if is_package else ()
    return _Source(meaning, imports, data, problem, sorted(bound) if is_package else None)


def _suspects(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of what runs code that no syntax tree shows, or looks for files beside the module."""
    for node in ast.walk(tree):
        used = {getattr(node, "id", "")}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):  # `model.eval()` is something else
            used = {f"builtins.{node.func.id}"}
        elif isinstance(node, ast.Attribute):
            used = {node.attr, f"{getattr(node.value, 'id', '')}.{node.attr}"}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", "") or ""
            used = {module, *(text for alias in node.names for text in (alias.name, f"{module}.{alias.name}"))}
        for name in used & (LOADING | READING):
            yield node.lineno, name.removeprefix("builtins.")  # type: ignore[attr-defined]


def _declared(tree: ast.Module) -> list[str] | None:
    """A module's PACKAGE_DATA, None where it has none that can be read without running it."""
    for node in tree.body:
        if "PACKAGE_DATA" in [getattr(child, "id", "") for child in ast.iter_child_nodes(node)]:
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                value = ast.literal_eval(node.value)  # type: ignore[attr-defined]
                if isinstance(value, tuple | list) and all(isinstance(entry, str) for entry in value):
                    return list(value)
    return None


class _Packages:
    """Versions of the packages that decide numbers. known: what is known of this environment, to which it adds."""

    def __init__(self, versions: Versions, known: dict[str, list[str]]) -> None:
        self._known = known if versions is installed else {}
        self._find = {"provides": self._provides, "requires": self._requires,
                      "version": lambda name: [(versions(name) or "absent").partition("+")[0]]}

    def behind(self, modules: Iterable[_Module], without: Collection[str] = ()) -> dict[str, str]:
        """Distribution -> version of the deciding packages that modules import, directly or through other packages."""
        tops = {top for module in modules for top in module.foreign}
        distributions, pending = set[str](), [name for top in tops for name in self._fact("provides", top)]
        while pending:
            if (name := pending.pop()) not in distributions and name not in without:
                distributions.add(name)
                pending += self._fact("requires", name)
        return {name: self._fact("version", name)[0] for name in DECIDING if name in distributions}

    def _fact(self, kind: str, name: str) -> list[str]:
        if (key := f"{kind} {name}") not in self._known:
            self._known[key] = self._find[kind](name)
        return self._known[key]

    def _provides(self, top: str) -> list[str]:
        name = DISTRIBUTIONS.get(top, top)
        is_known = _canonical(name) in DECIDING or installed(name)
        return [_canonical(distribution) for distribution in ([name] if is_known else _search().get(top, [name]))]

    def _requires(self, distribution: str) -> list[str]:
        """What a distribution needs without extras, on this machine."""
        from packaging.requirements import Requirement  # 0.05 s: not needed where the cache knows

        with contextlib.suppress(metadata.PackageNotFoundError):
            lines = [line for line in metadata.requires(distribution) or [] if "extra ==" not in line or " or " in line]
            return sorted({_canonical(r.name) for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()})
        return []


class _Cache:
    """What was read of files, also for the next process if rules, Python, project and installed packages are equal."""

    def __init__(self, path: Path | None, root: Path) -> None:
        self._path, self._before, self._writer = path, "", _Writer()
        self._old, self._new = dict[str, tuple[list[int], _Source]](), dict[str, tuple[list[int], _Source]]()
        self.packages: dict[str, list[str]] = {}
        if path:
            infos = {name for folder in sys.path if os.path.isdir(folder) for name in os.listdir(folder)
                     if name.endswith((".dist-info", ".egg-info"))}  # these names contain versions
            self._header = _sha256(json.dumps([Path(__file__).read_text(), str(root), sys.version, sorted(infos)]))
            with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
                content = json.loads(text := path.read_text("utf-8"))
                if content["header"] == self._header:
                    self._old = {name: (stamp, _Source(*entry)) for name, (stamp, entry) in content["files"].items()}
                    self.packages, self._before = dict(content["packages"]), text

    def source(self, name: str, path: str) -> _Source:
        """The content of a file: read anew unless its size and times are the same."""
        if name not in self._new:
            status, now_ns = os.stat(path), time.time_ns()
            stamp, earlier = [status.st_size, status.st_mtime_ns, status.st_ctime_ns], self._old.get(name)
            self._new[name] = earlier if earlier and earlier[0] == stamp else (stamp, _read(name, path, self._writer))
            if now_ns - max(stamp[1:]) < SETTLED_NS:
                self._new[name] = [], self._new[name][1]
        return self._new[name][1]

    def write(self) -> None:
        """Write what changed. Where that is impossible the next process is slower, and nothing else."""
        text = json.dumps({"header": self._header, "files": self._new, "packages": self.packages}, sort_keys=True)
        if self._path and text != self._before:
            with contextlib.suppress(OSError):
                write_text(self._path, text)


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _digest(modules: Mapping[str, _Module], versions: Mapping[str, str]) -> str:
    content = {name: [module.meaning, module.data] for name, module in modules.items()}
    return _sha256(json.dumps([FORMAT, content, versions], sort_keys=True))


def _sha256(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()

"""DVC's own view of a project: its stages, what each builds on, which are out of date, and how finished ones are
recorded."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.pipeline.hashes import Hashes
from finetrace.pipeline.items import (
    NotPlain,
    Resolved,
    folders_around,
    ignored_by_git,
    other_files,
    readers,
    written_out,
)
from finetrace.pipeline.lockfile import Irregular, LockFile, has_plain_name
from finetrace.store.dvc_cache import damaged_objects
from finetrace.store.manifest import NAME, read_manifest

log = logging.getLogger("finetrace")
PATIENCE = 5.0  # seconds between two tries to get DVC's lock, beyond those that DVC itself waits
FIRST = ("plan", "settings")
"""Stages that the driver does itself, before it looks at the others."""


class Graph:
    """The stages of dvc.yaml by name, e.g. geometry@micro-a_micro-sentiment_ft_s1.

    A project in the form of ours is read here (`pipeline.items`, `pipeline.lockfile`), a millisecond an item, and DVC
    is given single stages to restore and to record. Any other DVC reads as a whole, ten times slower.
    """

    def __init__(self, root: Path):
        from dvc.exceptions import DvcException, NotDvcRepoError
        from dvc.repo import Repo
        from dvc.scm import NoSCM, SCMError

        logging.getLogger("dvc").setLevel(logging.ERROR)
        self._root = root
        self._lock: LockFile | None = None
        self._loaded: dict[str, Any] = {}
        """Stages as DVC has them."""
        self.stages: dict[str, Resolved] = {}
        self.after: dict[str, set[str]] = {}
        """Stage -> the stages whose outputs it reads."""
        try:
            self.repo = Repo(str(root))
            self._is_in_git = not isinstance(self.repo.scm, NoSCM)
            try:
                self._read_here()
            except (NotPlain, Irregular):
                self._read_by_dvc()
        except NotDvcRepoError as error:
            raise FinetraceError(f"{root}: has no .dvc folder; git checkout .dvc, or dvc init") from error
        except SCMError as error:
            raise FinetraceError(
                f"{root}: is not a git repository, which DVC asks for; git init && git add . && git commit -m Start, "
                f"or let DVC do without: printf '[core]\\n    no_scm = true\\n' > .dvc/config.local"
            ) from error
        except DvcException as error:
            raise FinetraceError(f"dvc.yaml: {_story(error)}") from error
        self._hashes = Hashes(root / ".finetrace" / "hashes.json", root, self._hash_of_folder)
        if link := first_link(root, self.written()):
            self.close()
            raise FinetraceError(
                f"{link}: is a link to {link.resolve()}, and DVC records nothing through links; make it a folder: "
                "move the whole project to the other disk, or mount that here (mount --bind)"
            )

    def _read_here(self) -> None:
        """Raises NotPlain or Irregular where DVC has to read the project, or to refuse it."""
        from dvc.dvcfile import load_file

        self._dvcfile = load_file(self.repo, str(self._root / "dvc.yaml"))
        contents = self._dvcfile.contents
        if not contents.keys() <= {"vars", "stages", "metrics", "plots"} or contents.get("vars", []) not in (
                [], ["plan.yaml"]):
            raise NotPlain
        self.stages = written_out(contents.get("stages", {}), self._root / "plan.yaml")
        ignored = ignored_by_git(self._root) if self._is_in_git else ()
        if not all(map(has_plain_name, self.stages)) or any(other_files(self._root, self.stages, ignored)):
            raise NotPlain
        self.after = readers(self.stages)
        self._lock = LockFile(self._root / "dvc.lock")

    def _read_by_dvc(self) -> None:
        graph = self.repo.index.graph
        self._loaded = {_name(stage, self._root): stage for stage in self.repo.index.stages}
        self.stages = {name: Resolved(str(stage.cmd), tuple(dep.def_path for dep in stage.deps),
                                  tuple(out.def_path for out in stage.outs), {})
                       for name, stage in self._loaded.items()}
        self.after = {
            _name(stage, self._root): {_name(other, self._root) for other in graph.successors(stage)}
            for stage in graph
        }

    def _stage(self, name: str) -> Any:
        """A stage as DVC has it, with what dvc.lock says of it."""
        from dvc.stage.loader import StageLoader

        if name not in self._loaded:
            assert self._lock is not None
            self._loaded[name] = StageLoader.load_stage(
                self._dvcfile, name, dict(self.stages[name].definition), self._lock.content(name))
        return self._loaded[name]

    def _hash_of_folder(self, path: str) -> str:
        from dvc_data.hashfile.build import build

        _, _, tree = build(self.repo.cache.local, path, self.repo.fs, "md5", ignore=self.repo.dvcignore, dry_run=True)
        return str(tree.hash_info.value)

    def written(self) -> set[str]:
        """Everything that stages write."""
        return {path for stage in self.stages.values() for path in stage.writes}

    def has_remote(self) -> bool:
        """Whether DVC knows a place from which others can take results."""
        return bool(self.repo.config.get("remote"))

    def close(self) -> None:
        self._hashes.write(self.paths())
        self.repo.close()

    def paths(self) -> set[str]:
        """Everything that stages read and write."""
        return {path for stage in self.stages.values() for path in (*stage.reads, *stage.writes)}

    def command(self, name: str) -> str:
        """The command of a stage, as dvc.yaml says it."""
        return self.stages[name].command

    def folders(self, name: str) -> list[Path]:
        """What a stage writes."""
        return [self._root / path for path in self.stages[name].writes]

    def changes(self, name: str) -> list[str]:
        """What makes a stage out of date: paths of changed inputs and outputs, or its command; empty when it is
        current."""
        if self._lock is None:
            return self._changes_by_dvc(name)
        try:
            entry = self._lock.entry(name)
        except Irregular:
            return self._changes_by_dvc(name)
        stage = self.stages[name]
        if entry is None:
            return [*stage.reads, *stage.writes]
        changed = [] if entry.command == stage.command else ["its command"]
        return changed + [path for path in (*stage.reads, *stage.writes)
                          if (value := self._hashes.of(path)) is None or value != entry.hashes.get(path)]

    def _changes_by_dvc(self, name: str) -> list[str]:
        stage = self._stage(name)
        changed = ["its command"] if stage.changed_stage() else []
        if stage.is_callback or stage.always_changed:
            changed.append("always runs")
        return changed + [str(path) for path in (*stage.deps, *stage.outs) if path.workspace_status()]

    def inputs(self, name: str) -> dict[str, Any]:
        """Hashes of what a stage reads, now. Raises FinetraceError when something is absent."""
        hashes = {}
        for path in self.stages[name].reads:
            hashes[path] = self._hashes.of(path)
            if hashes[path] is None:
                raise FinetraceError(f"{name}: {path} does not exist; put it there, or correct params.yaml")
        return hashes

    def restore(self, name: str) -> bool:
        """Bring back the outputs of an earlier run with the same inputs from DVC's cache; whether there was one, and
        what came back is whole."""
        from dvc.exceptions import DvcException
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stage(name)
        try:
            with self._locked():
                self.repo.stage_cache.restore(stage)
        except RunCacheNotFoundError:
            return False
        except DvcException as error:  # an emptied cache: the stage runs
            log.debug("%s: not restored: %s", name, error)
            return False
        except Exception as error:  # a damaged one, on which DVC stumbles in many ways
            log.debug("%s: not restored: %r", name, error)
            self._drop_damaged()
            return False
        if not all(out.exists for out in stage.outs):
            return False
        whole = all(_is_whole(Path(out.fs_path)) for out in stage.outs)
        if not whole:
            self._drop_damaged()
        return whole

    def _drop_damaged(self) -> None:
        """Take objects out of DVC's cache whose content is not what their names say. DVC would keep them, and put them
        in the place of what a stage has just written."""
        for file in damaged_objects(Path(self.repo.root_dir) / ".dvc"):
            log.warning("%s: is damaged, in DVC's cache; it is taken out, and made again when a stage writes it", file)
            file.unlink()

    def absent(self, name: str) -> list[str]:
        """Outputs that a stage should have written and did not."""
        return [path for path in self.stages[name].writes if not (self._root / path).exists()]

    def record(self, names: Iterable[str]) -> None:
        """Put outputs of finished stages into DVC's cache, and their hashes into dvc.lock: what `dvc commit` does,
        in one go. Raises OSError when the cache does not take them, and FinetraceError when the file system has no such
        links as the cache asks for; nothing is recorded then."""
        from dvc.exceptions import CacheLinkError

        stages = [self._stage(name) for name in names]
        if not stages:
            return
        with self._locked():
            try:
                with _failures_raised():
                    for stage in stages:
                        stage.save()
                        stage.commit()
            except CacheLinkError as error:
                kinds = self.repo.config["cache"].get("type")
                kinds = ",".join([kinds] if isinstance(kinds, str) else kinds or [])
                raise FinetraceError(f"DVC's cache.type {kinds}: the file system has no such links; dvc config "
                                     f"cache.type {kinds},copy, and run the same command again") from error
            self._write_lock(stages)

    def _write_lock(self, stages: Sequence[Any]) -> None:
        from dvc.stage.serialize import to_single_stage_lockfile
        from dvc.utils.serialize import dumps_yaml

        for path, value in ((out.def_path, out.hash_info.value) for stage in stages for out in stage.outs):
            self._hashes.learn(path, value)
        if self._lock is not None:
            self._lock.put(dumps_yaml({"stages": {stage.name: to_single_stage_lockfile(stage) for stage in stages}}))
            return
        for file in {id(stage.dvcfile): stage.dvcfile for stage in stages}.values():
            file.dump_stages([stage for stage in stages if stage.dvcfile is file], update_pipeline=False)

    def tidy_lock(self) -> None:
        """Bring dvc.lock into the order of dvc.yaml, without stages that the study no longer has: equal results,
        equal lock."""
        path = self._root / "dvc.lock"
        if not path.is_file():
            return
        if self._lock is not None:
            with self._locked():
                self._lock.order(self.stages)
            return
        from dvc.utils.serialize import dump_yaml, load_yaml

        content = load_yaml(str(path))
        entries = content.get("stages") or {}
        order = [name for name in self.stages if name in entries]
        if list(entries) != order:
            with self._locked():
                dump_yaml(str(path), content | {"stages": {name: entries[name] for name in order}})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold DVC's lock; waits while another DVC command of the user holds it."""
        from dvc.lock import LockError

        while True:
            try:
                self.repo.lock.lock()
                break
            except LockError:
                log.warning("another DVC command is at work here; waiting for it")
                time.sleep(PATIENCE)
        try:
            yield
        finally:
            self.repo.lock.unlock()


def builds_on(after: Mapping[str, set[str]], stale: set[str]) -> set[str]:
    """Stale items and all that build on them. after: item -> the items whose outputs it reads."""
    due = set(stale)
    while more := {name for name, others in after.items() if name not in due and others & due and name not in FIRST}:
        due |= more
    return due


def _is_whole(path: Path) -> bool:
    """Whether a finished folder holds what its manifest lists; of other files nothing is known. (DVC trusts its cache
    as long as nobody may write it.)"""
    try:
        for folder in (file.parent for file in (path / NAME, *path.glob(f"*/{NAME}")) if file.is_file()):
            read_manifest(folder, verify="content")
    except FinetraceError:
        return False
    return True


class _Kept(logging.Handler):
    """Keeps the errors that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])


@contextmanager
def _failures_raised() -> Iterator[None]:
    """Raise what DVC's cache could not take: DVC logs it with a trace and goes on, or ends by what follows from it."""
    of_dvc, kept = logging.getLogger("dvc_data.hashfile.transfer"), _Kept()
    propagate = of_dvc.propagate
    of_dvc.addHandler(kept)
    of_dvc.propagate = False
    try:
        yield
    except Exception as error:
        if kept.errors:
            raise kept.errors[0] from error
        raise
    finally:
        of_dvc.removeHandler(kept)
        of_dvc.propagate = propagate
    if kept.errors:
        raise kept.errors[0]


def first_link(root: Path, outs: Iterable[str]) -> Path | None:
    """The first link to a folder on the way to something that a stage writes."""
    ways = {way for out in outs for way in (out, *folders_around(out))}
    return next((root / way for way in sorted(ways)
                 if os.path.islink(os.path.join(root, way)) and os.path.isdir(os.path.join(root, way))), None)


@contextmanager
def opened(root: Path) -> Iterator[Graph]:
    """A graph that is closed at the end."""
    graph = Graph(root)
    try:
        yield graph
    finally:
        graph.close()


def _name(stage: Any, root: Path) -> str:
    """Its name in the project's dvc.yaml; a stage of another file, or one of a .dvc file, is named with that file."""
    return str(stage.name if _is_same(Path(stage.path), root / "dvc.yaml") else stage.addressing)


@cache
def _is_same(path: Path, other: Path) -> bool:
    """Whether two paths are one file; asked for every stage, and the disk once for every file."""
    return path.resolve() == other.resolve()


def _story(error: BaseException) -> str:
    """A message with its causes."""
    lines: list[str] = []
    current: BaseException | None = error
    while current is not None:
        if (text := str(current).strip()) and text not in lines:
            lines.append(text)
        current = current.__cause__
    return ": ".join(lines)

"""What every pipeline script shares: its settings, log file, errors a person can act on, outputs that are whole.

A stage item reads two small files that `finetrace plan` compiles: `settings/STAGE/ITEM.json`, what is asked for with
all defaults written out, and `settings/code/SCRIPT.json`, the fingerprint of the code that answers.
"""

import contextlib
import csv
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from finetrace.config.base import parse
from finetrace.errors import FinetraceError, hide_passwords, refusal
from finetrace.layout import Layout
from finetrace.pipeline.accepted import accepted
from finetrace.pipeline.names import label_of
from finetrace.store.files import TEMPORARY, atomic_folder, file_lock, write_json
from finetrace.store.manifest import NAME, Manifest, complete, make_key, read_key, read_manifest
from finetrace.store.verified import remember_in

PACKAGE_DATA = ()
DRAWN = ("lens", "settings")
"""Kinds of folders whose figures have a manifest of their own."""
log = logging.getLogger("finetrace")
T = TypeVar("T")


class AlreadyThere(Exception):
    """The outputs of an item are whole and are those asked for: nothing is left to do."""


@dataclass
class Stage:
    """One execution of a DVC stage: `stage@item`."""

    stage: str
    item: str
    layout: Layout
    asked: dict[str, Any]
    """Content of settings/STAGE/ITEM.json."""
    code: dict[str, Any]
    """Content of settings/code/SCRIPT.json."""
    accepted: str = ""
    """Why an author vouches for other code than its fingerprint tells, or empty."""
    started: float = field(default_factory=time.time)

    @property
    def label(self) -> str:
        """Its name in DVC."""
        return label_of(self.stage, self.item, self.layout)

    @property
    def seed(self) -> int:
        """The study's seed, from which every random choice derives."""
        return int(self.asked["study_seed"])

    @property
    def place(self) -> str:
        """The trajectory that it makes or looks at."""
        return str(self.asked["place"])

    @property
    def folder(self) -> Path:
        """The trajectory's folder in outputs."""
        return self.layout.place(self.place)

    def settings(self, key: str, cls: type[T]) -> T:
        """The typed settings of one section of its settings file."""
        return parse(cls, self.asked[key], f"settings/{self.stage}/{self.item}.json: {key}")

    def manifest(
        self,
        kind: str,
        inputs: Mapping[Path, Path | str],
        seeds: dict[str, int] | None = None,
        outs: Sequence[Path] = (),
    ) -> Manifest:
        """A manifest to be completed.

        inputs: path -> finished folder or hash;  outs: folders that the item writes. Raises AlreadyThere when all of
        them are whole and carry the key of this manifest: a driver that was killed after the item had ended asks
        again.
        """
        model = self.asked.get("model")
        if isinstance(model, str) and (self.layout.model(model) / NAME).is_file():
            read_manifest(self.layout.model(model))  # of some stages no input, but its tokenizer is read
        hashes = {self.layout.relative(p): read_key(v) if isinstance(v, Path) else v for p, v in inputs.items()}
        name = f"{self.stage}@{self.item}" if self.item else self.stage
        manifest = Manifest(
            kind=kind,
            stage=self.stage,
            name=self.item,
            key=make_key(name, self.asked, hashes, self.code["measure"]),
            settings=self.asked,
            inputs=hashes,
            seeds=seeds or {},
            code=self.code["measure"],
            accepted=self.accepted,
        )
        if outs and all(self.is_there(folder, manifest) for folder in outs):
            raise AlreadyThere
        return manifest

    def is_there(self, folder: Path, manifest: Manifest) -> bool:
        """Whether a folder is whole, by content, and is what the manifest asks for."""
        try:
            existing = read_manifest(folder, verify="content")
            drawn_code = (
                read_manifest(folder / "figures", verify="content").code
                if existing.kind in DRAWN
                else self.code["draw"]
            )
        except FinetraceError:
            return False
        return existing.key == manifest.key and drawn_code == self.code["draw"]

    @contextlib.contextmanager
    def output(self, folder: Path, manifest: Manifest) -> Iterator[Path]:
        """A folder that appears, with its manifest, only if the block succeeds."""
        with atomic_folder(folder) as temporary:
            yield temporary
            self.complete(temporary, manifest)
        if not any(part.startswith(TEMPORARY) for part in folder.parts):  # inside another folder that is being written
            log.info("%s: wrote %s", self.label, self.layout.relative(folder))

    def complete(self, folder: Path, manifest: Manifest) -> None:
        """Write the manifest into a folder whose files are all there."""
        manifest.device = manifest.facts.pop("device", manifest.device)
        complete(folder, manifest, started=self.started)

    def started_at_ms(self, scratch: Path) -> int:
        """When this piece of work first began, kept over crashes, so that live and final runs share their times."""
        path = scratch / "started.json"
        try:
            return int(json.loads(path.read_text("utf-8"))["started_at_ms"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            write_json(path, {"started_at_ms": int(self.started * 1000)})
            return int(self.started * 1000)


def write_curves(path: Path, columns: Mapping[str, Any]) -> None:
    """Write curves.csv, which MLflow draws: the x axis (whole numbers) first, then equally long curves."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*(curve.tolist() if hasattr(curve, "tolist") else curve for curve in columns.values()),
                             strict=True))


def open_stage(stage: str, item: str, layout: Layout) -> Stage:
    """A stage item with its compiled settings. Raises FinetraceError when they are not there."""
    asked = _read(layout.settings / stage / f"{item or stage}.json")
    code = _read(layout.settings / "code" / f"{stage.replace('-', '_')}.json")
    return Stage(stage, item, layout, asked, code, accepted(layout).reason(stage.replace("-", "_"), code))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        items = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) if path.parent.is_dir() else ""
        raise FinetraceError(
            f"{path}: not found, so params.yaml does not ask for it{f' (it asks for {items})' if items else ''}; "
            "run `finetrace plan` after a change of params.yaml"
        ) from error
    except ValueError as error:
        raise FinetraceError(f"{path}: not valid JSON ({error}); run `finetrace plan`") from error
    if not isinstance(content, dict):
        raise FinetraceError(f"{path}: holds no settings; run `finetrace plan`")
    return content


def run(stage: str, main: Callable[[Stage], None]) -> None:
    """Entry point of a pipeline script: `python pipelines/<stage>.py [item]`.

    Exit code 0: done; 1: failed, with stage, reason and log file named; 130: interrupted, the same command continues.
    """
    item = sys.argv[1] if len(sys.argv) > 1 else ""
    layout = Layout.here()
    label = label_of(stage, item, layout)
    log_file = layout.logs / f"{label.replace('/', '-')}.log"
    try:
        layout.logs.mkdir(parents=True, exist_ok=True)
        _set_up_logging(log_file)
    except OSError as error:
        print(f"finetrace: stage {label} failed: {refusal(error, layout.home) or error}", file=sys.stderr)
        sys.exit(1)
    remember_in(layout.verified)
    log_name = layout.relative(log_file) if log_file.is_relative_to(layout.root) else log_file
    name = label.replace("/", "-")
    try:
        # an earlier run whose front process was killed may still be ending,
        # and dvc repro may run beside finetrace repro
        with file_lock(layout.home / ".finetrace" / "locks" / name, f"{label}: another process makes "
                       "it; waiting for it"):
            main(open_stage(stage, item, layout))
    except AlreadyThere:
        log.info("%s: is there already", label)
    except KeyboardInterrupt:
        log.error("finetrace: stage %s interrupted; run the same command to continue\n  log: %s", label, log_name)
        sys.exit(130)
    except FinetraceError as error:
        log.debug("%s", traceback.format_exc())
        print(f"finetrace: stage {label} failed: {error}\n  log: {log_name}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        if reason := refusal(error, layout.home):
            print(f"finetrace: stage {label} failed: {reason}\n  log: {log_name}", file=sys.stderr)
            sys.exit(1)
        print(hide_passwords(traceback.format_exc()), end="", file=sys.stderr)
        text = hide_passwords(f"{type(error).__name__}: {error}")
        print(f"finetrace: stage {label} failed: {text}\n  log: {log_name}", file=sys.stderr)
        sys.exit(1)


class _Format(logging.Formatter):
    """Lines, and the traces of libraries, without passwords."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_passwords(super().format(record))


class _LogFile(logging.FileHandler):
    """A log file; when its disk is full, what is told on the screen is enough."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _set_up_logging(file: Path) -> None:
    root = logging.getLogger("finetrace")
    root.setLevel(logging.DEBUG)
    root.propagate = False
    for earlier in list(root.handlers):
        root.removeHandler(earlier)
        earlier.close()
    to_file = _LogFile(file, mode="a", encoding="utf-8")
    to_file.setFormatter(_Format("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_screen = logging.StreamHandler()
    to_screen.setLevel(logging.INFO)
    to_screen.setFormatter(_Format("%(message)s"))
    root.addHandler(to_file)
    root.addHandler(to_screen)

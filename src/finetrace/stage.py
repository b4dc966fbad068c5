"""What every pipeline script shares: settings, log file, errors a person can act on, outputs that are whole."""

import contextlib
import csv
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrace.config import Study, load_study
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.files import atomic_folder, write_json
from finetrace.store.manifest import Manifest, code_digest, complete, make_key, read_key, write_content

log = logging.getLogger("finetrace")
PACKAGE = Path(__file__).parent
# What decides a training
TRAINING_ROOMS = ("training", "models", "lenses/probes/solver.py", "store/files.py", "store/tables.py", "store/manifest.py",
                  "store/checkpoints.py")
SHARED = ("world", "model", "data")  # kinds of folders that many stages build on


@dataclass
class Stage:
    """One execution of a DVC stage: `stage@item`."""

    stage: str
    item: str
    study: Study
    layout: Layout
    started: float = field(default_factory=time.time)

    @property
    def label(self) -> str:
        return f"{self.stage}@{self.item}" if self.item else self.stage

    def pick(self, section: str, items: dict[str, Any]) -> Any:
        """The item's entry in a section of params.yaml."""
        if self.item not in items:
            raise FinetraceError(f"params.yaml: {section} has no {self.item!r}; it has {', '.join(items) or 'nothing'}")
        return items[self.item]

    def manifest(self, kind: str, settings: Any, inputs: dict[Path, Path | str], seeds: dict[str, int] | None = None,
                 rooms: tuple[str, ...] = ()) -> Manifest:
        """A manifest to be completed. inputs: path -> finished folder or hash;  rooms: source folders that decide."""
        hashes = {self.layout.relative(p): read_key(v) if isinstance(v, Path) else v for p, v in inputs.items()}
        code = code_digest(PACKAGE, *rooms) if rooms else ""
        return Manifest(kind=kind, stage=self.stage, name=self.item, study=self.study.study.name,
                        key=make_key(self.label, settings, hashes, code), settings=settings, inputs=hashes,
                        seeds=seeds or {}, code=code)

    @contextlib.contextmanager
    def output(self, folder: Path, manifest: Manifest) -> Iterator[Path]:
        """A folder that appears, with its manifest, only if the block succeeds."""
        with atomic_folder(folder) as temporary:
            yield temporary
            manifest.device = manifest.facts.pop("device", manifest.device)
            if manifest.kind in SHARED:
                write_content(temporary, manifest)
            complete(temporary, manifest, started=self.started)
        log.info("%s: wrote %s", self.label, self.layout.relative(folder))

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
        writer.writerows(zip(*(c.tolist() if hasattr(c, "tolist") else c for c in columns.values()), strict=True))


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write `folder/NAME.png` of each figure."""
    from finetrace.figures.style import to_png

    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(to_png(figure))


def run(stage: str, main: Callable[[Stage], None]) -> None:
    """Entry point of a pipeline script: `python pipelines/<stage>.py [item]`.

    Exit code 0: done; 1: failed, with stage, reason and log file named; 130: interrupted, the same command continues.
    """
    item = sys.argv[1] if len(sys.argv) > 1 else ""
    layout = Layout.here()
    label = f"{stage}@{item}" if item else stage
    layout.logs.mkdir(parents=True, exist_ok=True)
    file = layout.logs / f"{label.replace('/', '-')}.log"
    _logging(file)
    try:
        main(Stage(stage, item, load_study(layout.params), layout))
    except KeyboardInterrupt:
        log.error("finetrace: stage %s interrupted; run the same command to continue\n  log: %s", label, file)
        sys.exit(130)
    except FinetraceError as error:
        log.debug("%s", traceback.format_exc())
        print(f"finetrace: stage {label} failed: {error}\n  log: {file}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        traceback.print_exc()
        print(f"finetrace: stage {label} failed: {type(error).__name__}: {error}\n  log: {file}", file=sys.stderr)
        sys.exit(1)


def _logging(file: Path) -> None:
    root = logging.getLogger("finetrace")
    root.setLevel(logging.DEBUG)
    root.propagate = False
    for earlier in list(root.handlers):
        root.removeHandler(earlier)
        earlier.close()
    to_file = logging.FileHandler(file, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_screen = logging.StreamHandler()
    to_screen.setLevel(logging.INFO)
    to_screen.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(to_file)
    root.addHandler(to_screen)

"""The checkpoints of any trajectory - ours or a series made elsewhere - one at a time,
each known by the digest of its weights."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.sources import Source, of_plain, opened
from finetrace.store.checkpoints import list_weights
from finetrace.store.files import sha256_value
from finetrace.store.manifest import OF_MANIFEST, read_key, read_manifest

SERIES = "series.json"
TOKENIZER = "tokenizer"
AXES = {"pretrain": "pre-training steps", "adapt": "adaptation steps"}
FINE_TUNING = "fine-tuning steps"


@dataclass
class Timeline:
    """The chosen checkpoints of one trajectory."""

    trajectory: Path
    steps: list[int]
    """(checkpoint,) ascending optimiser steps, on `axis`."""
    axis: str
    """What the steps count: pre-training, adaptation or fine-tuning steps."""
    tokenizer: Path
    """The folder with the tokenizer, one for all checkpoints."""
    head: Path | None = None
    """Model folder whose masked-word head goes onto the checkpoints; None where they carry their own."""
    base: Path | None = None
    """Model folder that checkpoints of adapters or of a head alone need."""
    sources: dict[int, Path | Source] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    keep: bool = True
    """Whether fetched weights stay in the hub's cache."""

    @property
    def place(self) -> str:
        """The trajectory's folder in outputs, e.g. MODEL/pretrain."""
        parts = self.trajectory.absolute().parent.parts
        after = len(parts) - parts[::-1].index("outputs") if "outputs" in parts else -1
        return "/".join(parts[after:])

    def digest(self, step: int) -> str:
        """SHA-256 that names the weights of a checkpoint, known without fetching them."""
        return self.digests[step]

    @contextlib.contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """A folder with config.json and safetensors, whole and verified; valid inside the block.

        Checkpoints of a series are opened at this moment: fetched or found, verified, adapters merged. Raises
        FinetraceError when that fails or the bytes are others than when the series was recorded.
        """
        source = self.sources[step]
        if isinstance(source, Path):
            yield source
            return
        with opened(source, self.keep) as folder:
            yield folder


def open_timeline(trajectory: Path, models: Path, wanted: str | list[int] = "all") -> Timeline:
    """Open a finished trajectory.

    trajectory: the folder `outputs/PLACE/trajectory`;  models: the folder `models`;  wanted: all | ends | steps
    (first and last are always in; steps beyond the last are left out). Raises FinetraceError when the trajectory is not
    finished, has no checkpoints, or lacks a wanted step.
    """
    manifest = read_manifest(trajectory)
    if (trajectory / SERIES).is_file():
        return _open_series(trajectory, manifest, wanted)
    weights = kept_checkpoints(trajectory, wanted)
    kind = trajectory.parent.name
    model = str(manifest.facts["model"])
    tuned = kind not in AXES
    folder = models / model
    digests = {step: _digest(path, manifest, trajectory, folder if tuned else None) for step, path in weights.items()}
    return Timeline(trajectory, list(weights), str(manifest.facts.get("axis") or AXES.get(kind, FINE_TUNING)), folder,
                    folder if tuned else None, folder if tuned else None, dict(weights), digests)


def chosen_steps(recorded: list[int], wanted: str | list[int], trajectory: Path, key: str = "checkpoints") -> list[int]:
    """Of the recorded steps: all, the ends, or listed ones and the ends, ascending;
    listed ones beyond the last are left out.

    key: the setting, for messages. Raises FinetraceError when nothing was recorded, or when a listed step was not.
    """
    if not recorded:
        raise FinetraceError(f"{trajectory}: has no checkpoints; set record.checkpoints, e.g. log2, and train "
                             "again (pretrain and adapt have `checkpoints` of their own)")
    first, last = min(recorded), max(recorded)
    if wanted == "all":
        return sorted(recorded)
    steps = {first, last} | {s for s in (wanted if isinstance(wanted, list) else []) if first < s < last}
    if absent := sorted(steps - set(recorded)):
        raise FinetraceError(f"{key}: step {absent[0]} was not recorded in {trajectory}; there are "
                             f"{', '.join(map(str, sorted(recorded)))}; name these, or record that step")
    return sorted(steps)


def kept_checkpoints(trajectory: Path, wanted: str | list[int], key: str = "checkpoints") -> dict[int, Path]:
    """Step -> folder of the weights that a training kept and that are wanted, ascending; see `chosen_steps`, whose
    errors it raises."""
    recorded = list_weights(trajectory / "checkpoints")
    return {step: recorded[step] for step in chosen_steps(list(recorded), wanted, trajectory, key)}


def read_series(trajectory: Path) -> tuple[dict[int, Source], bool]:
    """The checkpoints of a series by their step, ascending, and whether fetched weights stay in the hub's cache.
    Raises FinetraceError when series.json cannot be read."""
    path = trajectory / SERIES
    try:
        content = json.loads(path.read_text("utf-8"))
        return {int(step): of_plain(plain) for step, plain in content["checkpoints"].items()}, bool(content["keep"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetraceError(f"{path}: cannot be read ({error}); run the stage series again") from error


def _open_series(trajectory: Path, manifest: Any, wanted: str | list[int]) -> Timeline:
    sources, keep = read_series(trajectory)
    steps = chosen_steps(list(sources), wanted, trajectory)
    return Timeline(trajectory, steps, str(manifest.facts["axis"]), trajectory / TOKENIZER,
                    sources={s: sources[s] for s in steps}, digests={s: weights_digest(sources[s]) for s in steps},
                    keep=keep)


def weights_digest(source: Source) -> str:
    """SHA-256 that names what a checkpoint computes, whatever its files are called."""
    base = getattr(source, "base", None)
    digests = sorted(digest for name, digest in source.sha256.items() if name != "config.json")
    return sha256_value(digests if base is None else [digests, weights_digest(base)])


def _digest(folder: Path, manifest: Any, trajectory: Path, base: Path | None) -> str:
    """Of all weights that decide the checkpoint: its own files and, for adapters or a lone head, its base's."""
    prefix = folder.relative_to(trajectory).as_posix() + "/"
    digests = {n.removeprefix(prefix): facts["sha256"] for n, facts in manifest.files.items()
               if n.startswith(prefix) and n.endswith((".safetensors", "adapter_config.json"))}
    complete = "model.safetensors" in digests or any(n.startswith("model-") for n in digests)
    return sha256_value([digests, read_key(base) if base is not None and not complete else ""])


@contextlib.contextmanager
def whole_model(timeline: Timeline, step: int, where: Path) -> Iterator[Path]:
    """A folder, in `where`, with one checkpoint's config and weights and the timeline's tokenizer:
    a model as of models/."""
    where.mkdir(parents=True, exist_ok=True)
    with timeline.checkpoint(step) as folder, tempfile.TemporaryDirectory(dir=where) as name:
        words = [file for file in timeline.tokenizer.iterdir()
                 if file.is_file() and not file.name.endswith(".safetensors")
                 and file.name not in ("config.json", *OF_MANIFEST, "model.safetensors.index.json")]
        names = {file.name for file in words}  # a folder of a Trainer has its tokenizer beside the weights
        weights = [file for file in (*folder.glob("*.json"), *folder.glob("*.safetensors")) if file.name not in names]
        for file in (*weights, *words):
            (Path(name) / file.name).symlink_to(file.resolve())
        yield Path(name)

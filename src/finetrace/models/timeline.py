"""The checkpoints of any trajectory - ours or a published series - one at a time,
each known by the digest of its weights."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.hub import look_up, trouble
from finetrace.store.checkpoints import list_weights
from finetrace.store.files import sha256_file, sha256_value
from finetrace.store.manifest import OF_MANIFEST, read_key, read_manifest

SERIES = "series.json"
TOKENIZER = "tokenizer"
AXES = {"pretrain": "pre-training steps", "adapt": "adaptation steps"}
VOCABULARIES = ("tokenizer.json", "vocab", "spiece", "spm", "sentencepiece")
FINE_TUNING = "fine-tuning steps"


@dataclass(frozen=True)
class Published:
    """One checkpoint of a published series: where it lies and the SHA-256 of each of its weight files."""

    id: str
    revision: str
    """The commit."""
    sha256: dict[str, str]


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
    sources: dict[int, Path | Published] = field(default_factory=dict)
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

        Published checkpoints are fetched at this moment. Raises FinetraceError when that fails or the bytes are others
        than when the series was recorded.
        """
        source = self.sources[step]
        if isinstance(source, Path):
            yield source
            return
        folder = fetch_published(source)
        try:
            yield folder
        finally:
            if not self.keep:
                _forget(folder)


def open_timeline(trajectory: Path, models: Path, wanted: str | list[int] = "all") -> Timeline:
    """Open a finished trajectory.

    trajectory: the folder `outputs/PLACE/trajectory`;  models: the folder `models`;  wanted: all | ends | steps
    (first and last are always in; steps beyond the last are left out). Raises FinetraceError when the trajectory is not
    finished, has no checkpoints, or lacks a wanted step.
    """
    manifest = read_manifest(trajectory)
    if (trajectory / SERIES).is_file():
        return _open_series(trajectory, manifest, wanted)
    recorded = list_weights(trajectory / "checkpoints")
    steps = chosen_steps(list(recorded), wanted, trajectory)
    kind = trajectory.parent.name
    model = str(manifest.facts["model"])
    tuned = kind not in AXES
    folder = models / model
    digests = {step: _digest(recorded[step], manifest, trajectory, folder if tuned else None) for step in steps}
    return Timeline(trajectory, steps, str(manifest.facts.get("axis") or AXES.get(kind, FINE_TUNING)), folder,
                    folder if tuned else None, folder if tuned else None, {s: recorded[s] for s in steps}, digests)


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


def resolve_series(name: str, settings: Any, out: Path) -> dict[str, Any]:
    """Look a published series up on the hub: write `out/series.json` and `out/tokenizer/`;
    weights are fetched by who needs them.

    settings: SeriesSettings. Returns facts for the manifest. Raises FinetraceError when a checkpoint is missing or has
    no safetensors, and when two have equal weights: then one name shows another's checkpoint.
    """
    found: dict[int, Published] = {}
    seen: dict[str, str] = {}
    for step in settings.steps:
        where = settings.id.replace("{step}", str(step)), settings.revision.replace("{step}", str(step))
        one = _look_up(name, *where)
        weights, label = sha256_value(sorted(one.sha256.values())), f"{where[0]} at {where[1]}"
        if weights in seen:
            raise FinetraceError(f"series.{name}: {label} has the same weights as {seen[weights]}; one of the "
                                 "two names is wrong")
        seen[weights] = label
        found[step * settings.unit] = one
    last = found[max(found)]
    _fetch_tokenizer(name, settings.tokenizer or last.id, "main" if settings.tokenizer else last.revision,
                     out / TOKENIZER)
    content = {str(step): {"id": one.id, "revision": one.revision, "sha256": one.sha256} for step, one in found.items()}
    (out / SERIES).write_text(json.dumps({"schema_version": 1, "keep": settings.keep, "checkpoints": content}, indent=1)
                              + "\n")
    return {"checkpoints": len(found), "steps": list(found), "axis": AXES["pretrain"]}


def fetch_published(one: Published) -> Path:
    """Fetch one checkpoint into the hub's cache (or find it there) and check its bytes. Returns its folder."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(one.id, revision=one.revision, allow_patterns=["config.json", "*.safetensors",
                                                                                      "model.safetensors.index.json"],
                                        ignore_patterns=["*/*"]))
    except Exception as error:  # the hub client raises many kinds; each is named and passed on
        raise FinetraceError(f"{one.id} at {one.revision} could not be fetched: {trouble(error)}; run the stage "
                             "again when the hub can be reached: finished checkpoints are kept") from error
    for file, expected in one.sha256.items():
        path = folder / file
        if not path.is_file() or sha256_file(path.resolve()) != expected:
            raise FinetraceError(f"{path}: is not the file that the series recorded (SHA-256 "
                                 f"{expected[:12]}...); delete {folder} from the hub's cache and run the stage again")
    return folder


def _open_series(trajectory: Path, manifest: Any, wanted: str | list[int]) -> Timeline:
    path = trajectory / SERIES
    try:
        content = json.loads(path.read_text("utf-8"))
        found = {int(step): Published(**one) for step, one in content["checkpoints"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FinetraceError(f"{path}: cannot be read ({error}); run the stage series again") from error
    steps = chosen_steps(list(found), wanted, trajectory)
    return Timeline(trajectory, steps, str(manifest.facts["axis"]), trajectory / TOKENIZER,
                    sources={s: found[s] for s in steps},
                    digests={s: sha256_value(sorted(found[s].sha256.values())) for s in steps},
                    keep=bool(content["keep"]))


def _digest(folder: Path, manifest: Any, trajectory: Path, base: Path | None) -> str:
    """Of all weights that decide the checkpoint: its own files and, for adapters or a lone head, its base's."""
    prefix = folder.relative_to(trajectory).as_posix() + "/"
    own = {n.removeprefix(prefix): facts["sha256"] for n, facts in manifest.files.items()
           if n.startswith(prefix) and n.endswith((".safetensors", "adapter_config.json"))}
    whole = "model.safetensors" in own or any(n.startswith("model-") for n in own)
    return sha256_value([own, read_key(base) if base is not None and not whole else ""])


def _look_up(name: str, model_id: str, revision: str) -> Published:
    """Commit and digests of the weights of one hub model; fetches weights only where the hub does not tell their
    SHA-256."""
    from huggingface_hub import hf_hub_download

    try:
        found = look_up(model_id, revision, digests=True)
        files = [file for file in found.files if "/" not in file and file.endswith(".safetensors")]
        digests = {file: found.sha256.get(file) or sha256_file(
            Path(hf_hub_download(model_id, file, revision=found.commit)).resolve()) for file in files}
    except Exception as error:  # the hub client raises many kinds; each is named and passed on
        raise FinetraceError(f"series.{name}: {model_id} at revision {revision} could not be looked up: "
                             f"{trouble(error)}; mend id, revision or steps") from error
    if not files:
        raise FinetraceError(f"series.{name}: {model_id} at {revision} has no *.safetensors; pickled weights are not "
                             "loaded; name a revision with safetensors (often refs/pr/N)")
    return Published(model_id, found.commit, digests)


def _fetch_tokenizer(name: str, model_id: str, revision: str, out: Path) -> None:
    from huggingface_hub import snapshot_download

    from finetrace.models.fetch import FILES
    from finetrace.models.load import load_tokenizer

    wanted = [p for p in FILES if "safetensors" not in p]
    try:
        commit = look_up(model_id, revision).commit
        folder = Path(snapshot_download(model_id, revision=commit, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except Exception as error:  # as above
        raise FinetraceError(f"series.{name}: the tokenizer of {model_id} could not be fetched: {trouble(error)}; "
                             "name another in `tokenizer`") from error
    out.mkdir()
    for pattern in wanted:
        for file in sorted(folder.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file.resolve(), out / file.name)
    if not any(p.name.startswith(VOCABULARIES) or p.suffix == ".model" for p in out.iterdir()):
        raise FinetraceError(f"series.{name}: {model_id} at {revision} has no tokenizer; name the model whose it is in "
                             "`tokenizer`")
    load_tokenizer(out)


def _forget(folder: Path) -> None:
    """Remove a checkpoint's weights from the hub's cache: links and what they point to."""
    for link in folder.glob("*.safetensors"):
        link.resolve().unlink(missing_ok=True)
        link.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_model(timeline: Timeline, step: int, where: Path) -> Iterator[Path]:
    """A folder, in `where`, with one checkpoint's config and weights and the timeline's tokenizer:
    a model as of models/."""
    where.mkdir(parents=True, exist_ok=True)
    with timeline.checkpoint(step) as folder, tempfile.TemporaryDirectory(dir=where) as name:
        for file in [*folder.glob("*.json"), *folder.glob("*.safetensors")]:
            (Path(name) / file.name).symlink_to(file.resolve())
        for file in timeline.tokenizer.iterdir():
            if file.is_file() and not file.name.endswith(".safetensors") and file.name not in (
                    "config.json", *OF_MANIFEST, "model.safetensors.index.json"):
                (Path(name) / file.name).symlink_to(file.resolve())
        yield Path(name)

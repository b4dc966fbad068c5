"""Outputs as plain records of runs: reads files only, knows nothing of mlflow."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.accepted import accepted
from finetrace.store.files import sha256_value
from finetrace.store.manifest import NAME, PROVENANCE, Manifest, read_key, read_manifest
from finetrace.store.tables import read_table
from finetrace.study import Study
from finetrace.study.study import Cell, Run
from finetrace.tracking.checkpoints import checkpoints_of
from finetrace.tracking.curves import curves_series, history_series, one_series, valid
from finetrace.tracking.described import description, headline_metrics, warn_of_few
from finetrace.tracking.names import cell_names, place_names, shown_names
from finetrace.tracking.overview import cells
from finetrace.tracking.records import Collected, DataInput, RunContent, RunRecord
from finetrace.tracking.series import metric_name

FORMAT = 1  # part of a run's identity: raise it when the same files shall become different runs
LARGEST_ARTIFACT = 1_000_000  # bytes; a larger file is named in pointers.json instead of being copied
LARGEST_PAGE = 20_000_000  # of the atlas, which people open in MLflow
SPEED_POINTS = 100  # of tokens per second, a curve that nobody reads closely: every point costs time
_ARTIFACTS = {NAME, "metrics.json", "table.parquet", "results.json", "best.yaml", "trials.parquet", "history.parquet",
              "signals.parquet", "probe.parquet", "curves.csv"}
_STATES = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "RUNNING": "RUNNING", "WAITING": "SCHEDULED"}


def collect(layout: Layout, study: Study) -> Collected:
    """Records of all runs that the study's outputs give. Of the outputs only manifests and lists of trials are read."""
    collected = Collected()
    reader = _Reader(layout, study, collected.problems)
    jobs: list[tuple[str, Callable[[], Iterator[RunRecord]]]] = []
    for model, pretrain in study.pretrain.items():
        if pretrain.steps:
            jobs.append((f"pretrain {model}", partial(reader.pretrain, model)))
    shown = [model for model in study.series if f"{model}/pretrain" in study.shown]
    jobs += [(f"series {model}", partial(reader.pretrain, model)) for model in shown]
    jobs += [(f"adapt {model}", partial(reader.adapt, model)) for model in study.adapt]
    for key, cell in study.cells.items():
        if study.methods[cell.method].settings == "tuned":
            jobs.append((f"tune {key}", partial(reader.tune, key, cell)))
    for key, trajectory in study.on_tasks.items():
        jobs.append((f"trajectory {key}", partial(reader.trajectory, key, trajectory)))
    for stage, name, _ in study.standalone():
        jobs.append((f"{stage} {name}", partial(reader.standalone, stage, name)))
    if layout.atlas.is_dir():
        jobs.append(("atlas", reader.atlas))
    for job_name, job in jobs:
        try:
            records = list(job())
        except FinetraceError as error:
            collected.problems.append(str(error))
            continue
        collected.records += records
        if not records:
            collected.absent.append(job_name)
    collected.records += cells(study, collected.records)
    return collected


class _Reader:
    def __init__(self, layout: Layout, study: Study, problems: list[str]):
        self.layout, self.study, self.problems = layout, study, problems
        self.vouched = accepted(layout).entries
        runs = list(study.on_tasks.values())
        self.cells = cell_names(runs)
        masked = [*(model for model, settings in study.pretrain.items() if settings.steps), *study.series]
        self.shown = shown_names(runs) | place_names(masked, list(study.adapt))

    def pretrain(self, model: str) -> Iterator[RunRecord]:
        folder = self.layout.pretrain(model)
        yield from self._trajectory("pretrain", f"{model}_pretrain", folder, {"model": model})

    def adapt(self, model: str) -> Iterator[RunRecord]:
        yield from self._trajectory("adapt", f"{model}_adapt", self.layout.adapt(model), {"model": model})

    def trajectory(self, key: str, run: Run) -> Iterator[RunRecord]:
        folder = self.layout.run(run.model, run.task, run.method, run.seed) / "trajectory"
        yield from self._trajectory("trajectory", key, folder, _place(run) | {"seed": str(run.seed)})

    def _trajectory(self, kind: str, name: str, folder: Path, place: dict[str, str]) -> Iterator[RunRecord]:
        if not folder.is_dir():
            return
        manifest = read_manifest(folder)
        tags = place | self._hashes(manifest, place)
        parent = self._run_record(kind, name, manifest, folder, partial(self._training_content, folder, manifest, tags))
        headlines: dict[str, float] = {}
        lenses: list[RunRecord] = []
        lens_manifests: dict[str, Manifest] = {}
        shown = self.shown.get(name, "")
        for lens in sorted(path.parent for path in folder.parent.glob(f"*/{NAME}")):
            if lens == folder or lens.name.startswith("."):
                continue
            try:
                lens_manifest = read_manifest(lens)
            except FinetraceError as error:  # one damaged lens keeps neither its trajectory nor other lenses back
                self.problems.append(str(error))
                continue
            if lens_manifest.kind == "lens":
                load = partial(self._lens_content, lens, lens_manifest, tags | {"lens": lens.name})
                record = self._run_record("lens", f"{lens.name}@{name}", lens_manifest, lens, load, parent.identity)
                lenses.append(dataclasses.replace(record, shown=f"{lens.name} {shown or name}"))
                headlines |= headline_metrics(lens)
                lens_manifests[lens.name] = lens_manifest
        yield dataclasses.replace(parent, shown=shown, headlines=headlines,
                                  checkpoints=checkpoints_of(self.layout, folder, manifest, lens_manifests, place))
        if self.study.tracking.lens_runs:
            yield from lenses

    def tune(self, key: str, cell: Cell) -> Iterator[RunRecord]:
        folder = self.layout.tune(cell.model, cell.task, cell.method)
        if not folder.is_dir():
            return
        manifest = read_manifest(folder)
        trials = read_table(folder / "trials.parquet").to_pylist()
        times = {row["number"]: row for row in read_table(folder / "timing.parquet").to_pylist()} if (
            folder / "timing.parquet").is_file() else {}
        tags = _place(cell) | self._hashes(manifest, _place(cell))
        load = partial(self._search_content, folder, manifest, trials, tags)
        parent = self._run_record("tune", f"{key}_tune", manifest, folder, load)
        shown = self.cells.get(key, key)
        yield dataclasses.replace(parent, shown=f"tune {shown}")
        for trial in trials:
            name, trial_times = f"trial-{trial['number']:04d}@{key}", times.get(trial["number"], {})
            trial_key = f"{manifest.key}:{trial['number']}"
            yield RunRecord("trial", name, trial_key,
                            self._identity("trial", name, trial_key, sha256_value(trial), parent.identity),
                            parent.identity, _STATES.get(trial["state"], "FAILED"),
                            trial_times.get("started_at_ms") or _started(manifest, folder),
                            trial_times.get("finished_at_ms"),
                            partial(self._trial_content, trial, manifest, tags),
                            shown=f"trial {trial['number']} {shown}")

    def standalone(self, stage: str, name: str) -> Iterator[RunRecord]:
        folder = self.layout.standalone(stage, name)
        if not folder.is_dir():
            return
        manifest = read_manifest(folder)
        yield self._run_record(stage, f"{stage}@{name}", manifest, folder,
                               partial(self._lens_content, folder, manifest, {"lens": stage}, f"{stage}/"))

    def atlas(self) -> Iterator[RunRecord]:
        folder = self.layout.atlas
        manifest = read_manifest(folder)
        yield self._run_record("atlas", "atlas", manifest, folder, partial(self._common_content, folder, manifest, {}))

    def _run_record(self, kind: str, name: str, manifest: Manifest, folder: Path, load: Callable[[], RunContent],
                    parent: str = "") -> RunRecord:
        content = {file: facts["sha256"] for file, facts in manifest.files.items()}
        if (folder / "figures" / NAME).is_file():  # drawn apart from the rest, and shown by the run
            figure_files = read_manifest(folder / "figures").files
            content |= {f"figures/{file}": facts["sha256"] for file, facts in figure_files.items()}
        start = _started(manifest, folder)
        return RunRecord(kind, name, manifest.key, self._identity(kind, name, manifest.key, content, parent), parent,
                         "FINISHED", start, start + int(manifest.wall_seconds * 1000), load, self._accepted(manifest))

    def _accepted(self, manifest: Manifest) -> str:
        """Why a result stands although the code has changed since, or was made by code that counts as other code."""
        entry = self.vouched.get(manifest.stage.replace("-", "_"))
        stands = entry is not None and entry["content"]["measure"] == manifest.code
        return manifest.accepted or (str(entry["because"]) if entry is not None and stands else "")

    def _identity(self, kind: str, name: str, key: str, content: Any, parent: str) -> str:
        return sha256_value([FORMAT, self.study.study.name, kind, name, key, content, parent])

    def _hashes(self, manifest: Manifest, place: dict[str, str]) -> dict[str, str]:
        """Tags data_hash and model_hash: what the manifest's inputs say about the task's and the model's folder."""
        tags = {}
        for tag, folder in (("data_hash", f"data/{place.get('task')}"), ("model_hash", f"models/{place.get('model')}")):
            hashes = {p: h for p, h in manifest.inputs.items() if p == folder or p.startswith(folder + "/")}
            if hashes:
                tags[tag] = next(iter(hashes.values())) if len(hashes) == 1 else sha256_value(hashes)
        return tags

    def _common_content(self, folder: Path, manifest: Manifest, tags: dict[str, str], prefix: str = "") -> RunContent:
        """The content that every finished folder gives: settings, final numbers, costs, artifacts."""
        content = RunContent(params=flat_params(manifest.settings), tags=tags | _manifest_tags(manifest))
        content.finals = {metric_name(prefix + k): v for k, v in _numbers(folder / "metrics.json").items()}
        if manifest.started_at_ms:  # else DVC restored the folder from its cache, and what it cost is not known
            content.finals["cost/wall_seconds"] = manifest.wall_seconds
            content.finals["cost/peak_memory_mib"] = round(manifest.peak_memory_bytes / 2**20, 1)
        content.artifacts = self._artifacts(folder, manifest)
        return content

    def _training_content(self, folder: Path, manifest: Manifest, tags: dict[str, str]) -> RunContent:
        content = self._common_content(folder, manifest, tags)
        if (folder / "history.parquet").is_file():  # a series has none
            content.series = history_series(folder / "history.parquet")
        if (folder / "timing.parquet").is_file():
            table = read_table(folder / "timing.parquet", ["step", "tokens_per_second"])
            speed = one_series("timing/tokens_per_second", *valid(table, "tokens_per_second"))
            content.series += [series.thinned(SPEED_POINTS) for series in speed]
        content.final_step = max((int(s.steps[-1]) for s in content.series), default=0)
        if "task" in tags:
            content.data = self._data_input(tags["task"])
        return _rename_finals(content)

    def _lens_content(self, folder: Path, manifest: Manifest, tags: dict[str, str], prefix: str = "") -> RunContent:
        prefix = prefix or f"{folder.name}/"
        warn_of_few(tags["lens"], manifest.facts, self.layout.relative(folder))
        content = self._common_content(folder, manifest, tags | description(tags["lens"], prefix), prefix=prefix)
        if (folder / "curves.csv").is_file():
            content.series = curves_series(folder / "curves.csv", prefix=prefix)
        return _rename_finals(content)

    def _search_content(self, folder: Path, manifest: Manifest, trials: list[dict[str, Any]],
                        tags: dict[str, str]) -> RunContent:
        content = self._common_content(folder, manifest, tags)
        values = [(t["number"], t["value"]) for t in trials if t["value"] is not None]
        if values:
            content.series = one_series("objective/value", *map(np.array, zip(*values, strict=True)))
        return _rename_finals(content)

    def _trial_content(self, trial: dict[str, Any], manifest: Manifest, tags: dict[str, str]) -> RunContent:
        content = RunContent(params=flat_params(json.loads(trial["params_json"])),
                             tags=tags | _manifest_tags(manifest) | {"trial": str(trial["number"])})
        points = sorted((int(step), float(value)) for step, value in json.loads(trial["intermediate_json"]).items()
                        if value is not None)
        if points:
            content.series = one_series("objective/intermediate", *map(np.array, zip(*points, strict=True)))
            content.final_step = points[-1][0]
        if trial["value"] is not None:
            content.finals["objective/value"] = float(trial["value"])
        return content

    def _data_input(self, task: str) -> DataInput | None:
        folder = self.layout.task(task)
        if not (folder / NAME).is_file():
            return None
        manifest = read_manifest(folder, verify=False)
        return DataInput(task, read_key(folder)[:8], self.layout.relative(folder), manifest.facts)

    def _artifacts(self, folder: Path, manifest: Manifest) -> dict[str, Path | str]:
        """Files to copy; weights and large files only as pointers, so that the store stays small."""
        artifacts: dict[str, Path | str] = {name: folder / name for name in (NAME, PROVENANCE)}
        artifacts |= {f"figures/{path.name}": path for path in sorted((folder / "figures").glob("*.png"))}
        checkpoints, pointers = [], []
        folder_name = self.layout.relative(folder)
        for name, facts in sorted(manifest.files.items()):
            pointer = {"path": f"{folder_name}/{name}", "sha256": facts["sha256"], "bytes": facts["bytes"]}
            if name.startswith("checkpoints/"):
                if name.endswith(".safetensors"):
                    checkpoints.append(pointer | {"step": _checkpoint_step(name)})
            elif name in _ARTIFACTS or name.endswith(".html"):
                if facts["bytes"] <= (LARGEST_PAGE if name.endswith(".html") else LARGEST_ARTIFACT):
                    artifacts[name] = folder / name
                else:
                    pointers.append(pointer)
        for name, file_list in (("checkpoints.json", checkpoints), ("pointers.json", pointers)):
            if file_list:
                artifacts[name] = json.dumps(file_list, indent=2, sort_keys=True) + "\n"
        return artifacts


def flat_params(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow params: dotted keys, texts as they are, the rest as JSON, cut to MLflow's limits."""
    params: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            params |= flat_params(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            params[metric_name(f"{prefix}{key}")] = text if len(text) <= 6000 else text[:5997] + "..."
    return params


def _rename_finals(content: RunContent) -> RunContent:
    """A final number with the name of a curve becomes final/<name>, so that the curve keeps its own last point."""
    curves = {s.name for s in content.series}
    content.finals = {f"final/{k}" if k in curves else k: v for k, v in content.finals.items()}
    return content


def _numbers(path: Path) -> dict[str, float]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise FinetraceError(f"{path}: not valid JSON ({error}); delete its folder and run the stage again") from error
    return {k: float(v) for k, v in content.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _started(manifest: Manifest, folder: Path) -> int:
    """When the work began, Unix ms; of a folder that DVC restored from its cache, when it was restored."""
    return manifest.started_at_ms or int((folder / NAME).stat().st_mtime * 1000)


def _manifest_tags(manifest: Manifest) -> dict[str, str]:
    tags = {"device": manifest.device, "finetrace.version": manifest.versions.get("finetrace", ""),
            "code_hash": manifest.code}
    if manifest.stage:
        stage = f"{manifest.stage}@{manifest.name}" if manifest.name else manifest.stage
        tags |= {"dvc.stage": stage, "mlflow.source.name": stage, "mlflow.source.type": "JOB"}
    return {k: v for k, v in tags.items() if v}


def _place(cell: Cell) -> dict[str, str]:
    return {"model": cell.model, "task": cell.task, "method": cell.method}


def _checkpoint_step(name: str) -> int:
    digits = name.split("/")[1].rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1

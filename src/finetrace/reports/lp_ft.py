"""The tables of Tomihari and Sato (2024), "Understanding linear probing then fine-tuning language models from NTK
perspective", from a study's finished outputs.

Reads metrics of trajectories and of predictions, calibration, features and kernel; writes nothing.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.reports import markdown
from finetrace.reports.markdown import NONE, mean, mean_sd
from finetrace.store.manifest import checked_file, read_manifest
from finetrace.study.study import Run as Item
from finetrace.study.study import Study

SPLITS = ("train", "validation", "test")
STAGES = ("trajectory", "predictions", "calibration", "features", "kernel")
PARTS = {"P": "pretrain_effective", "F": "ft_effective", "NTK": "full"}
SHOWN = 10
"""Missing results that are named; more are counted."""
ENDS = ("first", "kept")
FEATURES = ("data", "method", "CS", "Diff", "FDR", "norm of the head")
KERNEL = ("data", "method", "part", "rank", "Frobenius norm", "flattened accuracy, train / eval",
          "accuracy, train / eval", "FT ratio")
LEGEND = ("Numbers without ± are means over seeds. CS: mean cosine of the features of two examples; Diff: mean "
          "distance of features to those before training; FDR: Fisher's discriminant ratio (*: with a ridge, where the "
          "scatter within classes is singular). P: pre-train-effective part of the kernel, F: fine-tuning-effective "
          "part, NTK: their sum; flattened: every pair of example and class is one decision of two, as published.")


@dataclass(frozen=True)
class Run:
    """One training and what is known of it; stages that have not run are absent."""

    item: Item
    metric: str
    metrics: dict[str, dict[str, float]]
    """Stage -> its metrics.json."""

    def get(self, stage: str, key: str) -> float:
        """A metric; NaN where it is unknown."""
        return self.metrics.get(stage, {}).get(key, math.nan)

    def score(self, name: str) -> float:
        """The task's metric on a set: of all rows of a split, else of the rows in predictions; NaN where unknown."""
        recorded = self.get("trajectory", f"{name}/{self.metric}")
        return self.get("predictions", f"{name}/{self.metric}") if math.isnan(recorded) else recorded

    def sets(self) -> set[str]:
        """Names of the sets of which something is known."""
        keys = [key for stage in ("trajectory", "predictions", "calibration") for key in self.metrics.get(stage, {})]
        return {key.rpartition("/")[0] for key in keys if key.endswith("/accuracy")}


@dataclass(frozen=True)
class Row:
    """A set of one model and task."""

    label: str
    name: str
    """validation, test, or the name of a set out of distribution."""
    runs: dict[str, list[Run]]
    """Method -> its finished runs."""
    wanted: dict[str, int]
    """Method -> number of runs in the study."""

    def values(self, method: str, stage: str, key: str, scale: float = 1) -> list[float]:
        """A metric of every finished run of a method, times `scale`."""
        return [scale * run.get(stage, key) for run in self.runs.get(method, [])]


def tables(layout: Layout, study: Study, *, split: str | None = None) -> str:
    """All tables as Markdown: accuracy, calibration errors, features, kernels, and what is missing.

    split: which split stands beside the sets out of distribution: by default test, in tasks without one validation.
    Cells without outputs are `-`; where only some repetitions are there, their number is said.
    """
    runs, missing = _runs(layout, study)
    rows = _rows(study, runs, split)
    methods = [name for name in study.methods if any(name in row.wanted for row in rows)]
    split_rows = [row for row in rows if row.name in SPLITS]
    judged = [row for row in rows if _rows_with([row], methods, "calibration")] or rows  # a study need not look at all

    def score(row: Row, method: str) -> str:
        return mean_sd([100 * run.score(row.name) for run in row.runs.get(method, [])], row.wanted.get(method, 0))

    def temperature(row: Row, method: str) -> str:
        return mean(row.values(method, "calibration", "temperature"))

    parts = [_grid("Accuracy, or the metric in brackets, in %: mean ± standard deviation over seeds", rows, methods,
                   score),
             _grid("Expected calibration error in %, before → after temperature scaling", judged, methods,
                   _error_cells("ece")),
             _grid("Maximum calibration error in %, before → after temperature scaling", judged, methods,
                   _error_cells("mce")),
             _grid("Temperature", [row for row in judged if row.name in SPLITS], methods, temperature),
             "**Features, first → kept checkpoint**\n\n"
             + _table_or_word(FEATURES, _feature_lines(rows, methods), "features"),
             "**Neural tangent kernel at the start of training**\n\n"
             + _table_or_word(KERNEL, _kernel_lines(split_rows, methods), "kernel"),
             LEGEND]
    if missing:
        omitted = [f"and {len(missing) - SHOWN:,} more"] if len(missing) > SHOWN else []
        parts.append("Missing:\n" + "\n".join(f"- {line}" for line in (*missing[:SHOWN], *omitted)))
    return "\n\n".join(parts) + "\n"


def _runs(layout: Layout, study: Study) -> tuple[dict[str, Run], list[str]]:
    """The finished trainings by name, and commands for what is missing."""
    runs, missing = {}, []
    places = {lens: set(study.looked.get(lens, {})) for lens in ("calibration", "features", "kernel")}
    for key, item in study.trajectories.items():
        folder = layout.run(item.model, item.task, item.method, item.seed)
        metrics = {stage: _metrics(folder / stage) for stage in STAGES if (folder / stage / "manifest.json").is_file()}
        if "trajectory" not in metrics:
            tuned = study.methods[item.method].settings == "tuned"
            missing.append(f"{key}: dvc repro {'train-tuned' if tuned else 'train'}@{key}")
            continue
        runs[key] = Run(item, str(read_manifest(folder / "trajectory").facts.get("metric", "accuracy")), metrics)
        stages = [*(["predictions"] if places["calibration"] | places["features"] >= {item.place} else []),
                  *(stage for stage in STAGES[2:] if item.place in places[stage])]
        if absent := [stage for stage in stages if stage not in metrics]:
            missing.append(f"{key}: dvc repro {' '.join(f'{stage}@{key}' for stage in absent)}")
    return runs, missing


def _metrics(folder: Path) -> dict[str, float]:
    path = checked_file(folder, "metrics.json")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise FinetraceError(f"{path}: cannot be read ({error}); delete {folder} and run its stage again") from error
    return {key: float(value) for key, value in content.items() if isinstance(value, int | float)}


def _rows(study: Study, runs: dict[str, Run], split: str | None) -> list[Row]:
    """Rows in the study's order: of each model and task its split, then its sets out of distribution."""
    several_models = len({item.model for item in study.trajectories.values()}) > 1
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for key, item in study.trajectories.items():
        groups.setdefault((item.model, item.task), {}).setdefault(item.method, []).append(key)
    rows = []
    for (model, task), keys in groups.items():
        finished = {method: [runs[key] for key in run_keys if key in runs] for method, run_keys in keys.items()}
        all_runs = [run for run_keys in finished.values() for run in run_keys]
        sets = set().union(*(run.sets() for run in all_runs))
        shown = split or ("test" if "test" in sets or not all_runs else "validation")
        metric = all_runs[0].metric if all_runs else "accuracy"
        label = (f"{task} in {model}" if several_models else task) + (f" ({metric})" if metric != "accuracy" else "")
        labels = {shown: label if shown == "test" else f"{label}, {shown}"}
        labels |= {name: f"{label} → {name}" for name in sorted(sets - set(SPLITS))}
        rows += [Row(text, name, finished, {method: len(run_keys) for method, run_keys in keys.items()})
                 for name, text in labels.items()]
    return rows


def _error_cells(key: str) -> Callable[[Row, str], str]:
    """The cells of a calibration error."""
    def cell(row: Row, method: str) -> str:
        return _pair([row.values(method, "calibration", f"{row.name}/{key}{scaled}", 100)
                      for scaled in ("", "_scaled")], ".2f")

    return cell


def _feature_lines(rows: Sequence[Row], methods: Sequence[str]) -> list[list[str]]:
    lines = []
    for row, method in _rows_with(rows, methods, "features"):
        ratio = [row.values(method, "features", f"{row.name}/fdr/{when}") for when in ENDS]
        ridge = not all(math.isfinite(value) for side in ratio for value in side)
        if ridge:
            ratio = [row.values(method, "features", f"{row.name}/fdr_ridge/{when}") for when in ENDS]
        lines.append([row.label, method,
                      _pair([row.values(method, "features", f"{row.name}/cosine/{when}") for when in ENDS], ".3f"),
                      mean(row.values(method, "features", f"{row.name}/diff"), ".3g"),
                      _pair(ratio, ".3g", "*" if ridge else ""),
                      _pair([row.values(method, "features", f"head_norm/{when}") for when in ENDS], ".3g")])
    return lines


def _kernel_lines(rows: Sequence[Row], methods: Sequence[str]) -> list[list[str]]:
    """A line per part; the kernel has rows of its own, so that the split that is shown does not matter."""
    lines = []
    for row, method in _rows_with(rows, methods, "kernel"):
        for short, part in PARTS.items():
            accuracies = [[mean(row.values(method, "kernel", f"{part}/{kind}_{side}/first", 100))
                           for side in ("train", "eval")]
                          for kind in ("accuracy_flat", "accuracy")]
            lines.append([row.label.removesuffix(f", {row.name}"), method, short,
                          mean(row.values(method, "kernel", f"{part}/rank/first"), ".0f"),
                          mean(row.values(method, "kernel", f"{part}/frobenius_norm/first"), ".3g"),
                          *(" / ".join(pair) for pair in accuracies),
                          mean(row.values(method, "kernel", "ft_ratio/first"), ".4f") if part == "full" else ""])
    return lines


def _table_or_word(header: Sequence[str], lines: Sequence[Sequence[str]], lens: str) -> str:
    return markdown.table(header, lines) if lines else f"The lens {lens} has looked at none of these trainings."


def _rows_with(rows: Sequence[Row], methods: Sequence[str], stage: str) -> list[tuple[Row, str]]:
    """The rows and methods of which a stage has run."""
    return [(row, method) for row in rows for method in methods
            if any(stage in run.metrics for run in row.runs.get(method, []))]


def _pair(sides: Sequence[Sequence[float]], form: str, mark: str = "") -> str:
    """`before → after` and a mark; NONE where nothing is known."""
    texts = [mean(values, form) for values in sides]
    return NONE if set(texts) == {NONE} else " → ".join(texts) + mark


def _grid(heading: str, rows: Sequence[Row], methods: Sequence[str], cell: Callable[[Row, str], str]) -> str:
    """A table with a row per set and a column per method."""
    body = [[row.label, *(cell(row, method) for method in methods)] for row in rows]
    return f"**{heading}**\n\n{markdown.table(('data', *methods), body)}"

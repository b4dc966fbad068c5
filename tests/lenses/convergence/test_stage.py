"""The stage convergence on synthetic tables of geometry and probes: what it writes, draws and refuses."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hidden_outputs import NAME, PLACE, check_redrawn, finished, run_main, stage_output
from tests.stages import ask, of_run

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.convergence.settings import ConvergenceSettings
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.manifest import complete
from finetrace.store.tables import read_table, write_table

QUICK: dict[str, Any] = {"draws": 200, "permutations": 200, "split": "validation"}


def lens_folder(root: Path, lens: str, columns: dict[str, list]) -> None:
    shutil.rmtree(root / lens, ignore_errors=True)
    write_table(root / lens / "table.parquet", columns)
    complete(root / lens, finished(lens))


def link_stage(root: Path, *, layers: int = 5, probed: int | None = None, **settings: Any) -> Stage:
    """A stage convergence@NAME on tables in which accuracy grows with the change of the cosine."""
    layout = Layout(root, root)
    folder = layout.place(PLACE)
    steps, probed = (0, 8, 64), layers if probed is None else probed
    grid = [(s, l) for s in steps for l in range(layers)]
    lens_folder(folder, "geometry", {
        "step": [s for s, _ in grid] * 2, "layer": [l for _, l in grid] * 2,
        "statistic": ["cosine_mean"] * len(grid) + ["effective_rank"] * len(grid),
        "value": [0.1 + s * l / 1000 for s, l in grid] + [7.0] * len(grid)}
        | dict.fromkeys(("low", "high"), [np.nan] * 2 * len(grid)))
    grid = [(s, l) for s in steps for l in range(layers - probed, layers)]
    parts = [(split, seed) for split in ("validation", "train") for seed in (1, 2)]
    lens_folder(folder, "probes", {
        "step": [s for _ in parts for s, _ in grid], "layer": [l for _ in parts for _, l in grid],
        "statistic": ["accuracy"] * len(grid) * len(parts), "split": [split for split, _ in parts for _ in grid],
        "value": [0.5 + s * l / 2000 + seed / 100 if split == "validation" else 1.0 for split, seed in parts
                  for s, l in grid]}
        | dict.fromkeys(("low", "high"), [np.nan] * len(grid) * len(parts)))
    return asked(layout, **settings)


def asked(layout: Layout, **settings: Any) -> Stage:
    """The stage with these settings, its inputs as they are."""
    ask(layout.root, "convergence", NAME, **of_run(PLACE, convergence=asdict(ConvergenceSettings(**QUICK | settings))))
    return open_stage("convergence", NAME, layout)


def rows(stage: Stage, **where: Any) -> list[dict[str, Any]]:
    table = read_table(stage_output(stage) / "table.parquet").to_pylist()
    return [row for row in table if all(row[key] == value for key, value in where.items())]


def test_the_stage_joins_both_lenses_and_writes_correlations(tmp_path: Path) -> None:
    stage = link_stage(tmp_path)
    run_main(stage, figures=True)
    metrics = json.loads((stage_output(stage) / "metrics.json").read_text())
    assert metrics["spearman/change/last"] == 1 and metrics["pearson/change/last"] == pytest.approx(1)
    assert metrics["spearman/change/last/p"] == pytest.approx(2 / 120) and metrics["layers"] == 5
    assert metrics["spearman/level/all"] == pytest.approx(1)
    assert "spearman/level/last/low" in metrics
    found = rows(stage, statistic="spearman", of="change", over="layers")
    assert [(r["step"], r["layer"], r["n"], r["value"]) for r in found] == [(8, -1, 5, 1), (64, -1, 5, 1)]
    assert {(r["step"], r["layer"]) for r in rows(stage, over="checkpoints")} == {(-1, l) for l in range(5)}
    assert all(np.isnan(r["value"]) and r["clusters"] == 3
               for r in rows(stage, over="checkpoints"))  # three are too few
    assert {r["split"] for r in rows(stage)} == {"validation"}
    lines = (stage_output(stage) / "curves.csv").read_text().splitlines()
    assert lines[0] == "step,spearman_level,spearman_change,pearson_level,pearson_change"
    assert lines[1].startswith("0,") and lines[3].startswith("64,1.0,1.0,")
    assert (stage_output(stage) / "figures" / "convergence.png").read_bytes()[:4] == b"\x89PNG"


def test_figures_are_drawn_from_the_stored_measurement(tmp_path: Path) -> None:
    stage = link_stage(tmp_path)
    check_redrawn(stage, stage_output(stage), "finetrace.lenses.convergence.correlation.links")


def test_only_shared_layers_are_joined_and_few_layers_give_counts_without_numbers(tmp_path: Path) -> None:
    stage = link_stage(tmp_path, probed=3)
    run_main(stage, figures=True)
    metrics = json.loads((stage_output(stage) / "metrics.json").read_text())
    assert metrics == {"layers": 3, "checkpoints": 3}
    assert {r["n"] for r in rows(stage, over="layers")} == {3}
    assert (stage_output(stage) / "figures" / "convergence.png").is_file()


def test_lenses_without_common_ground_or_statistics_are_refused(tmp_path: Path) -> None:
    stage = link_stage(tmp_path)
    folder = stage_output(stage).parent
    table = read_table(folder / "geometry" / "table.parquet").to_pydict()
    lens_folder(folder, "geometry", table | {"step": [s + 1 for s in table["step"]]})
    with pytest.raises(FinetraceError, match=r"share no checkpoint and layer; let probes.layers name layers"):
        run_main(stage)
    lens_folder(folder, "geometry", {k: v[1:] for k, v in table.items()})
    with pytest.raises(FinetraceError, match="step 0 layer 0 is missing in one of them"):
        run_main(stage)
    lens_folder(folder, "geometry", table | {"value": [np.nan] * 30})
    with pytest.raises(FinetraceError, match="NaN or infinity; run both stages again"):
        run_main(stage)
    lens_folder(folder, "geometry", table)
    for settings, message in (({"cosine": "cos"},
                               r"no 'cos' \(params.yaml: convergence.cosine\); it has cosine_mean, eff"),
                              ({"split": "test"}, r"no 'accuracy' of the split 'test' .*it has train, validation")):
        with pytest.raises(FinetraceError, match=message):
            run_main(asked(stage.layout, **settings))
    assert not stage_output(stage).exists()
    with pytest.raises(ValueError, match="draws: 5 are too few"):
        ConvergenceSettings(draws=5)

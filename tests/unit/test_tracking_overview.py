"""What makes MLflow's list readable: headline metrics on the run of a training, runs of cells."""

from pathlib import Path

import pytest
from tests.outputs import make_project

from finetrace.store.files import write_json
from finetrace.store.manifest import complete, read_manifest
from finetrace.tracking.collect import collect
from finetrace.tracking.overview import links


def test_a_training_carries_the_headline_metrics_of_its_lenses(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, lenses=("infodynamics", "geometry"))
    folder = layout.place("micro-a/micro-sentiment/ft/s1") / "geometry"
    write_json(folder / "metrics.json", {"effective_rank/layer-03/last": 5, "effective_rank/layer-12/last": 7,
                                         "cosine_mean/layer-12/last": None,
                                         "cosine_mean/layer-12/first": 1e999, "slope": 1})
    complete(folder, read_manifest(folder, verify=False))
    records = {record.name: record for record in collect(layout, study).records}
    assert records["micro-a_micro-sentiment_ft_s1"].headlines == {"geometry/rank after": 7.0,
                                                                  "infodynamics/slope": 0.5}
    assert not records["geometry@micro-a_micro-sentiment_ft_s1"].headlines


def test_a_cell_has_mean_spread_and_number_of_what_every_seed_has(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, tasks=("micro-sentiment", "micro-nli"))
    for seed, accuracy in ((1, 0.75), (2, 0.5)):
        folder = layout.run("micro-a", "micro-nli", "ft", seed) / "trajectory"
        write_json(folder / "metrics.json", {"validation/accuracy": accuracy, f"only/{seed}": 1.0})
        complete(folder, read_manifest(folder, verify=False))
    (layout.run("micro-a", "micro-sentiment", "ft", 2) / "trajectory" / "manifest.json").unlink()
    found = collect(layout, study)
    (cell,) = [record for record in found.records if record.kind == "cell"]
    members = [record for record in found.records if record.kind == "trajectory" and "nli" in record.name]
    assert cell.members == tuple(record.identity for record in members) and cell.name == "micro-a_micro-nli_ft_cell"
    assert cell.shown == "mean nli micro-a ft"
    content = cell.load()
    assert content.finals["final/validation/accuracy"] == 0.625 and content.finals["n"] == 2
    assert content.finals["final/validation/accuracy/sd"] == pytest.approx(0.1767766952966369)
    assert content.finals["infodynamics/slope"] == 0.5 and content.finals["infodynamics/slope/sd"] == 0
    assert not [name for name in content.finals if name.startswith(("only", "cost"))]
    assert content.params == {"model": "micro-a", "task": "micro-nli", "method": "ft", "seeds": "1, 2"}


def test_a_cell_names_its_runs() -> None:
    (text,) = links({"one": "id-1", "two": "id-2"}, ("one", "two"), "7").values()
    assert "[run 1](#/experiments/7/runs/id-1)" in text and "runs/id-2" in text

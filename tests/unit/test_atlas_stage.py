"""The stage atlas, on a synthetic study: which files it writes, and what they say."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from tests.atlas_pages import study_of, unpack
from tests.outputs import make_lens, make_project
from tests.stages import ask, stage_of

from finetrace.atlas.bundle import inside
from finetrace.atlas.site import _reports
from finetrace.atlas.stage import main
from finetrace.layout import Layout
from finetrace.pipeline.stage import Stage
from finetrace.store.files import write_json
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table
from finetrace.study import load_study
from finetrace.study.plan import last_settings

RUNS = ("micro-a_micro-sentiment_ft_s1", "micro-a_micro-sentiment_ft_s2")


def change(folder: Path, facts: dict[str, object], metrics: dict[str, float] | None = None) -> None:
    """Give a finished folder other facts and metrics."""
    changed = replace(read_manifest(folder), facts=facts)
    if metrics is not None:
        write_json(folder / "metrics.json", metrics)
    complete(folder, changed)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The atlas of two fine-tunings, one of them seen by the lens hulls, and of a pre-training seen by edges."""
    layout, study = make_project(tmp_path_factory.mktemp("project"), atlas=False)
    content = yaml.safe_load(layout.params.read_text())
    content["tasks"]["micro-pos"] = {"source": "micro"}
    look = {"hulls": "micro-a/micro-sentiment/ft/s1", "edges": "micro-a/pretrain"}
    layout.params.write_text(yaml.safe_dump(content | {"look": look, "edges": {"tasks": ["micro-pos"]}}))
    change(layout.task("micro-sentiment"), {"rows": {"validation": 200}, "majority_accuracy": 0.5})
    for key, run in study.trajectories.items():
        facts = {"metric": "accuracy", "steps": 1200, "parameters": 12_345}
        accuracy = {RUNS[0]: 0.75, RUNS[1]: 0.5}[key]
        change(layout.place(run.place) / "trajectory", facts, {"validation/accuracy": accuracy, "steps": 1200})
    hulls, edges = {"clusters/layer-02/last": 4, "undecided": 0}, {"a/f1/full/last": 0.5, "b/f1/full/last": 1.0}
    looks = ("micro-a/micro-sentiment/ft/s1", "hulls", hulls), ("micro-a/pretrain", "edges", edges)
    for place, lens, metrics in looks:
        make_lens(layout.place(place) / lens, lens, place, 100)
        change(layout.place(place) / lens, {}, metrics)
    ask(layout.root, "atlas", **last_settings(load_study(layout.params))["atlas"])
    main(stage_of(layout.root, "atlas"))
    return layout


def test_every_trajectory_has_a_page_with_its_figures(layout: Layout) -> None:
    names = {path.stem for path in (layout.atlas / "runs").iterdir()}
    assert names == {*RUNS, "micro-a_pretrain"}
    text = (layout.atlas / f"runs/{RUNS[0]}.html").read_text("utf-8")
    assert '<h2 id="hulls">hulls</h2>' in text and "1,200 steps, 12,345 parameters; validation accuracy 0.750." in text
    addresses = re.findall(r'(?:img src|a href)="([^"]+)"', text)
    assert len(addresses) == 2 and all((layout.atlas / "runs" / address).is_file() for address in addresses)


def test_the_page_knows_the_study(layout: Layout) -> None:
    study, text = study_of(layout.atlas), (layout.atlas / "index.html").read_text("utf-8")
    assert "2 trajectories of 1 models on 1 tasks, 1 masked-word trainings." in study["intro"]
    first, second, masked = study["places"]
    assert [one["name"] for one in study["places"]] == [*(run.replace("_", "/") for run in RUNS), "micro-a/pretrain"]
    assert first["numbers"]["trajectory/validation/metric"] == 0.75 and second["numbers"]["trajectory/steps"] == 1200
    assert first["numbers"]["hulls/clusters/layer-*/last"] == 4 and masked["numbers"]["edges/mean_f1/last"] == 0.75
    assert study["baselines"] == {"micro-sentiment": {"majority": 0.5}} and study["beside"] == {}
    assert [heading for heading in (one["heading"] for one in study["reports"]) if "closer-look" in heading]
    addresses = [place["page"] for place in study["places"]] + [address for address, _ in study["figures"]]
    addresses += re.findall(r'<a href="(runs/[^"]+)"', text)
    assert len(addresses) >= 7 and all((layout.atlas / address).is_file() for address in addresses)


def test_the_page_holds_the_table(layout: Layout) -> None:
    """Lens by lens the same numbers as table.parquet, in its order."""
    text = (layout.atlas / "index.html").read_text("utf-8")
    table = read_table(layout.atlas / "table.parquet").to_pandas()
    parts = dict(re.findall(r'id="part:table/([^"]+)">([^<]+)</script>', text))
    assert list(parts) == table["lens"].unique().tolist()
    for lens, packed in parts.items():
        columns, _ = unpack(packed)
        np.testing.assert_array_equal(columns["value"], table[table.lens == lens]["value"].to_numpy(np.float32))


def test_leads_and_maps_are_there(layout: Layout) -> None:
    names = {path.stem for path in (layout.atlas / "courses").iterdir()}
    assert names == {"signals", "leads", "maps", "phases", "turns"}
    leads = read_table(layout.atlas / "courses/leads.parquet").to_pandas()
    assert set(leads["cell"]) == {"micro-a/micro-sentiment/ft", "micro-a/pretrain"}
    assert set(leads["verdict"]) == {"undecided"}  # two seeds


def test_numbers_for_dvc_and_the_long_table(layout: Layout) -> None:
    metrics = {path.stem: json.loads(path.read_text()) for path in (layout.atlas / "metrics").iterdir()}
    assert metrics == {RUNS[0]: {"accuracy": 0.75, "clusters": 4}, RUNS[1]: {"accuracy": 0.5},
                       "micro-a_pretrain": {"accuracy": 0.91, "words": 0.75}}
    table = read_table(layout.atlas / "table.parquet").to_pylist()
    assert {row["place"] for row in table} == {name.replace("_", "/") for name in RUNS} | {"micro-a/pretrain"}
    assert [row["value"] for row in table if row["quantity"] == "clusters/layer-02/last"] == [4]


def test_its_inputs_are_what_it_shows(layout: Layout) -> None:
    run = "outputs/micro-a/micro-sentiment/ft/s"
    assert set(read_manifest(layout.atlas).inputs) == {
        f"{run}1/trajectory", f"{run}1/hulls", f"{run}2/trajectory", "outputs/micro-a/pretrain/trajectory",
        "outputs/micro-a/pretrain/edges"}


def test_what_is_too_large_lies_beside_the_page(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetrace.atlas.site.inside", lambda parts: inside(parts, 0))
    shutil.rmtree(layout.atlas)
    main(stage_of(layout.root, "atlas"))
    beside = study_of(layout.atlas)["beside"]
    assert set(beside) >= {"table/trajectory", "table/hulls", "courses/signals"}
    for name, address in beside.items():
        said = (layout.atlas / address).read_text("utf-8")
        function, packed = re.fullmatch(r"(finetrace\.part\(.*), \"([A-Za-z0-9+/=]*)\"\);\n", said).groups()
        assert function == f"finetrace.part({json.dumps(name)}" and unpack(packed)[1]["rows"] >= 0
    assert {path.relative_to(layout.atlas).as_posix() for path in (layout.atlas / "parts").iterdir()} == set(
        beside.values())


def test_tables_about_fine_tunings_are_left_out_of_a_study_without_any(tmp_path: Path) -> None:
    params: dict[str, Any] = {
        "study": {"name": "x"}, "models": {"m": {"id": "org/m"}}, "tasks": {"t": {"source": "micro"}},
        "series": {"s": {"model": "m", "tasks": ["t"], "head": "t"}}, "look": {"layers, answers, kernel": "all"}}
    made = SimpleNamespace(layout=Layout(tmp_path, tmp_path), asked={"params": params})
    assert list(_reports(cast(Stage, made))) == []
    params["runs"] = [{"model": "m", "task": "t"}]
    assert len(list(_reports(cast(Stage, made)))) == 2

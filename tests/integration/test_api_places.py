"""`finetrace.open` of places of every kind: pre-training, adaptation, series, given checkpoints, fine-tuning, trace."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.given_checkpoints import adapter_folders, trainer_folder
from tests.hidden_outputs import finished
from tests.integration.test_given import STUDY, complete_folder, looked_up, project, run
from tests.integration.test_trace import train_rows
from tests.outputs import fresh, history, make_training
from tests.stages import ask_study
from tests.training_fixtures import model_folder

import finetrace as ft
from finetrace.store.checkpoints import mark
from finetrace.store.files import write_json
from finetrace.store.manifest import complete
from finetrace.store.tables import write_table


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one place of each kind."""
    torch.set_num_threads(1)
    root = project(tmp_path_factory.mktemp("places"))
    trainer_folder(root / "runs/mine")
    complete_folder(model_folder(root / "models/plain"), "model")
    adapter_folders(root / "runs/lora", root / "models/plain", (3, 9))
    train_rows(root / "runs/traced", root / "out", max_steps=2)
    ask_study(root, STUDY | {
        "series": {"mine": {"path": "runs/mine", "tasks": ["tiny"], "head": "tiny"},
                   "lora": {"path": "runs/lora", "tasks": ["tiny"]}},
        "comparisons": {}, "look": {"geometry": "mine/**"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("mine", "lora"):
            looked_up(root, name)
        for stage in ("hidden", "geometry"):
            run(root, stage, "mine_tiny_given_s1")
    for place in ("small/pretrain", "small-reviews/adapt", "small/tiny/ft/s1"):
        folder = root / "outputs" / place / "trajectory"
        make_training(folder, "train", place.replace("/", "_"), 8, {})
        folder = fresh(folder)
        mark(model_folder(folder / "checkpoints/step-00000008"), 8)
        write_table(folder / "history.parquet", history(8))
        write_json(folder / "metrics.json", {"validation/loss": 0.5})
        complete(folder, finished("trajectory", steps=8, model="small"))
    return root


@pytest.fixture(autouse=True)
def inside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


@pytest.mark.parametrize("place", ["small/pretrain", "small-reviews/adapt", "small/tiny/ft/s1"])
def test_a_training_of_a_study(place: str) -> None:
    found = ft.open(f"outputs/{place}")
    assert found.steps == [8] and found.checkpoint(8).name == "step-00000008" and len(found.history()) > 8
    assert found.metrics("trajectory") == {"validation/loss": 0.5} and found.lenses == []
    assert repr(found) == f"Trajectory('outputs/{place}': 1 checkpoints, lenses )"
    with pytest.raises(ft.FinetraceError, match=r"has no signals, which only a training records; its tables: history"):
        found.signals()
    with pytest.raises(ft.FinetraceError, match=r"hidden"):
        found.hidden(8, 0)


def test_a_series_says_where_its_checkpoints_lie() -> None:
    found = ft.open("outputs/mine/pretrain")
    assert found.steps == [2, 4] and found.checkpoint(4) == Path("runs/mine/checkpoint-4")
    assert ft.hidden_states(found.checkpoint(2), ["good1 plain2"]).cls.shape == (3, 1, 16)
    for name in ("history", "signals"):
        with pytest.raises(ft.FinetraceError, match=f"has no {name}, which only a training records; its tables: none"):
            getattr(found, name)()
    with pytest.raises(ft.FinetraceError, match="step 3 was not recorded; there are 2, 4"):
        found.checkpoint(3)


def test_given_checkpoints_have_what_lenses_made_of_them() -> None:
    found = ft.open("outputs/mine/tiny/given/s1")
    assert (found.steps, found.label_names, found.lenses) == ([2, 4], ["negative", "positive"], ["geometry"])
    assert found.checkpoint(2) == Path("runs/mine/checkpoint-2") and len(found.history()) == 0
    assert found.hidden(4, -1).shape[1] == 16 and not np.array_equal(found.hidden(2, -1), found.hidden(4, -1))
    assert found.table("geometry").grid(statistic="effective_rank").shape[0] == 2
    assert found.metrics("geometry") and found.metrics("trajectory")["checkpoints"] == 2
    with pytest.raises(ft.FinetraceError, match=r"has no signals, which only a training records"):
        found.signals()


def test_adapters_and_models_of_the_hub_are_no_folder(root: Path) -> None:
    told = r"step 9: runs/lora/checkpoint-9 changes .*models/plain; save both"
    for place in ("outputs/lora/pretrain", "outputs/lora/tiny/given/s1"):
        with pytest.raises(ft.FinetraceError, match=told):
            ft.open(place).checkpoint(9)
    path = root / "outputs/hub/pretrain/trajectory"
    path.mkdir(parents=True)
    source = {"id": "lab/x", "revision": "c0ffee", "sha256": {}}
    (path / "series.json").write_text(json.dumps({"keep": True, "checkpoints": {"0": source}}))
    complete(path, finished("trajectory"))
    with pytest.raises(ft.FinetraceError, match=r"step 0: lab/x at c0ffee lies on the hub; hidden_states takes its id"):
        ft.open("outputs/hub/pretrain").checkpoint(0)


def test_a_trace_is_opened_where_it_lies() -> None:
    found = ft.open("runs/traced")
    assert found.steps == [0, 1, 2] and found.lenses == [] and found.checkpoint(2).name == "step-00000002"
    assert set(found.signals(["step"])["step"]) == {0, 1} and len(found.history()) == 2
    assert found.metrics("trajectory")["steps"] == 2 and len(found.label_names) == 2
    assert ft.hidden_states(found.checkpoint(2), ["good1 plain2"]).words[0] == ["[CLS]", "good1", "plain2", "[SEP]"]
    with pytest.raises(ft.FinetraceError, match="no lens 'geometry' has looked"):
        found.table("geometry")

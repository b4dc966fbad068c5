"""The Python API on a project's outputs, and the tutorial, whose blocks run one after the other."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.first_looks import classifier_folder
from tests.hidden_outputs import make_hidden
from tests.outputs import fresh, history, make_training, manifest
from tests.prediction_outputs import make_predictions

import finetrace as ft
from finetrace.store.checkpoints import mark
from finetrace.store.files import write_json
from finetrace.store.manifest import complete
from finetrace.store.tables import fixed_lists, write_table

PLACE = "outputs/micro-a/micro-sentiment/ft/s1"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a study left of one training: three checkpoints, hidden states, predictions, the lens geometry."""
    root = tmp_path_factory.mktemp("project")
    run = root / PLACE
    make_training(run / "trajectory", "train", "micro-a_micro-sentiment_ft_s1", 64, {})
    folder = fresh(run / "trajectory")
    for step in (0, 8, 64):
        mark(classifier_folder(folder / "checkpoints" / f"step-{step:08d}", seed=step), step)
    write_table(folder / "history.parquet", history(64))
    write_table(folder / "signals.parquet", {
        "step": [0, 0, 1, 1], "micro_step": [0] * 4, "position": [0, 1, 0, 1], "example_id": [0, 1, 0, 1],
        "label": [0, 1, 0, 1], "logits": fixed_lists(np.zeros((4, 2))), "loss": [0.7, 0.8, 0.6, 0.9]})
    write_json(folder / "metrics.json", {"validation/accuracy": 0.9})
    made = manifest("trajectory", "train", "x", {})
    made.facts = {"label_names": ["class-0", "class-1"], "steps": 64}
    complete(folder, made)
    make_hidden(run / "hidden")
    make_predictions(run / "predictions")
    lens = fresh(run / "geometry")
    places = [(step, layer) for step in (0, 8, 64) for layer in range(3)]
    write_table(lens / "table.parquet", {
        "step": [step for step, _ in places] * 2, "layer": [layer for _, layer in places] * 2,
        "statistic": ["effective_rank"] * 9 + ["cosine_mean"] * 9, "value": np.arange(18.0), "low": np.arange(18.0) - 1,
        "high": np.arange(18.0) + 1})
    write_json(lens / "metrics.json", {"effective_rank/layer-02/last": 8.0})
    complete(lens, manifest("lens", "geometry", "x"))
    return root


def test_a_trajectory_says_what_its_files_hold(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    found = ft.open(PLACE)
    assert (found.steps, found.lenses, found.label_names) == ([0, 8, 64], ["geometry"], ["class-0", "class-1"])
    assert repr(found) == f"Trajectory('{PLACE}': 3 checkpoints, lenses geometry)"
    assert found.checkpoint(8).name == "step-00000008"
    assert list(found.signals(["loss"])["loss"]) == [0.7, 0.8, 0.6, 0.9]
    assert found.signals()["logits"][0].tolist() == [0, 0] and len(found.history()) > 64
    states = found.hidden(64, -1)
    assert states.shape == (80, 16) and np.array_equal(states, found.states.vectors(64)[2])
    assert not np.array_equal(states, found.hidden(64, -1, "mean"))
    rows = found.hidden_rows()
    assert list(rows["split"][[0, 79]]) == ["train", "validation"] and len(rows) == 80
    answers = found.predictions(64, "far")
    assert list(answers) == ["example_id", "label", "predicted", "logit/class-0", "logit/class-1"]
    assert len(answers) == 70
    assert ((answers["logit/class-1"] > answers["logit/class-0"]) == (answers["predicted"] == 1)).all()
    assert found.table("geometry").grid(statistic="effective_rank")[2, 1].tolist() == [7, 6, 8]
    assert found.metrics("geometry") == {"effective_rank/layer-02/last": 8.0}


def test_what_is_not_there_is_said_with_what_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    found = ft.open(PLACE)
    for call, words in (
            (lambda: ft.open("outputs/micro-b"), f"there are {PLACE}"),
            (lambda: ft.open("nothing"), f"there are {PLACE}"),
            (lambda: found.table("hulls"), "no lens 'hulls' has looked; there are geometry"),
            (lambda: found.hidden(1, 0), "has no step 1; it has 0, 8, 64"),
            (lambda: found.hidden(0, 3), "has no layer 3; it has 0 (embeddings) to 2"),
            (lambda: found.predictions(0, "near"), "has no set 'near'"),
            (lambda: found.checkpoint(3), "step 3 was not recorded; there are 0, 8, 64"),
            (lambda: ft.hidden_states(found.checkpoint(0), []), "give a list of one or more texts"),
            (lambda: found.history(["losses"]), "history: has no column 'losses'; it has step"),
            (lambda: found.history("loss"), "history: 'loss' is no list of its columns; they are step"),
            (lambda: ft.hidden_states(found.checkpoint(0), "good1"), "give a list of one or more texts"),
            (lambda: ft.hidden_states(found.checkpoint(0), ["good1", "\ud800"]), "number 1 holds half of a character"),
            (lambda: ft.hidden_states(found.checkpoint(0), ["good1"], max_length=-5), "max_length: -5 is no number"),
            (lambda: ft.hidden_states(None, ["good1"]), "model: None is neither a folder nor a hub id")):
        with pytest.raises(ft.FinetraceError, match=re.escape(words)):
            call()


def test_folders_that_are_nearly_models(project: Path, tmp_path: Path) -> None:
    """What a Trainer, PEFT and an unfinished trace leave is named, with what to do."""
    (tmp_path / "out/checkpoint-7").mkdir(parents=True)
    (tmp_path / "out/checkpoint-7/adapter_config.json").write_text("{}")
    (tmp_path / "traced/unfinished").mkdir(parents=True)
    for call, words in (
            (lambda: ft.hidden_states(tmp_path / "out", ["a"]), "name one of them, such as .*checkpoint-7"),
            (lambda: ft.hidden_states(tmp_path / "out/checkpoint-7", ["a"]), "holds adapters of PEFT without"),
            (lambda: ft.open(tmp_path / "traced"), "a training that has not ended")):
        with pytest.raises(ft.FinetraceError, match=words):
            call()


def test_texts_may_be_any_sequence(project: Path) -> None:
    folder, texts = ft.open(project / PLACE).checkpoint(64), ["good1", "bad3"]
    expected = ft.hidden_states(folder, texts).cls
    for given in (np.array(texts), pd.Series(texts), (text for text in texts)):
        np.testing.assert_array_equal(ft.hidden_states(folder, given).cls, expected)


def test_a_damaged_table_is_refused(project: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(project / "outputs", tmp_path / "outputs")
    path = tmp_path / PLACE / "geometry/table.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ft.FinetraceError, match=r"table\.parquet"):
        ft.open(tmp_path / PLACE).table("geometry")


def test_states_of_texts_are_those_of_the_model(project: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = ft.open(project / PLACE).checkpoint(64)
    texts = ["good1 plain2", "bad3", "plain1 plain2 plain3 good1"]
    states = ft.hidden_states(folder, texts)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for number, text in enumerate(texts):
        with torch.no_grad():
            found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        theirs = torch.cat(found).numpy()
        np.testing.assert_allclose(states.tokens[number], theirs, atol=1e-6)
        np.testing.assert_allclose(states.cls[:, number], theirs[:, 0], atol=1e-6)
        np.testing.assert_allclose(states.mean[:, number], theirs.mean(axis=1), atol=1e-6)
    assert states.words[1] == ["[CLS]", "bad3", "[SEP]"] and states.cls.dtype == np.float32


def test_the_blocks_of_the_tutorial_run_one_after_the_other(project: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)
    text = (ROOT / "docs/tutorial.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    assert len(blocks) >= 10
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/tutorial.md, block {number + 1}", "exec"), names)
    assert "no lens 'geometri' has looked; there are geometry" in capsys.readouterr().out
    assert len(names["by_layer"]) == 3 and names["by_layer"][2][1] > names["by_layer"][2][0] + 1  # type: ignore[arg-type,index]

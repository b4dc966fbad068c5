"""Checkpoints that were made elsewhere, looked at with a task: found, recognised, and read as transformers reads
them."""

import gc
import importlib
import json
import runpy
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.atlas_pages import study_of
from tests.given_checkpoints import LABELS, adapter_folders, classifier, saved_folders, trainer_folder
from tests.pictures import sketch
from tests.stages import ask_study, stage_of
from tests.training_fixtures import bert_config, model_folder, recording, settings, task_folder, tokenizer
from tests.word_tasks import word_task_folder

from finetrace.config.series import SeriesSettings
from finetrace.errors import FinetraceError
from finetrace.inference import trajectory as extraction
from finetrace.models.given import load_trained, load_trained_encoder
from finetrace.models.series import resolve_series
from finetrace.models.timeline import open_timeline
from finetrace.store.checkpoints import list_weights
from finetrace.store.hidden import read_hidden
from finetrace.store.manifest import Manifest, complete, read_manifest
from finetrace.store.tables import read_table

ROOT = Path(__file__).parents[2]
PLACE = "mine/tiny/given/s1"
LENSES = ("geometry", "probes", "calibration", "kernel")
OF_ONE = ("geometry", "similarity")
"""Those that look at the single model."""
STUDY: dict[str, Any] = {
    "study": {"name": "given"},
    "tasks": {"tiny": {"source": "micro", "config": "micro-sentiment"}},
    "models": {"plain": {"id": "lab/plain"}},
    "series": {"mine": {"path": "runs/mine", "tasks": ["tiny"], "head": "tiny"},
               "before": {"model": "plain", "tasks": "tiny"}},
    "look": {"geometry, probes, calibration, kernel": PLACE, "geometry,similarity": "before/**/s1"},
    "comparisons": {"both": {"first": "before/tiny/given/s1", "second": PLACE}},
    "train": {"max_length": 16},
    "hidden": {"rows": {"train": 40, "validation": 24}, "token_rows": {"validation": 8}, "dtype": "float32"},
    "kernel": {"rows": {"train": 6, "eval": 6}},
}


def run(root: Path, stage: str, item: str = "") -> None:
    """One stage item in this process, in a project at `root`."""
    name = stage.replace("-", "_")
    if (ROOT / f"src/finetrace/lenses/{name}/stage.py").is_file():
        main = importlib.import_module(f"finetrace.lenses.{name}.stage").main
    else:
        main = runpy.run_path(str(ROOT / f"pipelines/{name}.py"), run_name=name)["main"]
    main(stage_of(root, stage, item))


def project(root: Path) -> Path:
    """A project with the data of a task, and no model yet."""
    task_folder(root / "data/tiny")
    complete_folder(root / "data/tiny/ood", "data")
    return root


def complete_folder(folder: Path, kind: str, **facts: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    complete(folder, Manifest(kind, kind, folder.name, "0", {}, {}, {}, facts), started=0.0)
    return folder


def looked_up(root: Path, name: str = "mine", task: str = "tiny") -> Path:
    """Run series and given; the trajectory's folder."""
    run(root, "series", name)
    run(root, "given", f"{name}_{task}_given_s1")
    return root / f"outputs/{name}/{task}/given/s1/trajectory"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose study has run: a Trainer's folder with the task's head, and a model before its training."""
    torch.set_num_threads(1)
    root = project(tmp_path_factory.mktemp("given"))
    trainer_folder(root / "runs/mine")
    complete_folder(model_folder(root / "models/plain"), "model")
    ask_study(root, STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("finetrace.figures.style.to_png", sketch)
        for name in STUDY["series"]:
            looked_up(root, name)
            run(root, "hidden", f"{name}_tiny_given_s1")
        run(root, "predictions", "mine_tiny_given_s1")
        for name, lenses in {"mine": LENSES, "before": OF_ONE}.items():
            for lens in lenses:
                run(root, lens, f"{name}_tiny_given_s1")
        run(root, "comparison", "both")
        run(root, "atlas")
    return root


def batch(table: Any) -> Any:
    return tokenizer()(table["text_a"].to_pylist(), truncation=True, max_length=16, padding=True, return_tensors="pt")


def chosen(root: Path, hidden: Any, split: str) -> Any:
    """Rows of the task in the order of the hidden states."""
    table, rows = read_table(root / f"data/tiny/{split}.parquet"), hidden.rows(split)
    ids = table["example_id"].to_pylist()
    return rows, table.take([ids.index(one) for one in hidden.example_ids[rows].tolist()])


def test_hidden_states_are_those_of_transformers(done: Path) -> None:
    from transformers import AutoModel

    hidden = read_hidden(done / f"outputs/{PLACE}/hidden")
    assert hidden.steps == [2, 4]
    for step in hidden.steps:
        model = AutoModel.from_pretrained(done / f"runs/mine/checkpoint-{step}").eval()
        for split in ("train", "validation"):
            rows, table = chosen(done, hidden, split)
            with torch.no_grad():
                layers = model(**batch(table), output_hidden_states=True).hidden_states
            for layer, values in enumerate(layers):
                np.testing.assert_allclose(hidden.vectors(step)[layer][rows], values[:, 0].numpy(), atol=1e-5)


def test_logits_are_those_of_transformers_in_the_order_of_the_task(done: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = done / f"outputs/{PLACE}/predictions"
    index = read_table(folder / "index.parquet").to_pylist()
    rows = [number for number, row in enumerate(index) if row["set"] == "validation"]
    table = read_table(done / "data/tiny/validation.parquet")
    ids = table["example_id"].to_pylist()
    table = table.take([ids.index(index[row]["example_id"]) for row in rows])
    assert list(LABELS.values()) == ["POSITIVE", "NEGATIVE"]
    assert read_manifest(folder).facts["label_names"] == ["negative", "positive"]
    for step in (2, 4):
        model = AutoModelForSequenceClassification.from_pretrained(done / f"runs/mine/checkpoint-{step}").eval()
        with torch.no_grad():
            logits = model(**batch(table)).logits.numpy()
        found = np.load(folder / f"step-{step:08d}/logits.npy")[rows]
        np.testing.assert_allclose(found, logits[:, [1, 0]], atol=1e-5)


def test_lenses_have_looked_and_the_atlas_shows_it(done: Path) -> None:
    for place, lenses in ((PLACE, LENSES), ("before/tiny/given/s1", OF_ONE)):
        assert [(done / f"outputs/{place}/{lens}/manifest.json").is_file() for lens in lenses] == [True] * len(lenses)
    assert (done / "comparisons/both/manifest.json").is_file()
    study = study_of(done / "atlas")
    places = {place["name"]: place for place in study["places"]}
    assert places[PLACE]["kind"] == "fine-tuning" and study["answers"] == ["tiny"]
    assert "mine/pretrain" not in places, "nothing looks at the series without a task"
    captions = " ".join(caption for _, caption in study["figures"])
    assert "The first checkpoint (dashed) and the last (solid) on tiny" in captions and "training" not in captions
    assert any("of given checkpoints: the first" in headline["says"] for headline in study["headlines"])
    metrics = json.loads((done / f"outputs/{PLACE}/predictions/metrics.json").read_text())
    assert f"{metrics['validation/accuracy']:.3f}" in (done / "atlas/runs/mine_tiny_given_s1.html").read_text("utf-8")
    assert not list((done / "outputs").rglob("*.safetensors")), "weights are read where they lie"


def test_they_become_runs(done: Path) -> None:
    from finetrace.layout import Layout
    from finetrace.study import parse_study
    from finetrace.tracking.collect import collect

    found = collect(Layout(done, done), parse_study(STUDY, "params.yaml"))
    names = {record.name: record for record in found.records}
    assert found.problems == [] and {f"{lens}@mine_tiny_given_s1" for lens in LENSES} <= set(names)
    content = names["mine_tiny_given_s1"].load()
    assert content.tags["method"] == "given" and content.finals["checkpoints"] == 2


def test_a_file_that_has_changed_is_refused(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shutil.copytree(done, tmp_path / "copy")
    monkeypatch.chdir(root)
    weights = root / "runs/mine/checkpoint-4/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    stub = root / f"outputs/{PLACE}/trajectory/checkpoints/step-00000004"
    with pytest.raises(FinetraceError, match=r"checkpoint-4/model.safetensors: has changed .* run finetrace repro"):
        load_trained(stub)
    shutil.rmtree(root / "runs/mine/checkpoint-4")
    with pytest.raises(FinetraceError, match="is not there any more"):
        load_trained_encoder(stub)


def test_twenty_checkpoints_cost_one_tokenisation_and_the_memory_of_few(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    monkeypatch.chdir(root)
    saved_folders(root / "runs/mine", lambda step: classifier(seed=step), range(20))
    ask_study(root, {**STUDY, "series": {"mine": {"path": "runs/mine", "tasks": "tiny"}}, "comparisons": {},
                     "look": {"geometry": "all"}})
    looked_up(root)
    calls: dict[str, int] = {"encode": 0, "load": 0}
    alive: Any = weakref.WeakSet()
    most, encode, load = [], extraction.encode, extraction.load_trained_encoder

    def encoding(*args: Any, **options: Any) -> Any:
        calls["encode"] += 1
        return encode(*args, **options)

    def loading(*args: Any, **options: Any) -> Any:
        calls["load"] += 1
        model = load(*args, **options)
        if len(alive) > 2:
            gc.collect()
        alive.add(model)
        most.append(len(alive))
        return model

    monkeypatch.setattr(extraction, "encode", encoding)
    monkeypatch.setattr(extraction, "load_trained_encoder", loading)
    run(root, "hidden", "mine_tiny_given_s1")
    assert calls == {"encode": 2, "load": 20} and max(most) <= 3


def test_adapters_are_those_of_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    root = project(tmp_path)
    monkeypatch.chdir(root)
    model_folder(root / "base")
    adapter_folders(root / "runs/mine", root / "base", (3, 9))
    ask_study(root, {**STUDY, "series": {"mine": {"path": "runs/mine", "tasks": "tiny", "head": "tiny"}},
                     "comparisons": {}, "look": {}})
    trajectory = looked_up(root)
    inputs = batch(read_table(root / "data/tiny/test.parquet"))
    for step, stub in list_weights(trajectory / "checkpoints").items():
        base = AutoModelForSequenceClassification.from_pretrained(root / "base", num_labels=2)
        adapted = PeftModel.from_pretrained(base, str(root / f"runs/mine/checkpoint-{step}")).eval()
        with torch.no_grad():
            torch.testing.assert_close(load_trained(stub)(**inputs).logits, adapted(**inputs).logits,
                                       atol=1e-5, rtol=1e-5)
    facts = read_manifest(trajectory).facts
    assert facts["steps"] == 9 and facts["head"] == "sequence" and (trajectory / "tokenizer/tokenizer.json").is_file()
    moved = root / "elsewhere"
    (root / "base").rename(moved)
    with pytest.raises(FinetraceError, match=r"its base model .* is no folder of this machine; name it in `base`"):
        resolve_series("mine", SeriesSettings(path="runs/mine"), fresh(root / "out"))
    facts = resolve_series("mine", SeriesSettings(path="runs/mine", base="elsewhere"), fresh(root / "out"))
    assert facts["head"] == "sequence" and facts["steps"] == [3, 9]


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def test_a_head_for_words_is_read_at_their_first_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrace.inference.evaluate import predict
    from finetrace.models.rows import Collator, encode

    word_task_folder(tmp_path / "data/words", spans=1)
    monkeypatch.chdir(tmp_path)
    names = read_manifest(tmp_path / "data/words").facts["label_names"]
    model = classifier(dict(enumerate(names)), "AutoModelForTokenClassification")
    saved_folders(tmp_path / "runs/mine", lambda step: model, (5,))
    ask_study(tmp_path, {"study": {"name": "words"}, "tasks": {"words": {"source": "micro", "config": "micro-pos"}},
                         "series": {"mine": {"path": "runs/mine", "tasks": "words", "head": "words"}}, "look": {}})
    trajectory = looked_up(tmp_path, task="words")
    facts = read_manifest(trajectory).facts
    assert facts["head"] == "token" and facts["train"]["pieces"] == "first" and facts["axis"] == "fine-tuning steps"
    rows = encode(tmp_path / "data/words/validation.parquet", tokenizer(), 16, {"input_ids", "attention_mask"})
    given = load_trained(next(iter(list_weights(trajectory / "checkpoints").values())))
    found = predict(given, rows, Collator(tokenizer(), None, pieces="first"))
    ids = torch.tensor(rows.features["input_ids"][0])[None]
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits[0, 1:-1]
    np.testing.assert_allclose(found[:len(logits)], logits.numpy(), atol=1e-5)


def test_a_recorded_trajectory_keeps_its_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrace.training.finetune import RunSeeds, finetune

    root = project(tmp_path)
    monkeypatch.chdir(root)
    traced = root / "runs/traced"
    traced.mkdir(parents=True)
    made = settings(epochs=1.0)
    facts = finetune(model_folder(root / "model"), root / "data/tiny", made, recording(checkpoints="log2"),
                     RunSeeds.of(0, 1), scratch=root / "scratch", out=traced, name="traced")
    tokenizer().save_pretrained(traced / "tokenizer")
    facts.pop("device")
    complete(traced, Manifest("trajectory", "trace", "traced", "0", {}, {}, {}, facts), started=0.0)
    ask_study(root, {**STUDY, "series": {"mine": {"path": "runs/traced", "tasks": "tiny", "signals": True}},
                     "comparisons": {}, "look": {"infodynamics": "all", "answers": "all"},
                     "infodynamics": {"window": 2, "permutations": 20}})
    trajectory = looked_up(root)
    for table in ("signals", "history", "probe"):
        assert (trajectory / f"{table}.parquet").read_bytes() == (traced / f"{table}.parquet").read_bytes()
    run(root, "infodynamics", "mine_tiny_given_s1")
    run(root, "predictions", "mine_tiny_given_s1")
    metrics = json.loads((traced / "metrics.json").read_text())
    answers = json.loads((trajectory.parent / "predictions/metrics.json").read_text())
    assert answers["validation/accuracy"] == metrics["validation/accuracy"]
    assert json.loads((trajectory / "metrics.json").read_text()).items() >= metrics.items()


def test_masked_word_heads_stay_for_cloze_and_further_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetrace.models.masked_head import load_masked_head

    monkeypatch.chdir(tmp_path)
    saved_folders(tmp_path / "runs", lambda step: classifier(kind="AutoModelForMaskedLM", seed=step), (0, 7), "step-{}")
    facts = resolve_series("mine", SeriesSettings(path="runs", pattern="step-{step}"),
                           fresh(tmp_path / "out"))
    assert facts["head"] == "masked words" and facts["axis"] == "pre-training steps" and facts["steps"] == [0, 7]
    complete(tmp_path / "out", Manifest("trajectory", "series", "mine", "0", {}, {}, {}, facts), started=0.0)
    timeline = open_timeline(tmp_path / "out", tmp_path / "models")
    with timeline.checkpoint(7) as folder:
        assert load_masked_head(folder).decoder.shape == (bert_config().vocab_size, 16)
    assert len(set(timeline.digests.values())) == 2


def test_phases_of_a_folder_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved_folders(tmp_path / "runs", lambda step: classifier(seed=step), (10, 20), "step{}")
    saved_folders(tmp_path / "runs", lambda step: classifier(seed=step), (5, 6), "decay{}")
    phases = [{"pattern": "step{step}"}, {"pattern": "decay{step}", "steps": [5]}]
    for after, steps in ((None, [10, 20, 25]), (100, [10, 20, 105])):
        asked = {"path": "runs", "phases": [phases[0], {**phases[1], "after": after}]}
        from finetrace.config.base import parse

        facts = resolve_series("mine", parse(SeriesSettings, asked, "x"), fresh(tmp_path / "out"))
        assert facts["steps"] == steps
    asked["phases"][1]["after"] = 3
    with pytest.raises(FinetraceError, match=r"phases: decay\{step\} begins at step 8 of the axis, .* ends at 20"):
        resolve_series("mine", parse(SeriesSettings, asked, "x"), fresh(tmp_path / "out"))


def _pickled(folder: Path) -> None:
    (folder / "checkpoint-4/model.safetensors").rename(folder / "checkpoint-4/pytorch_model.bin")


def _foreign(folder: Path) -> None:
    path = folder / "checkpoint-4/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "swallow"}))


def _wider(folder: Path) -> None:
    path = folder / "checkpoint-4/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 32}))


def _renamed(folder: Path) -> None:
    for one in list(folder.iterdir()):
        one.rename(folder / one.name.replace("checkpoint-", "after-"))


def _twice(folder: Path) -> None:
    shutil.copytree(folder / "checkpoint-4", folder / "checkpoint-04")


def _wordless(folder: Path) -> None:
    for file in folder.glob("*/tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(("spoil", "changes", "words"), [
    (_pickled, {}, "checkpoint-4/pytorch_model.bin: no safetensors; pickled weights are not loaded; save the"),
    (_foreign, {}, "checkpoint-4/config.json: model_type 'swallow' is no architecture of transformers"),
    (_wider, {}, "checkpoint-4 is another kind of model than runs/checkpoint-2 (hidden_size: 32)"),
    (_renamed, {}, "nothing in runs is called checkpoint-{step}; say in `pattern` how its checkpoints are called; "
                   "there are after-2, after-4"),
    (_twice, {}, "are both step 4; remove or rename one"),
    (_wordless, {}, "has no tokenizer; name the model whose it is in `tokenizer`"),
    (None, {"steps": [2, 3]}, "runs has no checkpoint-3; there are the steps 2, 4"),
    (None, {"path": "nowhere"}, "nowhere is no folder; mend `path`"),
])
def test_a_folder_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any,
                                               changes: dict[str, Any], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    saved_folders(tmp_path / "runs", lambda step: classifier(seed=step), (2, 4))
    if spoil:
        spoil(tmp_path / "runs")
    with pytest.raises(FinetraceError) as caught:
        resolve_series("mine", SeriesSettings(**{"path": "runs"} | changes), fresh(tmp_path / "out"))
    assert words in str(caught.value) and str(caught.value).count("\n") == 0


@pytest.mark.parametrize(("labels", "said", "words"), [
    ({0: "good", 1: "bad"}, [], "the head's classes are good, bad, and those of the task negative, positive; say in "
                                "`labels` which is which"),
    ({0: "a", 1: "b", 2: "c"}, [], "the head tells 3 classes (a, b, c), and the task has 2 (negative, positive)"),
    ({0: "good", 1: "bad"}, ["positive", "negative"], ""),
    (None, [], "has no head for a task of the kind sequence (its head: none)"),
])
def test_classes_of_another_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            labels: dict[int, str] | None, said: list[str], words: str) -> None:
    root = project(tmp_path)
    monkeypatch.chdir(root)
    model = classifier(labels) if labels else classifier(kind="AutoModel")
    saved_folders(root / "runs/mine", lambda step: model, (1,))
    entry = {"path": "runs/mine", "tasks": "tiny", "head": "tiny"} | ({"labels": said} if said else {})
    ask_study(root, {**STUDY, "series": {"mine": entry}, "comparisons": {}, "look": {}})
    if not words:
        stub = looked_up(root) / "checkpoints/step-00000001"
        assert torch.equal(load_trained(stub).classifier.weight, model.classifier.weight[[1, 0]])
        return
    with pytest.raises(FinetraceError) as caught:
        looked_up(root)
    assert words in str(caught.value) and "series.mine.head: runs/mine/checkpoint-1" in str(caught.value)

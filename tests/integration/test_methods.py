"""Fine-tuning, linear probing, LoRA and their combinations: what is trained, from which start, and what is kept."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.families import FAMILIES, family_folders
from tests.training_fixtures import SEEDS, model_folder, recording, settings, task_folder
from tests.word_tasks import word_task_folder

from finetrace.config.training import MethodSettings
from finetrace.errors import FinetraceError
from finetrace.inference.evaluate import classification_metrics, predict, predict_with_features
from finetrace.models.head import last_linear
from finetrace.models.load import load_classifier, load_encoder
from finetrace.models.saved import export, load_trained, load_trained_encoder
from finetrace.store.checkpoints import list_weights
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import read_table
from finetrace.training.finetune import finetune, prepare

KINDS = ("ft", "lp", "lp-ft", "lora", "lp-lora")
LINEAR = settings(head="linear", epochs=1.0, lp_strengths=(1e-2, 1e2, 3), lp_folds=2, lora_rank=2, lora_alpha=4.0)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("methods")
    model_folder(root / "model")
    task_folder(root / "task")
    word_task_folder(root / "words", spans=2)
    return root


def run(here, place, kind, wanted=LINEAR, record=None, task="task", model="model", **more):
    (place / "out").mkdir(parents=True)
    record = record or recording(checkpoints={"steps": [2]}, evaluate="epochs")
    return finetune(here / model, here / task, wanted, record, SEEDS, scratch=place / "scratch", out=place / "out",
                    name="test", method=MethodSettings(kind=kind), **more)


@pytest.fixture(scope="module")
def runs(here, tmp_path_factory):
    """Kind -> (folder of the trajectory, its facts); the same seeds throughout."""
    found = {}
    for kind in KINDS:
        place = tmp_path_factory.mktemp(kind)
        found[kind] = (place / "out", run(here, place, kind))
    return found


def ends(folder, here):
    steps = list_weights(folder / "checkpoints")
    return tuple(load_trained(steps[step], here / "model") for step in (min(steps), max(steps)))


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_the_method_trains_changes(runs, here, kind):
    folder, facts = runs[kind]
    first, last = ends(folder, here)
    plain = load_encoder(here / "model").state_dict()
    name = lambda n: n.replace(".base_layer", "")  # noqa: E731
    for model in (first, last):
        own = {name(n): p for n, p in model.encoder.state_dict().items() if ".lora_" not in n}
        assert set(own) == set(plain)
        if kind in ("lp", "lora", "lp-lora") or model is first:
            assert all(torch.equal(own[n], plain[n]) for n in plain)
    changed = {n.split(".")[-1] if ".lora_" not in n else "lora" for (n, a), b in
               zip(first.named_parameters(), last.parameters(), strict=True) if not torch.equal(a, b)}
    assert ("lora" in changed) == kind.endswith("lora") and last.classifier.weight is not None
    trained = {n for n, p in last.named_parameters() if p.requires_grad}
    assert all(n.startswith("classifier") or ".lora_" in n for n in trained) == (kind not in ("ft", "lp-ft"))
    assert facts["trained_parameters"] == sum(p.numel() for p in last.parameters() if p.requires_grad)
    assert facts["method_kind"] == kind and ("linear_probe" in facts) == kind.startswith("lp")


@pytest.mark.parametrize("kind", KINDS)
def test_every_trajectory_has_signals_history_looks_and_checkpoints(runs, kind):
    folder, facts = runs[kind]
    signals, history = read_table(folder / "signals.parquet"), read_table(folder / "history.parquet")
    assert signals.num_rows and {"train", "eval"} <= set(history["kind"].to_pylist())
    assert read_table(folder / "probe.parquet").num_rows
    steps = list(list_weights(folder / "checkpoints"))
    assert steps[0] == 0 and steps[-1] == facts["steps"] and 2 in steps
    assert history["step"].to_pylist() == sorted(history["step"].to_pylist())
    metrics = json.loads((folder / "metrics.json").read_text())
    final = next(r for r in history.to_pylist() if r["kind"] == "eval" and r["step"] == facts["steps"])
    assert metrics["validation/accuracy"] == final["accuracy"]


def test_after_linear_probing_the_combined_methods_start_where_the_probe_ends(runs, here):
    probe = ends(runs["lp"][0], here)[1]
    rows = prepare(here / "model", here / "task", LINEAR, probe).splits["validation"]
    collator = prepare(here / "model", here / "task", LINEAR, probe).collator
    expected = predict(probe, rows, collator)
    for kind in ("lp-ft", "lp-lora"):
        start = ends(runs[kind][0], here)[0]
        assert torch.equal(start.classifier.weight, probe.classifier.weight)
        np.testing.assert_array_equal(predict(start, rows, collator), expected)
    drawn = load_classifier(here / "model", ["negative", "positive"], SEEDS.head, head="linear")
    for kind in ("ft", "lora", "lp"):  # the others start from the drawn head
        assert torch.equal(ends(runs[kind][0], here)[0].classifier.weight, drawn.classifier.weight)


def test_the_linear_head_reads_the_raw_sentence_token_and_has_the_drawn_scale(here):
    from transformers import AutoModel

    model = load_classifier(here / "model", ["a", "b", "c"], 5, head="linear").eval()
    prepared = prepare(here / "model", here / "task", LINEAR, model)
    rows = prepared.splits["test"]
    logits, features = predict_with_features(model, rows, prepared.collator, batch_size=3)
    plain = AutoModel.from_pretrained(here / "model").eval()
    for i in range(len(rows)):
        with torch.no_grad():
            state = plain(**{k: torch.tensor([v[i]]) for k, v in rows.features.items()}).last_hidden_state[0, 0]
        np.testing.assert_allclose(features[i], state.numpy(), atol=1e-6)
    weight = last_linear(model).weight.detach().numpy()
    np.testing.assert_allclose(logits, features @ weight.T, atol=1e-6)
    np.testing.assert_array_equal(logits, predict(model, rows, prepared.collator, batch_size=3))
    assert not last_linear(model)._forward_pre_hooks


@pytest.mark.parametrize("kind", ["lora", "lp-lora"])
def test_adapters_are_stored_as_peft_reads_them_and_merge_on_demand(runs, here, kind, tmp_path):
    from peft import PeftModel
    from transformers import AutoModel

    folder, _ = runs[kind]
    last = list_weights(folder / "checkpoints")[runs[kind][1]["steps"]]
    assert {p.name for p in last.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "complete.json",
                                                "config.json", "head.json", "head.safetensors"}
    config = json.loads((last / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "model" and config["target_modules"] == ["query", "value"]
    model = load_trained(last, here / "model")
    prepared = prepare(here / "model", here / "task", LINEAR, model)
    batch = prepared.collator(prepared.splits["test"], range(6))
    batch.pop("labels")
    with torch.no_grad():
        expected = model.encoder(**batch).last_hidden_state
        theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(here / "model"),
                                           str(last)).eval()(**batch).last_hidden_state
        torch.testing.assert_close(theirs, expected, atol=1e-6, rtol=0)
        assert not torch.allclose(load_encoder(here / "model")(**batch).last_hidden_state, expected, atol=1e-4)
        torch.testing.assert_close(load_trained_encoder(last, here / "model")(**batch).last_hidden_state, expected)
        export(last, here / "model", tmp_path / "whole")
        whole = load_trained(tmp_path / "whole")
        torch.testing.assert_close(whole(**batch).logits, model(**batch).logits, atol=1e-6, rtol=0)
        torch.testing.assert_close(AutoModel.from_pretrained(tmp_path / "whole").eval()(**batch).last_hidden_state,
                                   expected, atol=1e-6, rtol=0)


def test_a_partial_checkpoint_needs_the_model_that_it_was_trained_on(runs, here, tmp_path):
    last = list_weights(runs["lora"][0] / "checkpoints")[0]
    with pytest.raises(FinetraceError, match="name the model folder"):
        load_trained(last)
    facts = json.loads((last / "head.json").read_text())
    other = model_folder(tmp_path / "model")
    complete(other, Manifest("model", "model", "other", "0", {}, {}, {}))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in last.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "head.json").write_text(json.dumps({**facts, "base": "0" * 64}))
    with pytest.raises(FinetraceError, match="another model"):
        load_trained(damaged, other)
    (damaged / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(FinetraceError, match="adapters"):
        load_trained(damaged, here / "model")


@pytest.mark.parametrize("kind", ["lp-lora", pytest.param("lp-ft", marks=pytest.mark.slow),
                                  pytest.param("lora", marks=pytest.mark.slow)])
@pytest.mark.parametrize("head", ["linear", pytest.param("family", marks=pytest.mark.slow)])
def test_a_killed_training_continues_to_the_same_bytes(here, tmp_path, kind, head, monkeypatch):
    wanted = dataclasses.replace(LINEAR, head=head, epochs=1.5)
    record = recording(checkpoints="log2", resume_seconds=0.0)
    run(here, tmp_path / "whole", kind, wanted, record)

    import finetrace.training.finetune as module

    class Killed(RuntimeError):
        pass

    save, seen = module.save_weights, []

    def stop(model, folder, step):
        if step == 8 and not seen:
            seen.append(step)
            raise Killed
        save(model, folder, step)

    monkeypatch.setattr(module, "save_weights", stop)
    place = tmp_path / "parts"
    with pytest.raises(Killed):
        run(here, place, kind, wanted, record)
    (place / "out").rmdir()
    run(here, place, kind, wanted, record)
    assert seen
    for file in sorted((tmp_path / "whole" / "out").rglob("*")):
        if file.is_file() and file.name != "timing.parquet":
            assert (place / "out" / file.relative_to(tmp_path / "whole" / "out")).read_bytes() == file.read_bytes(), (
                file
            )


@pytest.mark.parametrize("kind", ["lp", "lp-lora"])
def test_tasks_of_words_take_every_method(here, tmp_path, kind):
    facts = run(here, tmp_path, kind, task="words")
    last = load_trained(list_weights(tmp_path / "out" / "checkpoints")[facts["steps"]], here / "model")
    assert last.spans == 2 and last.classifier.in_features == 32
    assert np.isfinite(json.loads((tmp_path / "out" / "metrics.json").read_text())["validation/accuracy"])


@pytest.mark.parametrize(("family", "head"), [
    pytest.param(family, head, marks=[pytest.mark.slow] if (number + (head == "linear")) % 2 else [])
    for number, family in enumerate(sorted(set(FAMILIES) - {"bert"})) for head in ("linear", "family")])
def test_every_family_takes_lora_and_a_probe_with_either_head(here, tmp_path, tmp_path_factory, family, head):
    folder = family_folders(tmp_path_factory.mktemp("family"))(family)
    wanted = dataclasses.replace(LINEAR, head=head, max_steps=2)
    facts = run(folder.parent, tmp_path, "lp-lora", wanted, task=here / "task", model=folder.name)
    model = load_trained(list_weights(tmp_path / "out" / "checkpoints")[2], folder)
    prepared = prepare(folder, here / "task", wanted, model)
    metrics = classification_metrics(predict(model, prepared.splits["validation"], prepared.collator),
                                     prepared.splits["validation"].labels)
    assert metrics["accuracy"] == json.loads((tmp_path / "out" / "metrics.json").read_text())["validation/accuracy"]
    assert 0 < facts["trained_parameters"] < facts["parameters"]


def test_keep_best_reports_the_best_adapter(here, tmp_path):
    facts = run(here, tmp_path, "lora", dataclasses.replace(LINEAR, keep="best", epochs=3.0, learning_rate=0.05))
    history = [r for r in read_table(tmp_path / "out" / "history.parquet").to_pylist() if r["kind"] == "eval"]
    best = max(history, key=lambda r: (r["accuracy"], -r["step"]))
    assert facts["kept_step"] == best["step"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["validation/accuracy"] == best["accuracy"]


def test_a_scaled_head_starts_scaled(here, runs, tmp_path):
    wanted = dataclasses.replace(LINEAR, head_scale=10.0)
    run(here, tmp_path, "lp-ft", wanted)
    first, plain = (load_file(list_weights(folder / "checkpoints")[0] / "head.safetensors")
                    for folder in (tmp_path / "out", runs["lp-ft"][0]))
    torch.testing.assert_close(first["classifier.weight"], 10 * plain["classifier.weight"])
    assert torch.equal(first["classifier.bias"], plain["classifier.bias"])


def test_an_unknown_target_of_lora_is_an_error_that_names_the_layers(here, tmp_path):
    with pytest.raises(FinetraceError, match=r"lora_targets: 'quest' is not a linear layer .*query"):
        run(here, tmp_path, "lora", dataclasses.replace(LINEAR, lora_targets=("quest",)))

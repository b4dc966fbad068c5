"""Traces of trainings that finetrace does not run: signals like its own, and nothing of it in the training."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training_drills import run_together
from tests.training_fixtures import (
    PROBE,
    SEEDS,
    SIGNALS,
    WORDS,
    bert_config,
    model_folder,
    recording,
    sentences,
    settings,
    task_folder,
    tokenizer,
)
from torch.utils.data import DataLoader

import finetrace
from finetrace.config.training import MethodSettings
from finetrace.errors import FinetraceError
from finetrace.models.saved import load_trained
from finetrace.models.timeline import open_timeline
from finetrace.store.checkpoints import list_weights
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import matrix, read_table
from finetrace.training.finetune import finetune, make_plan, prepare
from finetrace.training.methods import start_classifier
from finetrace.training.trace_options import ids_of

ROWS = 24
DOCUMENT = Path(__file__).parents[2] / "docs" / "own-trainings.md"


def dataset(rows: int = ROWS, seed: int = 7) -> Any:
    """A tokenised dataset with a column that the model does not take."""
    from datasets import Dataset

    texts, labels = sentences(rows, seed)
    return Dataset.from_dict({**tokenizer()(texts), "labels": labels, "number": list(range(500, 500 + rows))})


def classifier(dropout: float = 0.1, **changes: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    config = bert_config(dropout, layers=1)
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForSequenceClassification.from_config(config)


def trainer(callbacks: list[Any], out: Path | str, model: Any = None, kind: Any = None, data: Any = None,
            more: dict[str, Any] | None = None, **arguments: Any) -> Any:
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    usual = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-3, "use_cpu": True,
             "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "seed": 5}
    return (kind or Trainer)(
        model=model or classifier(), args=TrainingArguments(output_dir=str(out), **usual | arguments),
        train_dataset=data or dataset(), data_collator=DataCollatorWithPadding(tokenizer()),
        processing_class=tokenizer(), callbacks=callbacks, **(more or {}))


def train_rows(folder: Path | str, out: Path | str, options: dict[str, Any] | None = None, report: bool = True,
               **arguments: Any) -> Any:
    """Train with a trace; returns the trainer. Also what each of several processes runs."""
    torch.set_num_threads(1)
    options = {"ids": dataset()["number"]} | (options or {})
    found = trainer([finetrace.TraceCallback(folder, **options)], out, **arguments)
    found.train()
    return found


def signals(folder: Path) -> dict[str, np.ndarray]:
    table = read_table(folder / SIGNALS)
    return {name: matrix(table, name) if name == "logits" else table[name].to_numpy() for name in table.column_names}


def plain_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """The mean as our own trainer takes it, to the bit."""
    losses = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, reduction="none")
    return losses.sum() / len(labels)


def test_signals_are_those_of_our_own_training(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import Trainer

    model, task = model_folder(tmp_path / "model"), task_folder(tmp_path / "task")
    wanted = settings(scheduler="constant", order="random", epochs=1.0)  # a new pass draws a number
    ours, traced = tmp_path / "ours", tmp_path / "traced"
    ours.mkdir()
    finetune(model, task, wanted, recording(), SEEDS, scratch=tmp_path / "scratch", out=ours, name="ours")
    start = start_classifier(model, read_manifest(task).facts, wanted, MethodSettings(), SEEDS.head, SEEDS.adapter)
    rows = prepare(model, task, wanted, start).splits
    plan = make_plan(rows["train"], wanted, SEEDS.order)
    order = [int(row) for _, of_step, _ in plan.batches for row in of_step]

    class Ordered(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return order

    data = {split: Dataset.from_dict(dict(rows[split].features) | {"labels": rows[split].labels.tolist()})
            for split in ("train", "validation")}
    callback = finetrace.TraceCallback(traced, ids=rows["train"].example_ids, probe_rows=8, seed=SEEDS.probe,
                                       validation=data["validation"])
    one = trainer([callback], tmp_path / "out", start, Ordered, data["train"], {"compute_loss_func": plain_loss},
                  per_device_train_batch_size=8, num_train_epochs=1, learning_rate=2e-3, lr_scheduler_type="constant",
                  seed=SEEDS.dropout)
    one.train()
    assert (traced / SIGNALS).read_bytes() == (ours / SIGNALS).read_bytes()
    for name in ("history.parquet", PROBE):
        mine, theirs = read_table(ours / name).to_pandas(), read_table(traced / name).to_pandas()
        mine = mine[mine.kind == "train"] if "kind" in mine else mine.sort_values(["split", "step"])
        theirs = theirs if "kind" in theirs else theirs.sort_values(["split", "step"])
        assert mine.columns.tolist() == theirs.columns.tolist() and len(mine) == len(theirs)
        for column in ("step", "loss", *(("gradient_norm", "head_norm", "tokens", "examples", "epoch", "learning_rate")
                                         if "kind" in mine else ("label",))):
            np.testing.assert_allclose(theirs[column], mine[column], rtol=1e-5, atol=1e-6, err_msg=column)
    steps = list_weights(ours / "checkpoints")
    assert list(steps) == list(list_weights(traced / "checkpoints"))
    for step, folder in steps.items():
        weights = (traced / "checkpoints" / folder.name / "model.safetensors").read_bytes()
        assert weights == (folder / "model.safetensors").read_bytes(), step


@pytest.mark.parametrize("arguments", [
    {"gradient_accumulation_steps": 2, "max_grad_norm": 0.05},
    {"label_smoothing_factor": 0.1, "bf16": True, "dataloader_num_workers": 1},
], ids=["accumulated", "smoothed"])
def test_nothing_changes_and_rows_are_known(tmp_path: Path, arguments: dict[str, Any]) -> None:
    plain = trainer([], tmp_path / "a", **arguments)
    plain.train()
    traced = train_rows(tmp_path / "trace", tmp_path / "b", {"validation": dataset(10, 8)}, **arguments)
    for mine, theirs in zip(plain.model.state_dict().values(), traced.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert plain.state.log_history[-1]["train_loss"] == traced.state.log_history[-1]["train_loss"]
    assert open_timeline(tmp_path / "trace", tmp_path / "models").steps[-1] == traced.state.global_step
    found, data = signals(tmp_path / "trace"), dataset()
    assert sorted(found["example_id"][:ROWS]) == data["number"] and sorted(found["example_id"][ROWS:]) == data["number"]
    assert (np.array(data["labels"])[found["example_id"] - 500] == found["label"]).all()
    log_sum = np.log(np.exp(found["logits"].astype(float)).sum(1))
    plain_ce = log_sum - found["logits"][np.arange(len(log_sum)), found["label"]]
    np.testing.assert_allclose(found["loss"], plain_ce, atol=1e-6)
    assert (np.diff(found["micro_step"]) >= 0).all() and found["micro_step"][-1] == 11


def test_ids_belong_to_their_logits(tmp_path: Path) -> None:
    """Without dropout and without learning every example's logits can be computed again."""
    from transformers import Trainer

    class Explicit(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            assert set(inputs) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            return 3 * torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"])

    model, data = classifier(dropout=0.0), dataset()
    train_rows(tmp_path / "trace", tmp_path / "out", model=model, kind=Explicit, learning_rate=0.0)
    found = signals(tmp_path / "trace")
    batch = tokenizer().pad(data.select_columns(["input_ids", "attention_mask"])[:], return_tensors="pt")
    with torch.no_grad():
        again = model.eval()(**batch).logits.numpy()
    np.testing.assert_allclose(found["logits"], again[found["example_id"] - 500], atol=1e-6)


def test_resumed_is_undisturbed(tmp_path: Path) -> None:
    """Killed between two checkpoints and resumed from the first: the same bytes, nothing twice."""
    from transformers import TrainerCallback

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 9:
                raise KeyboardInterrupt

    def prepared(folder: Path, *more: Any) -> Any:
        return trainer([finetrace.TraceCallback(folder, ids=dataset()["number"]), *more], tmp_path / "out",
                       save_strategy="steps", save_steps=4)

    whole, parts = tmp_path / "whole" / "trace", tmp_path / "parts" / "trace"
    prepared(whole).train()
    with pytest.raises(KeyboardInterrupt):
        prepared(parts, Killed()).train()
    assert [p.name for p in parts.iterdir()] == ["unfinished"]
    with pytest.raises(FinetraceError, match="did not finish"):
        read_manifest(parts)
    prepared(parts).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    for file in (SIGNALS, "history.parquet", PROBE, "checkpoints/step-00000012/model.safetensors", "metrics.json",
                 "manifest.json"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes(), file
    with pytest.raises(FinetraceError, match="has the signals of the first 0; go on from an earlier checkpoint"):
        prepared(tmp_path / "late").train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8"))
    with pytest.raises(FinetraceError, match="holds a finished trace"):
        prepared(parts).train()


def test_the_best_step_is_kept(tmp_path: Path) -> None:
    from transformers import EarlyStoppingCallback

    losses = iter([0.6, 0.3, 0.4, 0.5])
    callbacks = [finetrace.TraceCallback(tmp_path / "trace", checkpoints={"steps": []}, probe="none"),
                 EarlyStoppingCallback(2)]
    one = trainer(callbacks, tmp_path / "out", data=dataset(), num_train_epochs=6, eval_strategy="epoch",
                  save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="told",
                  greater_is_better=False, save_total_limit=1,
                  more={"eval_dataset": dataset(8),
                        "compute_metrics": lambda _: {"told": next(losses), "accuracy": 0.5}})
    one.train()
    facts = read_manifest(tmp_path / "trace").facts
    assert (facts["kept_step"], facts["steps"], facts["train"]["keep"]) == (12, 24, "best")
    kept = list_weights(tmp_path / "trace" / "checkpoints")
    assert list(kept) == [0, 12, 24]
    best = load_trained(kept[12]).state_dict()
    assert all(torch.equal(best[name], values) for name, values in one.model.state_dict().items())
    metrics = json.loads((tmp_path / "trace" / "metrics.json").read_text())
    assert metrics["validation/accuracy"] == 0.5 and metrics["kept_step"] == 12
    evaluated = [row for row in read_table(tmp_path / "trace" / "history.parquet").to_pylist() if row["kind"] == "eval"]
    assert [(row["step"], row["examples"]) for row in evaluated] == [(6, 24), (12, 48), (18, 72), (24, 96)]


def test_adapters_are_kept_as_adapters(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = model_folder(tmp_path / "models" / "tiny", bert_config(layers=1))
    start = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    lora = {"task_type": "SEQ_CLS", "r": 2, "target_modules": ["query", "value"]}
    wrapped = get_peft_model(start, LoraConfig(**lora, lora_alpha=4))
    folder = tmp_path / "trace"
    one = train_rows(folder, tmp_path / "out", {"base": "tiny"}, model=wrapped, learning_rate=1e-2)
    manifest = read_manifest(folder)
    assert manifest.facts["method_kind"] == "lora" and manifest.facts["trace"]["adapters"]
    files = {p.name for p in (folder / "checkpoints" / "step-00000012").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "head.safetensors", "head.json",
                     "config.json", "complete.json"}
    assert list(list_weights(folder / "checkpoints")) == [0, 1, 2, 4, 8, 12]
    batch = tokenizer()([WORDS[0], WORDS[20]], return_tensors="pt")
    with torch.no_grad():
        again = load_trained(list_weights(folder / "checkpoints")[12], base)(**batch).logits
        np.testing.assert_allclose(again, one.model.eval()(**batch).logits, atol=1e-5)
    odd = get_peft_model(classifier(), LoraConfig(**lora, use_rslora=True))
    with pytest.raises(FinetraceError, match="its LoraConfig sets use_rslora; use plain LoRA"):
        train_rows(tmp_path / "odd", tmp_path / "out", model=odd)


def test_several_processes_write_one_trace(tmp_path: Path) -> None:
    assert run_together(train_rows, tmp_path / "trace", tmp_path / "out", None, False) == [0, 0]
    found, data = signals(tmp_path / "trace"), dataset()
    facts = read_manifest(tmp_path / "trace").facts
    assert (facts["steps"], facts["trace"]["processes"], facts["rows"]["signals"]) == (6, 2, 2 * ROWS)
    assert sorted(found["example_id"][:ROWS]) == data["number"]
    assert (np.array(data["labels"])[found["example_id"] - 500] == found["label"]).all()
    assert (found["position"] == np.tile(np.arange(8), 6)).all() and (np.diff(found["step"]) >= 0).all()
    history = read_table(tmp_path / "trace" / "history.parquet").to_pandas()
    assert history["examples"].tolist() == [0, 8, 16, 24, 32, 40]
    np.testing.assert_allclose(history["loss"], found["loss"].reshape(6, 8).mean(1), atol=1e-6)
    assert history["tokens"].iloc[-1] == 2 * sum(map(len, data["input_ids"])) == facts["tokens"]


def test_a_loop_with_numbers_for_labels(tmp_path: Path) -> None:
    """Regression, batches that are no mappings, a head without a transformers model, a resumption."""
    def run(folder: Path, traced: bool, stop: int | None = None, start: int = 0) -> Any:
        torch.manual_seed(1)
        data = torch.utils.data.TensorDataset(torch.randn(12, 3), torch.rand(12))
        loader = DataLoader(data, 4, shuffle=False)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.1), torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def passes(batches: Any) -> None:
            for number, (inputs, targets) in enumerate(batch for _ in range(2) for batch in batches()):
                if number == stop:
                    raise KeyboardInterrupt
                ((model(inputs).squeeze(1) - targets) ** 2).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        if traced:
            with finetrace.trace(model, optimizer, folder, loader=loader, epochs=2, start=start, probe_rows=5) as one:
                passes(one.batches)
        else:
            passes(lambda: loader)
        return model

    clip = torch.nn.utils.clip_grad_norm_
    plain, traced = run(tmp_path / "x", False), run(tmp_path / "loop", True)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), traced.parameters(), strict=True))
    table = read_table(tmp_path / "loop" / SIGNALS)
    assert str(table.schema.field("label").type) == "float" and table["example_id"].to_pylist() == 2 * list(range(12))
    np.testing.assert_allclose(table["loss"], (matrix(table, "logits")[:, 0] - table["label"].to_numpy()) ** 2)
    facts = read_manifest(tmp_path / "loop").facts["trace"]
    assert (facts["loss"], facts["gradient_norm"], facts["head"]) == ("squared_error", "of_the_update", "own")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", True, stop=2)
    assert not (tmp_path / "cut" / "manifest.json").exists() and torch.nn.utils.clip_grad_norm_ is clip


@pytest.mark.parametrize(("ids", "told"), [
    ("number", "has no column 'number'"), ([1, 2], "2 values"), (["a"] * 4, "of type <U1"),
    ([1, 2, 3, 3], "3 is the id of two"),
])
def test_ids_that_are_none(ids: Any, told: str) -> None:
    with pytest.raises(FinetraceError, match=told):
        ids_of(ids, {"other": [1], "rows": 4, "a": 1, "b": 2})


def test_what_it_cannot_see_through(tmp_path: Path) -> None:
    with pytest.raises(FinetraceError, match="no option 'id'; it has ids"):
        finetrace.TraceCallback(tmp_path, id=[1])
    with pytest.raises(FinetraceError, match="schedule 'often'"):
        finetrace.TraceCallback(tmp_path, probe="often")
    streamed = dataset().to_iterable_dataset()
    with pytest.raises(FinetraceError, match=r"IterableDataset|with rows"):
        trainer([finetrace.TraceCallback(tmp_path / "a")], tmp_path / "out", data=streamed, max_steps=2).train()
    many = classifier(num_labels=3)
    with pytest.raises(FinetraceError, match=r"step 0: the batch has labels \(4, 2\) for logits \(4, 3\); a trace"):
        rows = dataset().map(lambda row: {"labels": [0.0, 1.0]})
        trainer([finetrace.TraceCallback(tmp_path / "b", probe="none")], tmp_path / "out", many, data=rows,
                more={"compute_loss_func": lambda outputs, labels, **_: outputs.logits.sum()}).train()


@pytest.mark.parametrize("number", [0, 1], ids=["trainer", "loop"])
def test_the_scripts_of_the_document_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)[number]
    model_folder(tmp_path / "models" / "tiny", bert_config(layers=1))
    for name, rows in (("train", 32), ("validation", 8)):
        lines = [json.dumps({"sentence": s, "label": y, "number": i})
                 for i, (s, y) in enumerate(zip(*sentences(rows, 1), strict=True))]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    exec(compile(text, f"docs/own-trainings.md #{number}", "exec"), {"__name__": "__main__"})
    manifest = read_manifest(tmp_path / "runs" / ("traced", "looped")[number])
    assert manifest.facts["steps"] == 4 and manifest.facts["rows"]["signals"] == 64
    assert (tmp_path / "runs" / ("traced", "looped")[number] / "tokenizer" / "tokenizer.json").is_file()


def test_names_are_there_without_torch() -> None:
    text = "import sys, finetrace; assert 'torch' not in sys.modules; print('trace' in finetrace._PUBLIC)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    with pytest.raises(AttributeError, match="no attribute 'traces'"):
        _ = finetrace.traces

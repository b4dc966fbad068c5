"""Options of a trace, and loops, that cannot be right: a sentence before the training begins, not after it ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.integration.test_trace import classifier, dataset, trainer
from tests.training_fixtures import tokenizer

import finetrace
from finetrace.errors import FinetraceError
from finetrace.store.tables import read_table


@pytest.mark.parametrize(("options", "told"), [
    ({"probe_rows": "all"}, "probe_rows: 'all' is not a whole number"),
    ({"probe_rows": 1.5}, "probe_rows: 1.5 is not"),
    ({"seed": "x"}, "seed: 'x' is not"),
    ({"max_length": "x"}, "max_length: 'x' is not"),
    ({"task": 5}, "task: 5 is not a name"),
    ({"columns": ["text", "label"]}, "columns: .* is not names by names"),
    ({"metric": "acc"}, "metric: 'acc' is none that a trace knows; choose of accuracy"),
    ({"label_names": "ab"}, "label_names: 'ab' is no list of names"),
    ({"label_names": [0, 1]}, r"label_names: \[0, 1\] is no list of names"),
    ({"label_names": ["a", "a"]}, "label_names: 'a' stands twice"),
    ({"validation": "rows.jsonl"}, "validation: str: is no dataset with rows"),
    ({"validation": []}, "validation: list: is no dataset with rows"),
])
def test_an_option_that_says_nothing(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(FinetraceError, match=told):
        finetrace.TraceCallback(tmp_path / "trace", **options)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("probe", ["log2", "none"])
@pytest.mark.parametrize(("options", "told"), [
    ({"label_names": ["a", "b", "c"]}, r"3 names \(a, b, c\) for 2 classes"),
    ({"metric": "pearson"}, "'pearson' is none of a training whose target is class; choose of accuracy"),
    ({"ids": 5}, "ids: 5 is neither a list nor the name of a column"),
])
def test_an_option_that_does_not_fit_ends_the_training_at_its_start(tmp_path: Path, options: dict[str, Any], told: str,
                                                                    probe: str) -> None:
    one = trainer([finetrace.TraceCallback(tmp_path / "trace", probe=probe, **options)], tmp_path / "out")
    with pytest.raises(FinetraceError, match=told):
        one.train()
    assert one.state.global_step == 0


def test_a_validation_that_is_not_like_train(tmp_path: Path) -> None:
    from datasets import Dataset

    texts = Dataset.from_dict({"text": ["one", "two"], "labels": [0, 1]})
    with pytest.raises(FinetraceError, match="validation: its rows make no batch with the training's collator"):
        trainer([finetrace.TraceCallback(tmp_path / "trace", validation=texts)], tmp_path / "out").train()


def test_labels_that_are_no_classes(tmp_path: Path) -> None:
    wrong = dataset().map(lambda row: {"labels": 7})
    for probe in ("log2", "none"):
        with pytest.raises(FinetraceError, match="step 0: the batch has the label 7, and the model tells 2 classes"):
            trainer([finetrace.TraceCallback(tmp_path / probe, probe=probe)], tmp_path / "out", data=wrong,
                    more={"compute_loss_func": lambda outputs, labels, **_: outputs.logits.sum()}).train()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, told in ((tmp_path / "file", "is a file; a trace needs a folder"),
                         (tmp_path / "file" / "below", "cannot be made")):
        with pytest.raises(FinetraceError, match=told):
            trainer([finetrace.TraceCallback(folder)], tmp_path / "out").train()


def test_two_traces_of_one_training(tmp_path: Path) -> None:
    callbacks = [finetrace.TraceCallback(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(FinetraceError, match="watched by another trace; give a training one trace"):
        trainer(callbacks, tmp_path / "out").train()


def loop(folder: Path, work: Callable[[Any, Any, Any, Any], None], model: Any = None, **options: Any) -> None:
    """A loop whose body is `work(model, optimizer, loader, traced)`."""
    from transformers import DataCollatorWithPadding

    rows = dataset().remove_columns("number")
    loader = torch.utils.data.DataLoader(rows, 4, collate_fn=DataCollatorWithPadding(tokenizer()))
    model = (model or classifier()).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    collate = loader.collate_fn
    try:
        with finetrace.trace(model, optimizer, folder, loader=loader, **options) as traced:
            work(model, optimizer, loader, traced)
    finally:
        assert loader.collate_fn is collate


def update(model: Any, optimizer: Any, batch: Any) -> None:
    model(**batch).loss.backward()
    optimizer.step()


def forgot_the_batches(model: Any, optimizer: Any, loader: Any, _: Any) -> None:
    for batch in loader:
        update(model, optimizer, batch)


def moved_the_batches(model: Any, optimizer: Any, loader: Any, _: Any) -> None:
    for batch in loader:
        update(model, optimizer, batch.to("cpu"))


def never_steps(model: Any, _: Any, __: Any, traced: Any) -> None:
    for batch in traced.batches():
        model(**batch).loss.backward()


def steps_twice(model: Any, optimizer: Any, _: Any, traced: Any) -> None:
    for batch in traced.batches():
        update(model, optimizer, batch)
        optimizer.step()


def says_words(model: Any, optimizer: Any, _: Any, traced: Any) -> None:
    traced.evaluation("validation", accuracy="good")


@pytest.mark.parametrize(("work", "told"), [
    (forgot_the_batches, r"take the batches from traced.batches\(\)"),
    (moved_the_batches, r"take the batches from traced.batches\(\)"),
    (never_steps, "no update was seen"),
    (steps_twice, "an update without a batch"),
    (says_words, "accuracy is 'good', not a number"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_loop_that_is_not_as_it_must_be(tmp_path: Path, work: Any, told: str) -> None:
    with pytest.raises(FinetraceError, match=told):
        loop(tmp_path / "trace", work)
    assert [path.name for path in (tmp_path / "trace").iterdir()] == ["unfinished"]


def test_a_trace_that_cannot_begin_leaves_the_loader(tmp_path: Path) -> None:
    with pytest.raises(FinetraceError, match="3 names"):
        loop(tmp_path / "trace", forgot_the_batches, label_names=["a", "b", "c"])
    with pytest.raises(FinetraceError, match="start -1 is negative"):
        loop(tmp_path / "trace", forgot_the_batches, start=-1)


def test_a_head_of_words_is_named(tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    words = AutoModelForTokenClassification.from_config(classifier().config)
    with pytest.raises(FinetraceError, match=r"logits \(24, \d+, 2\), one row per token"):
        loop(tmp_path / "trace", forgot_the_batches, words)


def test_metrics_of_every_kind_of_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def evaluates(model: Any, optimizer: Any, _: Any, traced: Any) -> None:
        for batch in traced.batches():
            update(model, optimizer, batch)
        traced.evaluation("validation", accuracy=torch.tensor(0.5), loss=np.float32(2), acc=1)

    loop(tmp_path / "trace", evaluates)
    (row,) = [row for row in read_table(tmp_path / "trace" / "history.parquet").to_pylist() if row["kind"] == "eval"]
    assert (row["accuracy"], row["loss"]) == (0.5, 2.0)
    assert "evaluation: acc: no metric that a trace keeps" in caplog.text


def test_a_series_of_what_no_study_can_load(tmp_path: Path) -> None:
    """A trace that has not ended, and one of a plain module."""
    from finetrace.models.series import _listed, local_source

    step = tmp_path / "traced" / "checkpoints" / "step-00000000"
    step.mkdir(parents=True)
    (tmp_path / "traced" / "signals.parquet").touch()
    with pytest.raises(FinetraceError, match=r"none of transformers.*read the trace with finetrace\.open"):
        local_source("series.a", step)
    (tmp_path / "cut" / "unfinished").mkdir(parents=True)
    with pytest.raises(FinetraceError, match="a training that has not ended"):
        _listed("series.b", tmp_path / "cut", "")

"""Adaptive pre-training (TAPT, DAPT; Gururangan et al. 2020): masked-word training that goes on from checkpoints of a
trajectory, on other texts. The masked-word head is carried along."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace import seeds
from finetrace.config.models import AdaptSettings
from finetrace.config.training import TrainSettings
from finetrace.data.corpus import clean_texts
from finetrace.errors import FinetraceError
from finetrace.group import here
from finetrace.models.device import set_up
from finetrace.models.load import load_tokenizer, longest_input, set_dropout
from finetrace.models.masked import load_masked
from finetrace.models.precision import bf16_of
from finetrace.models.timeline import AXES, Timeline
from finetrace.store.checkpoints import checkpoint_name, list_weights, mark
from finetrace.store.files import write_json
from finetrace.store.tables import read_table, write_table
from finetrace.store.whole import is_whole, whole_folder
from finetrace.training.mlm import MaskedSeeds, MaskedTexts, Recipe, prepare_texts, train_masked
from finetrace.training.parts import devices
from finetrace.training.recorder import HISTORY
from finetrace.training.trainer import Plan

log = logging.getLogger(__name__)
FACTS = "facts.json"  # of a finished training: its evaluations, texts and size
START = "start"  # config of the start, whose dropout the finished model has


def starts_of(settings: AdaptSettings, timeline: Timeline) -> list[int]:
    """The checkpoints of the timeline from which a training starts, ascending."""
    if settings.from_steps == "last":
        return timeline.steps[-1:]
    if settings.from_steps == "all":
        return timeline.steps
    if absent := sorted(set(settings.from_steps) - set(timeline.steps)):
        raise FinetraceError(f"from_steps: {timeline.place} has no step {absent[0]}; it has "
                             f"{', '.join(map(str, timeline.steps))}")
    return sorted(set(settings.from_steps))


def adapt(settings: AdaptSettings, timeline: Timeline, texts: list[str], study_seed: int, *, scratch: Path, out: Path,
          model_out: Path, name: str, watch: Callable[[list[dict[str, Any]]], None] | None = None,
          on_plan: Callable[[Plan], None] | None = None, resume_seconds: float = 30.0) -> dict[str, Any]:
    """Adapt, or continue, and write the trajectory into `out` and the finished model into `model_out`.

    timeline: the opened start;  texts: before `strip` and `deduplicate`;  scratch: where unfinished trainings and
    finished ones of several starts live. With from_steps: last, `out` has the checkpoints and the history of one
    training. Else it has one checkpoint per start, called by the start's step, and history.parquet has two rows per
    start, `before` and `validation`, its held-out words before and after. Returns facts for the manifest. Of several
    processes all call it; those that follow write nothing and return none.
    """
    starts, run_seeds, single = (
        starts_of(settings, timeline), _seeds(study_seed, settings), settings.from_steps == "last")
    kept_texts, group = _texts(settings, texts, run_seeds["texts"]), here()
    log.info("%s: %d of %d texts; %d training%s from %s", name, len(kept_texts), len(texts), len(starts),
             "s" * (len(starts) > 1), ", ".join(f"step {step}" for step in starts))
    prepared: MaskedTexts | None = None
    for number, step in enumerate(starts):
        result = scratch / "done" / checkpoint_name(step)
        (due,) = group.told(group.leads and not is_whole(result))
        if due:
            with timeline.checkpoint(step) as folder:
                model = load_masked(folder, timeline.head, timeline.base, settings.dropout)
                config = _config(timeline.head or folder)
            bf16_of(model, settings.precision)  # refuses what cannot be
            set_up(model.num_parameters())
            prepared = prepared or _prepare(settings, kept_texts, timeline, model, run_seeds["held out"])
            _train_from_start(settings, model, config, prepared, run_seeds, scratch=scratch / f"from-{step:08d}",
                              result=result,
                              name=name if single else f"{name} from step {step} ({number + 1} of {len(starts)})",
                              watch=watch if single else None, on_plan=None if number else on_plan,
                              resume_seconds=resume_seconds)
        if watch and not single:
            watch(_history_rows(result, step))
    if not group.leads:
        return {}
    last_result = scratch / "done" / checkpoint_name(starts[-1])
    facts = _facts(last_result)
    if single:
        _finish_single_start(last_result, out)
    else:
        _finish_several_starts(scratch / "done", starts, out, settings.keep_history)
    _finish_model(settings, last_result, timeline, model_out)
    metrics = _metrics(facts["evaluations"])
    write_json(out / "metrics.json", metrics)
    set_up(facts["parameters"])  # where all was done before, for the name of the device
    return {"axis": AXES["adapt"] if single else timeline.axis, "start": timeline.place, "starts": starts,
            "seeds": run_seeds,
            "head": f"of models/{timeline.head.name}, put back" if timeline.head else "carried along",
            "parameters": facts["parameters"],
            "texts": {"corpus": len(texts), "clean": len(kept_texts), **facts["texts"]}, "device": devices(), **metrics}


def _train_from_start(settings: AdaptSettings, model: Any, config: Any, texts: MaskedTexts, run_seeds: dict[str, int],
                      *, scratch: Path, result: Path, **options: Any) -> None:
    """One training; `result` appears when it is finished. config: of the start, as it was."""
    masked_seeds = MaskedSeeds(run_seeds["order"], run_seeds["masks"], run_seeds["dropout"])
    if not here().leads:
        train_masked(model, texts, recipe_of(settings), masked_seeds, scratch=scratch, out=scratch, **options)
        return
    with whole_folder(result) as temporary:
        config.save_pretrained(temporary / START)
        evaluations = train_masked(model, texts, recipe_of(settings), masked_seeds, scratch=scratch, out=temporary,
                                   **options)
        write_json(temporary / FACTS, {"evaluations": evaluations, "texts": texts.facts(),
                                       "parameters": model.num_parameters()})
    shutil.rmtree(scratch, ignore_errors=True)


def recipe_of(settings: AdaptSettings) -> Recipe:
    """The part of the settings that is about the training itself; of several trainings each keeps its ends only."""
    train = TrainSettings(learning_rate=settings.learning_rate, batch_size=settings.batch_size,
                          accumulate=settings.accumulate, epochs=settings.epochs, max_steps=settings.steps,
                          scheduler=settings.scheduler, warmup=settings.warmup, weight_decay=settings.weight_decay,
                          beta2=settings.beta2, max_grad_norm=settings.max_grad_norm, precision=settings.precision)
    return Recipe(train, settings.epsilon, settings.mask_rate, settings.mask_replace, settings.whole_words,
                  settings.checkpoints if settings.from_steps == "last" else {"steps": []}, settings.evaluate)


def _seeds(study_seed: int, settings: AdaptSettings) -> dict[str, int]:
    """Purpose -> seed; the same for all starts, so that trainings from different checkpoints see the same batches and
    masks."""
    return {purpose: seeds.derive(study_seed, "adapt", purpose, settings.seed)
            for purpose in ("order", "masks", "dropout", "held out", "texts")}


def _texts(settings: AdaptSettings, texts: list[str], seed: int) -> list[str]:
    kept_texts = clean_texts(texts, settings.strip, settings.deduplicate)
    if settings.max_texts is not None and len(kept_texts) > settings.max_texts:
        places = np.random.default_rng(seed).permutation(len(kept_texts))[:settings.max_texts]
        kept_texts = [kept_texts[i] for i in np.sort(places)]
    return kept_texts


def _prepare(settings: AdaptSettings, texts: list[str], timeline: Timeline, model: Any, seed: int) -> MaskedTexts:
    tokenizer = load_tokenizer(timeline.tokenizer)
    limit = longest_input(model, tokenizer, settings.max_tokens)
    if settings.pack == "blocks" and settings.block_tokens > limit:
        raise FinetraceError(f"block_tokens: {settings.block_tokens} are more than the model's longest input, "
                             f"{limit}; lower it")
    return prepare_texts(texts, tokenizer, model, seed, max_tokens=limit,
                         block_tokens=settings.block_tokens if settings.pack == "blocks" else 0,
                         whole_words=settings.whole_words)


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)


def _facts(result: Path) -> dict[str, Any]:
    return json.loads((result / FACTS).read_text("utf-8"))


def _metrics(evaluations: list[dict[str, Any]]) -> dict[str, float]:
    """Held-out masked words before and after."""
    first, last = evaluations[0], evaluations[-1]
    return {"steps": last["step"],
            **{f"{when}/{key}": row[key] for when, row in (("before", first), ("validation", last))
               for key in ("loss", "accuracy")}}


def _history_rows(result: Path, step: int) -> list[dict[str, Any]]:
    """Rows of history.parquet for one start: its held-out words before and after."""
    evaluations = _facts(result)["evaluations"]
    rows = [{"step": step, "kind": "eval", "split": split, "examples": row["examples"], "epoch": row["epoch"],
             "loss": row["loss"], "accuracy": row["accuracy"]}
            for split, row in (("before", evaluations[0]), ("validation", evaluations[-1]))]
    return [{name: row.get(name) for name in HISTORY.names} for row in rows]


def _finish_single_start(result: Path, out: Path) -> None:
    for path in sorted(result.iterdir()):
        if path.name == "checkpoints":
            shutil.copytree(path, out / path.name)
        elif path.suffix == ".parquet":
            shutil.copyfile(path, out / path.name)


def _finish_several_starts(results: Path, steps: list[int], out: Path, keep_history: bool) -> None:
    """One checkpoint per start, two rows of history per start, and the histories of the trainings where asked for."""
    for step in steps:
        weights = list_weights(results / checkpoint_name(step) / "checkpoints")
        target = out / "checkpoints" / checkpoint_name(step)
        shutil.copytree(weights[max(weights)], target)
        mark(target, step)  # under the start's step
        if keep_history:
            write_table(out / "histories" / f"{checkpoint_name(step)}.parquet",
                        read_table(results / checkpoint_name(step) / "history.parquet"))
    rows = [row for step in steps for row in _history_rows(results / checkpoint_name(step), step)]
    write_table(out / "history.parquet", pa.Table.from_pylist(rows, schema=HISTORY))


def _finish_model(settings: AdaptSettings, result: Path, timeline: Timeline, out: Path) -> None:
    """The last checkpoint as a model folder, with the dropout that fine-tuning shall have."""
    weights = list_weights(result / "checkpoints")
    model, start = load_masked(weights[max(weights)]), _config(result / START)
    if settings.finetune_dropout is not None:
        set_dropout(model.config, settings.finetune_dropout)
    else:
        for key, value in start.to_dict().items():
            if "dropout" in key:
                setattr(model.config, key, value)
    if hasattr(start, "classifier_dropout"):
        model.config.classifier_dropout = start.classifier_dropout
    model.save_pretrained(out)
    load_tokenizer(timeline.tokenizer).save_pretrained(out)

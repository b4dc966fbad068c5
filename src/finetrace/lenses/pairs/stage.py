"""Minimal pairs: which of two sentences every checkpoint finds more probable -> outputs/PLACE/pairs/

ITEM is the place with _ for /. Killed at any moment, the same command continues after the last finished checkpoint;
what a checkpoint gives is kept, so that one more checkpoint costs only itself.
"""

import json
import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.lenses.pairs.settings import PairsSettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.manifest import Manifest, make_key, read_key
from finetrace.store.tables import read_table, write_table
from finetrace.store.whole import is_whole, whole_folder

log = logging.getLogger("finetrace")
REACHED = 0.3  # of what large matrix products reach, for the time that is told beforehand


@dataclass
class Work:
    """Everything that is the same for all checkpoints."""

    stage: Stage
    settings: PairsSettings
    timeline: Any
    tokenizer: Any
    device: str
    keys: dict[int, str] = field(default_factory=dict)
    head: Any = None
    tokenised: Any = None
    """The pairs, tokenised, once a checkpoint has said how long its input can be."""
    progress: Any = None
    """Masked copies of all checkpoints."""

    @property
    def pairs(self) -> Path:
        """What is asked."""
        return self.stage.layout.task(self.settings.set) / "pairs.parquet"

    def results(self, step: int) -> Path:
        return self.stage.layout.results("pairs", self.keys[step])


@dataclass(frozen=True)
class TokenisedPairs:
    """index: table of the pairs that fit into the model;  sentences: each text once, tokenised;  good, bad: (pair,)
    int64 numbers of sentences;  copies, tokens: what a checkpoint has to read;  left_out: pairs that are too long;
    same: pairs of which the tokenizer makes the same tokens."""

    index: Any
    sentences: Any
    good: np.ndarray
    bad: np.ndarray
    copies: int
    tokens: int
    left_out: int
    same: int


def main(stage: Stage) -> None:
    from finetrace.lenses.pairs.figures import draw
    from finetrace.models.timeline import open_timeline

    settings, folder, layout = stage.settings("pairs", PairsSettings), stage.folder / "pairs", stage.layout
    timeline = open_timeline(stage.folder / "trajectory", layout.root / "models", settings.checkpoints)
    read = [timeline.trajectory, layout.task(settings.set)]
    if not timeline.tokenizer.is_relative_to(timeline.trajectory):  # the model: tokenizer, head, base of adapters
        read.append(timeline.tokenizer)
    seed = seeds.derive(stage.seed, "pairs")
    manifest = stage.manifest("lens", {path: path for path in read}, {"pairs": seed}, outs=(folder,))
    write_lens(stage, folder, manifest, lambda out: _measure(_prepare(stage, settings, timeline), seed, manifest, out),
               draw)


def _prepare(stage: Stage, settings: PairsSettings, timeline: Any) -> Work:
    """What is to be scored, and where the result of each checkpoint is kept."""
    import torch

    from finetrace.models.digests import head_digest, tokenizer_digest
    from finetrace.models.load import load_tokenizer

    work = Work(stage, settings, timeline, load_tokenizer(timeline.tokenizer),
                "cuda" if torch.cuda.is_available() else "cpu")
    decides = {key: getattr(settings, key) for key in ("scoring", "precision")}
    common = {"pairs": read_key(work.pairs.parent), "tokenizer": tokenizer_digest(timeline.tokenizer),
              "head": head_digest(timeline.head)}
    for step in timeline.steps:
        work.keys[step] = make_key("pairs", decides, common | {"checkpoint": timeline.digest(step)},
                                   stage.code["measure"])
    return work


def _measure(work: Work, seed: int, manifest: Manifest, out: Path) -> Record:
    """Score the checkpoints that are missing; write tables and numbers of all."""
    from finetrace.lenses.pairs import summary
    from finetrace.store.hidden import step_name

    _compute(work)
    steps = work.timeline.steps
    index = read_table(work.results(steps[0]) / "index.parquet")
    scores = np.stack([_scores(work.results(step)) for step in steps])
    pairs = _pairs_of(index)
    table, reasons = summary.table(steps, scores, pairs, draws=work.settings.draws, seed=seed)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", summary.metrics(table, steps, pairs))
    write_curves(out / "curves.csv", summary.curves(table, steps, pairs))
    (out / "scores").mkdir()
    write_table(out / "scores" / "index.parquet", index)
    for step in steps:
        shutil.copyfile(work.results(step) / "scores.parquet", out / "scores" / f"{step_name(step)}.parquet")
    facts = _facts(work.results(steps[-1]))
    head = f"re-attached from {work.timeline.head.name}" if work.timeline.head else "own"
    manifest.facts = {
        "steps": steps, "axis": work.timeline.axis, "head": head, "set": work.settings.set,
        "scoring": work.settings.scoring, **facts, "not_acquired": reasons,
        "interval": "95 %: Wilson's, over paradigms with the variance of the mean; margins: Student's t over pairs "
                    "within paradigms; ages: bootstrap over pairs within paradigms"}
    return {"place": work.stage.place, "steps": steps, "axis": work.timeline.axis, "head": head,
            "scoring": work.settings.scoring, "set": work.settings.set, "pairs": index.num_rows,
            **summary.drawn(table, steps, pairs, reasons)}


def _compute(work: Work) -> None:
    """Scores of the checkpoints that have none yet."""
    timeline = work.timeline
    # checkpoints with equal weights are done once
    step_of_key = {work.keys[step]: step for step in reversed(timeline.steps)}
    todo = [step for step in sorted(step_of_key.values()) if not is_whole(work.results(step))]
    log.info("%s: %d checkpoints (%d different), %d to do; scoring: %s", work.stage.label, len(timeline.steps),
             len(step_of_key), len(todo), work.settings.scoring)
    for number, step in enumerate(todo):
        with timeline.checkpoint(step) as folder:
            _checkpoint(work, step, folder, len(todo) - number)
    if work.progress:
        work.progress.close()


def _checkpoint(work: Work, step: int, folder: Path, steps_left: int) -> None:
    """Scores of one checkpoint, kept with the index of pairs when they are whole."""
    from finetrace.inference.pseudo_likelihood import pseudo_log_likelihoods
    from finetrace.models.device import device_name, fit_threads, set_up
    from finetrace.models.masked_head import load_masked_head
    from finetrace.models.precision import bf16_of
    from finetrace.models.rows import Collator
    from finetrace.models.saved import load_trained_encoder

    started, timeline, settings = time.monotonic(), work.timeline, work.settings
    if timeline.head is None or work.head is None:
        work.head = load_masked_head(timeline.head or folder, work.tokenizer).to(work.device)
    encoder = load_trained_encoder(folder, timeline.base).to(work.device)
    (set_up if work.device == "cuda" else fit_threads)(encoder.num_parameters())
    if work.tokenised is None:
        work.tokenised = _read(work, encoder)
        work.progress = _announce(work, encoder, steps_left)
    tokenised, done = work.tokenised, work.progress.done
    collator = Collator(work.tokenizer, 8 if work.device == "cuda" else None, side="right")
    try:
        scores = pseudo_log_likelihoods(
            encoder, work.head, tokenised.sentences, work.tokenizer.mask_token_id, collator,
            batch_tokens=settings.batch_tokens, memory_bytes=settings.memory_mib * 2**20,
            bf16=bf16_of(encoder, settings.precision),
            tell=lambda count: work.progress.update(done + count, f"checkpoint {step:,}"))
    except FinetraceError as error:
        raise FinetraceError(f"{work.stage.label}: step {step} of {timeline.trajectory}: {error}") from error
    good, bad = scores[tokenised.good], scores[tokenised.bad]
    with whole_folder(work.results(step)) as out:
        write_table(out / "scores.parquet", {"pair": np.arange(len(good), dtype=np.int32), "good": good, "bad": bad})
        write_table(out / "index.parquet", tokenised.index)
        write_json(out / "told.json", {"pairs": len(good), "left_out": {"too long": tokenised.left_out},
                                       "same_tokens": tokenised.same, "copies": tokenised.copies,
                                       "device": device_name()})
    log.info("%s: step %s in %.1f s: the good sentence is the more probable one in %.1f %% of %s pairs",
             work.stage.label, f"{step:,}", time.monotonic() - started, 100 * float(np.mean(good > bad)),
             f"{len(good):,}")


def _read(work: Work, encoder: Any) -> TokenisedPairs:
    """Tokenise the pairs, each sentence once, and leave out those that are longer than the model's input."""
    import pyarrow as pa

    from finetrace.inference.pseudo_likelihood import Sentences, count_copies, encode_sentences
    from finetrace.models.load import forward_names, longest_input
    from finetrace.models.rows import require_known

    where, table = str(work.pairs), read_table(work.pairs)
    if table.num_rows == 0:
        raise FinetraceError(f"{where}: has no pairs; run its stage again")
    texts = [text for pair in zip(table["good"].to_pylist(), table["bad"].to_pylist(), strict=True) for text in pair]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}  # good beside bad: they share copies
    encoded = encode_sentences(list(numbers), work.tokenizer, inputs=forward_names(encoder) | {"attention_mask"},
                               scoring=work.settings.scoring, where=where)
    require_known(encoded.rows, work.tokenizer, where)
    sentence = np.array([numbers[text] for text in texts]).reshape(-1, 2)
    limit = longest_input(encoder, work.tokenizer, 512)
    fitting = (encoded.rows.lengths <= limit) & (encoded.tokens > 0)
    fits = np.flatnonzero(fitting[sentence].all(axis=1))
    if not len(fits):
        raise FinetraceError(f"{where}: none of its {len(sentence)} pairs fits into the {limit} tokens of this model; "
                             "name another set")
    used, places = np.unique(sentence[fits], return_inverse=True)
    good, bad = places.reshape(-1, 2).T
    sentences = Sentences(encoded.rows.take(used), [encoded.words[i] for i in used])
    ids = sentences.rows.features["input_ids"]
    same_tokens = sum(ids[g] == ids[b] for g, b in zip(good, bad, strict=True))
    if same_tokens:
        log.warning("%s: the tokenizer makes the same tokens of both sentences of %s pairs, each of which counts half",
                    where, f"{same_tokens:,}")
    index = table.take(fits).add_column(0, "pair", pa.array(range(len(fits)), pa.int32()))
    for name, side in (("good_tokens", good), ("bad_tokens", bad)):
        index = index.append_column(name, pa.array(sentences.tokens[side], pa.int32()))
    copies, tokens = count_copies(sentences, work.tokenizer.mask_token_id)
    return TokenisedPairs(index, sentences, good, bad, copies, tokens, len(sentence) - len(fits), same_tokens)


def _announce(work: Work, encoder: Any, steps_left: int) -> Any:
    """What is about to be done and what it takes, before it is; returns the Progress of it."""
    from finetrace.models.device import operations_per_second
    from finetrace.progress import Progress, duration

    tokenised = work.tokenised
    weights = sum(p.numel() for n, p in encoder.named_parameters() if "embeddings" not in n)
    operations = 2.0 * (weights * tokenised.tokens + work.head.decoder.numel() * tokenised.copies) * steps_left
    log.info("%s: %s pairs, %s left out (too long); %s sentences, %s masked copies of them for %s scored tokens; %d "
             "checkpoints to do, about %s", work.stage.label, f"{len(tokenised.good):,}", f"{tokenised.left_out:,}",
             f"{len(tokenised.sentences):,}", f"{tokenised.copies:,}", f"{int(tokenised.sentences.tokens.sum()):,}",
             steps_left, duration(operations / (REACHED * operations_per_second())))
    return Progress(tokenised.copies * steps_left, work.stage.label, unit="masked sentence")


def _scores(results: Path) -> np.ndarray:
    """(pair, 2) float64 nats."""
    table = read_table(results / "scores.parquet")
    return np.stack([table[name].to_numpy() for name in ("good", "bad")], axis=1)


def _facts(results: Path) -> dict[str, Any]:
    path = results / "told.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FinetraceError(f"{results}: cannot be read ({error}); delete the folder and run the stage "
                             "again") from error
    return facts


def _pairs_of(index: Any) -> Any:
    from finetrace.lenses.pairs.scores import Pairs

    tokens = np.stack([index[name].to_numpy() for name in ("good_tokens", "bad_tokens")], axis=1)
    return Pairs(index["field"].to_pylist(), index["phenomenon"].to_pylist(), index["paradigm"].to_pylist(),
                 index["control"].to_numpy(zero_copy_only=False), tokens.astype(np.int64))

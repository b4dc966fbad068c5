"""Facts that the masked-word predictions of every layer know -> outputs/PLACE/cloze/

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
from finetrace.config.base import as_dict
from finetrace.errors import FinetraceError
from finetrace.lenses.cloze.settings import ClozeSettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import sha256_file, sha256_value, write_json
from finetrace.store.manifest import Manifest, make_key, read_key
from finetrace.store.tables import read_table, write_table
from finetrace.store.whole import is_whole, whole_folder

log = logging.getLogger("finetrace")
REACHED = 0.5  # of what large matrix products reach, for the time that is told beforehand


@dataclass
class Work:
    """Everything that is the same for all checkpoints."""

    stage: Stage
    settings: ClozeSettings
    timeline: Any
    seed: int
    with_heads: set[int]
    tokenizer: Any
    vocabulary: np.ndarray
    words: dict[str, Any]
    device: str
    prompts: Any = None
    head: Any = None
    texts: Any = None
    """Masked texts to train on and held-out ones."""
    keys: dict[int, str] = field(default_factory=dict)
    progress: Any = None
    """Facts and training steps of all checkpoints, once it is known how many there are."""

    @property
    def facts(self) -> Path:
        """What is asked."""
        return self.stage.layout.task(self.settings.facts) / "facts.parquet"

    @property
    def corpus(self) -> Path:
        """What heads and maps learn from."""
        return self.stage.layout.task(self.settings.corpus)

    def readouts(self, step: int) -> list[str]:
        return [r for r in self.settings.readouts if r == "own" or step in self.with_heads]

    def results(self, step: int) -> Path:
        return self.stage.layout.results("cloze", self.keys[step])


def main(stage: Stage) -> None:
    from finetrace.lenses.cloze.figures import draw
    from finetrace.models.timeline import chosen_steps, open_timeline

    settings, folder, layout = stage.settings("cloze", ClozeSettings), stage.folder / "cloze", stage.layout
    timeline = open_timeline(stage.folder / "trajectory", layout.root / "models", settings.checkpoints)
    with_heads: set[int] = set()
    read = [timeline.trajectory, layout.task(settings.facts)]
    if {"trained", "tuned"} & set(settings.readouts):
        with_heads.update(chosen_steps(timeline.steps, settings.heads_checkpoints, timeline.trajectory))
        read.append(layout.task(settings.corpus))
    if not timeline.tokenizer.is_relative_to(timeline.trajectory):  # the model: tokenizer, head, base of adapters
        read.append(timeline.tokenizer)
    inputs: dict[Path, Path | str] = {path: path for path in read}
    if isinstance(words := _words(stage, settings), Path):
        inputs[words] = sha256_file(words) if words.is_file() else ""
    seed = seeds.derive(stage.seed, "cloze", settings.corpus)
    manifest = stage.manifest("lens", inputs, {"cloze": seed}, outs=(folder,))
    write_lens(stage, folder, manifest,
               lambda out: _measure(_prepare(stage, settings, timeline, seed, with_heads), manifest, out), draw)


def _words(stage: Stage, settings: ClozeSettings) -> Path | str:
    """Among which words objects are ranked: common, full, or a file."""
    return settings.vocabulary if settings.vocabulary in ("common", "full") else stage.layout.root / settings.vocabulary


def _prepare(stage: Stage, settings: ClozeSettings, timeline: Any, seed: int, with_heads: set[int]) -> Work:
    """What is to be found, and where the result of each checkpoint is kept."""
    import torch

    from finetrace.data.common_vocabulary import restricted_vocabulary
    from finetrace.models.digests import head_digest, tokenizer_digest
    from finetrace.models.load import load_tokenizer

    tokenizer = load_tokenizer(timeline.tokenizer)
    vocabulary, words = restricted_vocabulary(tokenizer, _words(stage, settings))
    work = Work(stage, settings, timeline, seed, with_heads, tokenizer, vocabulary, words,
                "cuda" if torch.cuda.is_available() else "cpu")
    common = {"facts": read_key(work.facts.parent), "tokenizer": tokenizer_digest(timeline.tokenizer),
              "vocabulary": sha256_value(vocabulary.tolist()),
              "head": head_digest(timeline.head)}
    corpus_keys = {"corpus": read_key(work.corpus)} if with_heads else {}
    for step in timeline.steps:
        decides = {k: getattr(settings, k) for k in ("lama_compat", "top", "precision")}
        decides["readouts"] = work.readouts(step)
        if step in with_heads:
            decides |= {"dtype": settings.dtype, "seed": work.seed, "heads": as_dict(settings.heads),
                        "tuned": as_dict(settings.tuned)}
        work.keys[step] = make_key("cloze", decides, common | {"checkpoint": timeline.digest(step)}
                                   | (corpus_keys if step in with_heads else {}), stage.code["measure"])
    return work


def _compute(work: Work) -> None:
    """Ranks of the checkpoints that have none yet."""
    timeline = work.timeline
    # checkpoints with equal weights are done once
    step_of_key = {work.keys[step]: step for step in reversed(timeline.steps)}
    todo = [step for step in sorted(step_of_key.values()) if not is_whole(work.results(step))]
    log.info("%s: %d checkpoints (%d different), %d to do; %s, ranked among %s words", work.stage.label,
             len(timeline.steps), len(step_of_key), len(todo),
             ", ".join(work.settings.readouts), f"{len(work.vocabulary):,}")
    for number, step in enumerate(todo):
        with timeline.checkpoint(step) as folder:
            _checkpoint(work, step, folder, todo[number:])
    if work.progress:
        work.progress.close()


def _checkpoint(work: Work, step: int, folder: Path, steps_left: list[int]) -> None:
    """Ranks of one checkpoint, kept with the index of facts when they are whole."""
    from finetrace.lenses.cloze.records import to_table
    from finetrace.models.device import device_name, fit_threads, set_up
    from finetrace.models.masked_head import load_masked_head
    from finetrace.models.saved import load_trained_encoder

    started, timeline = time.monotonic(), work.timeline
    if timeline.head is None or work.head is None:
        work.head = load_masked_head(timeline.head or folder, work.tokenizer).to(work.device)
    encoder = load_trained_encoder(folder, timeline.base).to(work.device)
    (set_up if work.device == "cuda" else fit_threads)(encoder.num_parameters())
    if encoder.config.hidden_size != _dim(work.head):
        raise FinetraceError(f"{folder}: is {encoder.config.hidden_size} wide, the masked-word head of "
                             f"{timeline.head or folder} reads {_dim(work.head)}; they are of different models")
    if work.prompts is None:
        _read(work, encoder)
        work.progress = _announce(work, encoder, steps_left)
    try:
        ranks, notes = _ranks(work, encoder, step)
    except (ValueError, FinetraceError) as error:
        raise FinetraceError(f"{work.stage.label}: step {step} of {timeline.trajectory}: {error}") from error
    with whole_folder(work.results(step)) as out:
        write_table(out / "ranks.parquet", to_table(ranks))
        write_table(out / "index.parquet", _index(work))
        write_json(out / "facts.json", {"counts": _counts(work.prompts), "heads": notes, "words": len(work.vocabulary),
                                        "device": device_name()})
    accuracies = ", ".join(f"{r} {100 * (result.rank[-1] == 1).mean():.1f} %" for r, result in ranks.items())
    log.info("%s: step %s in %.1f s: of %s facts the last layer knows: %s", work.stage.label, f"{step:,}",
             time.monotonic() - started, f"{len(work.prompts):,}", accuracies)


def _ranks(work: Work, encoder: Any, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read-out -> Ranks, and what is to be told of the heads that were trained for it."""
    from finetrace.lenses.cloze.states import fit_readouts, rank_facts
    from finetrace.models.rows import Collator

    collator = Collator(work.tokenizer, 8 if work.device == "cuda" else None, side="right")
    readouts, fitted, progress = work.readouts(step), {}, work.progress
    if step in work.with_heads:
        before = progress.done
        fitted = fit_readouts(encoder, work.head, work.texts, readouts, work.settings, collator, seed=work.seed,
                              scratch=work.stage.layout.scratch("cloze", work.keys[step]),
                              tell=lambda readout: progress.advance(f"step {step:,}: {readout}"))
        progress.done = before + _steps(work.settings, readouts)  # also where all layers stopped early
    ranks = rank_facts(encoder, work.head, work.prompts, work.vocabulary, fitted, readouts, work.settings, collator,
                       tell=lambda count: progress.update(progress.done + count, f"step {step:,}: facts"))
    return ranks, {name: {"loss_before_nats": trained.first_loss.round(4).tolist(),
                          "loss_nats": trained.loss.round(4).tolist(),
                          "steps": trained.steps.tolist(), "stopped": trained.stopped.tolist()}
                   for name, trained in fitted.items()}


def _steps(settings: Any, readouts: list[str]) -> int:
    """Training steps of the read-outs of one checkpoint."""
    return settings.heads.steps * ("trained" in readouts) + settings.tuned.steps * ("tuned" in readouts)


def _dim(head: Any) -> int:
    return head.decoder.shape[1] if head.transform is None else head.transform.dense_weight.shape[1]


def _read(work: Work, encoder: Any) -> None:
    """Tokenise facts and, where heads are trained, texts: once for all checkpoints."""
    from finetrace.data.corpus import corpus_texts
    from finetrace.inference.masked import mask_texts
    from finetrace.inference.prompts import encode_prompts
    from finetrace.models.load import forward_names, longest_input

    length, inputs = longest_input(encoder, work.tokenizer, 512), forward_names(encoder) | {"attention_mask"}
    work.vocabulary = work.vocabulary[work.vocabulary < len(work.head.decoder)]  # some tokenizers have more
    work.prompts = encode_prompts(read_table(work.facts), work.tokenizer, work.vocabulary, max_length=length,
                                  inputs=inputs, where=str(work.facts), lama_compat=work.settings.lama_compat)
    if not work.with_heads:
        return
    texts, heads = corpus_texts(work.corpus), work.settings.heads
    order = seeds.generator(work.seed, "texts").permutation(len(texts))[:heads.texts or len(texts)]
    held_out = max(1, round(heads.held_out * len(order)))
    if len(order) - held_out < 1:
        raise FinetraceError(f"{work.corpus}: {len(texts)} texts cannot be parted into training and choice; name "
                             "another corpus")
    chosen = {"train": order[held_out:], "held_out": order[:held_out]}
    work.texts = {name: mask_texts([texts[i] for i in np.sort(part)], work.tokenizer, max_length=length, inputs=inputs,
                                   seed=seeds.derive(work.seed, name), embeddings=len(work.head.decoder))
                  for name, part in chosen.items()}


def _announce(work: Work, encoder: Any, steps_left: list[int]) -> Any:
    """What is about to be done and what it takes, before it is; returns the Progress of it."""
    from finetrace.inference.prompts import left_out
    from finetrace.models.device import operations_per_second
    from finetrace.models.families import layer_count
    from finetrace.progress import Progress, duration

    settings, prompts, layers = work.settings, work.prompts, layer_count(encoder.config)
    decode = 2.0 * work.head.decoder.numel()
    weights = sum(p.numel() for n, p in encoder.named_parameters() if "embeddings" not in n)
    operations, units, disk = 0.0, 0, 0
    for step in steps_left:
        readouts = work.readouts(step)
        operations += 2.0 * weights * int(prompts.rows.lengths.sum()) + len(readouts) * layers * len(prompts) * decode
        units += len(prompts) + _steps(settings, readouts)
        for readout in set(readouts) - {"own"}:
            recipe = settings.heads if readout == "trained" else settings.tuned
            operations += 3 * recipe.steps * recipe.batch * layers * decode
        if set(readouts) - {"own"}:
            operations += 2.0 * weights * sum(int(t.rows.lengths.sum()) for t in work.texts.values())
            disk = sum(len(t.places) for t in work.texts.values()) * layers * encoder.config.hidden_size
            disk *= np.dtype(settings.dtype).itemsize
    seconds = operations / (REACHED * operations_per_second())
    log.info("%s: %s of %s facts can be asked (%s), %d layers; %d checkpoints to do, about %s and %.0f MB on disk at a "
             "time", work.stage.label, f"{len(prompts):,}", f"{sum(c['facts'] for c in prompts.counts.values()):,}",
             left_out(prompts.counts), layers, len(steps_left), duration(seconds), disk / 1e6)
    scratch = work.stage.layout.scratch("cloze", "")
    scratch.mkdir(parents=True, exist_ok=True)
    if disk > shutil.disk_usage(scratch).free:
        raise FinetraceError(f"cloze: cached states need {disk / 1e9:.1f} GB in {scratch}, more than is free; lower "
                             "cloze.heads.texts or set cloze.dtype: float16")
    return Progress(units, work.stage.label)


def _index(work: Work) -> Any:
    """The facts that were asked: number, then columns of facts.parquet, and the number of candidates (0 without)."""
    import pyarrow as pa

    table = read_table(work.facts).take(work.prompts.kept)
    columns = ["fact_id", "corpus", "relation", "relation_type", "subject", "object", "held_out"]
    counts = [0 if c is None else len(c) for c in work.prompts.candidates]
    return table.select(columns).add_column(0, "fact", pa.array(range(table.num_rows), pa.int32())).append_column(
        "candidates", pa.array(counts, pa.int32()))


def _counts(prompts: Any) -> dict[str, dict[str, int]]:
    return {f"{corpus}/{relation}": counts for (corpus, relation), counts in prompts.counts.items()}


def _measure(work: Work, manifest: Manifest, out: Path) -> Record:
    """Compute the checkpoints that are missing; write tables and numbers of all."""
    from finetrace.lenses.cloze import summary, views
    from finetrace.store.hidden import step_name

    _compute(work)
    timeline, steps = work.timeline, work.timeline.steps
    ranks, notes = _results(work)
    index = read_table(work.results(steps[0]) / "index.parquet")
    facts = summary.Facts(index["corpus"].to_pylist(), index["relation"].to_pylist(),
                          index["relation_type"].to_pylist(), index["held_out"].to_numpy(zero_copy_only=False),
                          index["candidates"].to_numpy())
    layers = next(iter(ranks[steps[-1]].values())).rank.shape[0]
    vocabulary = "full" if work.settings.vocabulary == "full" else "common"
    table = summary.table(ranks, facts, vocabulary)
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", summary.metrics(table, facts, steps, layers, vocabulary))
    write_curves(out / "curves.csv", summary.curves(table, facts, steps, layers, vocabulary))
    (out / "facts").mkdir()
    write_table(out / "facts" / "index.parquet", index)
    for step in steps:
        shutil.copyfile(work.results(step) / "ranks.parquet", out / "facts" / f"{step_name(step)}.parquet")
    head, words = f"re-attached from {timeline.head.name}" if timeline.head else "own", notes[steps[0]]["words"]
    manifest.facts = {
        "steps": steps, "axis": timeline.axis, "layers": layers, "head": head,
        "decoder": "word embeddings of the folder that the head is from", "readouts": list(work.settings.readouts),
        "heads_steps": sorted(work.with_heads), "vocabulary": work.words | {"words": words},
        "facts": len(facts.corpora), "held_out": int(facts.held_out.sum()), "relations": notes[steps[0]]["counts"],
        "heads": {str(step): entry["heads"] for step, entry in notes.items() if entry["heads"]},
        "chance": {c: guess for c in dict.fromkeys(facts.corpora)
                   if np.isfinite(guess := summary.chance(facts, c, True))},
        "union": f"layers 1 to {layers - 1}",
        "interval": "95 %: Wilson for shares and MRR, over relations with the variance of the mean; else "
                    "jackknife over facts within relations",
        "device": notes[steps[-1]]["device"]}
    shown = [r for r in ("own", "trained", "tuned") if r in work.settings.readouts]
    return {"place": work.stage.place, "steps": steps, "axis": timeline.axis, "words": words, "head": head,
            "readout": shown[0],
            "corpora": {corpus: views.View(table, steps, layers, vocabulary, corpus).drawn(shown, facts)
                        for corpus in dict.fromkeys(facts.corpora)}}


def _results(work: Work) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """Step -> read-out -> Ranks, and step -> what is to be told of it."""
    from finetrace.lenses.cloze import records

    ranks, notes = {}, {}
    without_top = ["fact", "layer", "readout", "rank", "rank_full", "rank_candidates", "log_prob"]
    for step in work.timeline.steps:
        path = work.results(step) / "ranks.parquet"
        try:
            ranks[step] = records.from_table(read_table(path, without_top))
            notes[step] = json.loads((work.results(step) / "facts.json").read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise FinetraceError(f"{path.parent}: cannot be read ({error}); delete the folder and run the stage "
                                 "again") from error
    return ranks, notes

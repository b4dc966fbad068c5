"""python pipelines/cloze.py PROBE -- facts that the masked-word predictions of every layer know -> outputs/PLACE/cloze/

PROBE is an entry of `cloze_probes`. Killed at any moment, the same command continues after the last finished checkpoint; what a
checkpoint gives is kept, so that one more checkpoint costs only itself.
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
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import PACKAGE, Stage, run, write_curves, write_figures
from finetrace.store.files import atomic_folder, sha256_file, sha256_folder, sha256_value, write_json
from finetrace.store.manifest import code_digest, make_key, read_key
from finetrace.store.tables import read_table, write_table

log = logging.getLogger("finetrace")
SCORES = ("lenses/cloze/ranking.py", "lenses/cloze/readouts.py", "lenses/cloze/fitting.py", "lenses/cloze/records.py",
          "hidden/cloze.py", "hidden/masked.py", "hidden/extract.py", "hidden/prompts.py", "models/masked_head.py",
          "models/families.py", "models/load.py", "models/saved.py", "models/adapters.py", "models/rows.py",
          "training/masking.py", "data/common_vocabulary.py", "data/corpus.py")
"""Source that decides what a checkpoint gives."""
ROOMS = (*SCORES, "lenses/cloze", "lenses/intervals.py", "models/timeline.py")
NOT_TOKENIZER = ("config.json", "manifest.json", "content.json", "model.safetensors.index.json", "series.json")
RATE = {"cpu": 4e10, "cuda": 2e13}  # floating-point operations per second (and core), for the time that is told beforehand


@dataclass
class Units:
    """Counts what is done of all checkpoints: facts and training steps."""

    progress: Any
    done: int = 0

    def add(self, units: int, note: str) -> None:
        self.done += units
        self.progress.update(self.done, note)


@dataclass
class Work:
    """Everything that is the same for all checkpoints."""

    stage: Stage
    entry: Any
    settings: Any
    timeline: Any
    tokenizer: Any
    vocabulary: np.ndarray
    words: dict[str, Any]
    facts_path: Path
    corpus: Path
    seed: int
    device: str
    with_heads: set[int]
    prompts: Any = None
    head: Any = None
    texts: Any = None
    """Masked texts to train on and held-out ones."""
    keys: dict[int, str] = field(default_factory=dict)
    units: Units | None = None

    def readouts(self, step: int) -> list[str]:
        return [r for r in self.settings.readouts if r == "own" or step in self.with_heads]

    def results(self, step: int) -> Path:
        return self.stage.layout.results("cloze", self.keys[step])


def main(stage: Stage) -> None:
    entry = stage.pick("cloze_probes", stage.study.cloze_probes)
    work = _prepare(stage, entry)
    layout, timeline, settings = stage.layout, work.timeline, work.settings
    place = layout.place(entry.trajectory)
    inputs = {timeline.trajectory: timeline.trajectory, work.facts_path.parent: work.facts_path.parent}
    if work.with_heads:
        inputs[work.corpus] = work.corpus
    asked = as_dict(settings) | {key: value for key, value in as_dict(entry).items() if value}
    manifest = stage.manifest("lens", asked, inputs, {"cloze": work.seed}, rooms=ROOMS)
    same = {work.keys[step]: step for step in reversed(timeline.steps)}  # checkpoints with equal weights are done once
    todo = [step for step in sorted(same.values()) if not work.results(step).is_dir()]
    log.info("%s: %d checkpoints (%d different), %d to do; %s, ranked among %s words", stage.label, len(timeline.steps),
             len(same), len(todo), ", ".join(settings.readouts), f"{len(work.vocabulary):,}")
    for number, step in enumerate(todo):
        with timeline.checkpoint(step) as folder:
            _checkpoint(work, step, folder, todo[number:])
    if work.units:
        work.units.progress.close()
    _write(work, place / "cloze", manifest)


def _prepare(stage: Stage, entry: Any) -> Work:
    import torch

    from finetrace.data.common_vocabulary import restricted_vocabulary
    from finetrace.models.load import load_tokenizer
    from finetrace.models.timeline import chosen_steps, open_timeline

    layout, settings = stage.layout, stage.study.cloze
    timeline = open_timeline(layout.place(entry.trajectory) / "trajectory", layout.root / "models",
                             entry.checkpoints or settings.checkpoints)
    tokenizer = load_tokenizer(timeline.tokenizer)
    wanted = settings.vocabulary if settings.vocabulary in ("common", "full") else layout.root / settings.vocabulary
    vocabulary, words = restricted_vocabulary(tokenizer, wanted)
    facts, corpus = layout.task(entry.facts), layout.task(entry.corpus)
    trained = {"trained", "tuned"} & set(settings.readouts)
    with_heads = set(chosen_steps(timeline.steps, settings.heads_checkpoints, timeline.trajectory)) if trained else set()
    work = Work(stage, entry, settings, timeline, tokenizer, vocabulary, words, facts / "facts.parquet", corpus,
                seeds.derive(stage.study.study.seed, "cloze", entry.corpus), "cuda" if torch.cuda.is_available() else "cpu",
                with_heads)
    common = {"facts": read_key(facts), "tokenizer": _tokenizer_digest(timeline.tokenizer),
              "vocabulary": sha256_value(vocabulary.tolist()),
              "head": _head_digest(timeline.head) if timeline.head else "own"}
    code = code_digest(PACKAGE, *SCORES)
    of_texts = {"corpus": read_key(corpus)} if with_heads else {}
    for step in timeline.steps:
        decides = {k: getattr(settings, k) for k in ("lama_compat", "top", "precision")} | {"readouts": work.readouts(step)}
        if step in with_heads:
            decides |= {"dtype": settings.dtype, "seed": work.seed, "heads": as_dict(settings.heads),
                        "tuned": as_dict(settings.tuned)}
        work.keys[step] = make_key("cloze", decides, common | {"checkpoint": timeline.digest(step)}
                                   | (of_texts if step in with_heads else {}), code)
    return work


def _checkpoint(work: Work, step: int, folder: Path, left: list[int]) -> None:
    """Ranks of one checkpoint, kept with the index of facts when they are whole."""
    from finetrace.lenses.cloze.records import to_table
    from finetrace.models.device import fit_threads, set_up
    from finetrace.models.masked_head import load_masked_head
    from finetrace.models.saved import load_trained_encoder

    started, timeline = time.monotonic(), work.timeline
    if timeline.head is None or work.head is None:
        work.head = load_masked_head(timeline.head or folder).to(work.device)
    encoder = load_trained_encoder(folder, timeline.base).to(work.device)
    (set_up if work.device == "cuda" else fit_threads)(encoder.num_parameters())
    if encoder.config.hidden_size != _dim(work.head):
        raise FinetraceError(f"{folder}: is {encoder.config.hidden_size} wide, the masked-word head of {timeline.head or folder} "
                             f"reads {_dim(work.head)}; they are of different models")
    if work.prompts is None:
        _read(work, encoder)
        work.units = _announce(work, encoder, left)
    try:
        ranks, told = _ranks(work, encoder, step)
    except (ValueError, FinetraceError) as error:
        raise FinetraceError(f"{work.stage.label}: step {step} of {timeline.trajectory}: {error}") from error
    with atomic_folder(work.results(step)) as out:
        write_table(out / "ranks.parquet", to_table(ranks))
        write_table(out / "index.parquet", _index(work))
        write_json(out / "facts.json", {"counts": _counts(work.prompts), "heads": told, "words": len(work.vocabulary)})
    known = ", ".join(f"{r} {100 * (one.rank[-1] == 1).mean():.1f} %" for r, one in ranks.items())
    log.info("%s: step %s in %.1f s: of %s facts the last layer knows: %s", work.stage.label, f"{step:,}",
             time.monotonic() - started, f"{len(work.prompts):,}", known)


def _ranks(work: Work, encoder: Any, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read-out -> Ranks, and what is to be told of the heads that were trained for it."""
    from finetrace.hidden.cloze import fit_readouts, rank_facts
    from finetrace.models.rows import Collator

    collator = Collator(work.tokenizer, 8 if work.device == "cuda" else None, side="right")
    readouts, fitted, units = work.readouts(step), {}, work.units
    if step in work.with_heads:
        before = units.done
        fitted = fit_readouts(encoder, work.head, work.texts, readouts, work.settings, collator, seed=work.seed,
                              scratch=work.stage.layout.scratch("cloze", work.keys[step]),
                              tell=lambda what: units.add(1, f"step {step:,}: {what}"))
        units.done = before + _steps(work.settings, readouts)  # also where all layers stopped early
    ranks = rank_facts(encoder, work.head, work.prompts, work.vocabulary, fitted, readouts, work.settings, collator,
                       tell=lambda count: units.add(count, f"step {step:,}: facts"))
    return ranks, {name: {"loss_before_nats": one.first_loss.round(4).tolist(), "loss_nats": one.loss.round(4).tolist(),
                          "steps": one.steps.tolist(), "stopped": one.stopped.tolist()} for name, one in fitted.items()}


def _steps(settings: Any, readouts: list[str]) -> int:
    """Training steps of the read-outs of one checkpoint."""
    return settings.heads.steps * ("trained" in readouts) + settings.tuned.steps * ("tuned" in readouts)


def _dim(head: Any) -> int:
    return head.decoder.shape[1] if head.transform is None else head.transform.dense_weight.shape[1]


def _read(work: Work, encoder: Any) -> None:
    """Tokenise facts and, where heads are trained, texts: once for all checkpoints."""
    from finetrace.data.corpus import corpus_texts
    from finetrace.hidden.masked import mask_texts
    from finetrace.hidden.prompts import encode_prompts
    from finetrace.models.load import forward_names, longest_input

    length, inputs = longest_input(encoder, work.tokenizer, 512), forward_names(encoder) | {"attention_mask"}
    work.vocabulary = work.vocabulary[work.vocabulary < len(work.head.decoder)]  # some tokenizers have more
    work.prompts = encode_prompts(read_table(work.facts_path), work.tokenizer, work.vocabulary, max_length=length, inputs=inputs,
                                  where=str(work.facts_path), lama_compat=work.settings.lama_compat)
    if not work.with_heads:
        return
    texts, heads = corpus_texts(work.corpus), work.settings.heads
    order = seeds.generator(work.seed, "texts").permutation(len(texts))[:heads.texts or len(texts)]
    held = max(1, round(heads.held_out * len(order)))
    if len(order) - held < 1:
        raise FinetraceError(f"{work.corpus}: {len(texts)} texts cannot be parted into training and choice; name another corpus")
    chosen = {"train": order[held:], "held_out": order[:held]}
    work.texts = {name: mask_texts([texts[i] for i in np.sort(part)], work.tokenizer, max_length=length, inputs=inputs,
                                   seed=seeds.derive(work.seed, name), embeddings=len(work.head.decoder))
                  for name, part in chosen.items()}


def _announce(work: Work, encoder: Any, left: list[int]) -> Units:
    """What is about to be done and what it takes, before it is."""
    import torch

    from finetrace.hidden.prompts import left_out
    from finetrace.models.families import layer_count
    from finetrace.training.watch import Progress, duration

    settings, prompts, layers = work.settings, work.prompts, layer_count(encoder.config)
    decode = 2.0 * work.head.decoder.numel()
    weights = sum(p.numel() for n, p in encoder.named_parameters() if "embeddings" not in n)
    operations, units, disk = 0.0, 0, 0
    for step in left:
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
    seconds = operations / RATE[work.device] / (torch.get_num_threads() if work.device == "cpu" else 1)
    log.info("%s: %s of %s facts can be asked (%s), %d layers; %d checkpoints to do, about %s and %.0f MB on disk at a time",
             work.stage.label, f"{len(prompts):,}", f"{sum(c['facts'] for c in prompts.counts.values()):,}",
             left_out(prompts.counts), layers, len(left), duration(seconds), disk / 1e6)
    scratch = work.stage.layout.scratch("cloze", "")
    scratch.mkdir(parents=True, exist_ok=True)
    if disk > shutil.disk_usage(scratch).free:
        raise FinetraceError(f"cloze: cached states need {disk / 1e9:.1f} GB in {scratch}, more than is free; lower "
                             "cloze.heads.texts or set cloze.dtype: float16")
    return Units(Progress(units, work.stage.label))


def _index(work: Work) -> Any:
    """The facts that were asked: fact number, then columns of facts.parquet, and the number of candidates (0 without)."""
    import pyarrow as pa

    table = read_table(work.facts_path).take(work.prompts.kept)
    columns = ["fact_id", "corpus", "relation", "relation_type", "subject", "object", "held_out"]
    counts = [0 if c is None else len(c) for c in work.prompts.candidates]
    return table.select(columns).add_column(0, "fact", pa.array(range(table.num_rows), pa.int32())).append_column(
        "candidates", pa.array(counts, pa.int32()))


def _counts(prompts: Any) -> dict[str, dict[str, int]]:
    return {f"{corpus}/{relation}": counts for (corpus, relation), counts in prompts.counts.items()}


def _write(work: Work, folder: Path, manifest: Any) -> None:
    """Tables, numbers and figures from the finished checkpoints."""
    import torch

    from finetrace.lenses.cloze import records, summary
    from finetrace.store.hidden import step_name

    stage, timeline, steps = work.stage, work.timeline, work.timeline.steps
    found, told = {}, {}
    without_top = ["fact", "layer", "readout", "rank", "rank_full", "rank_candidates", "log_prob"]
    for step in steps:
        path = work.results(step) / "ranks.parquet"
        try:
            found[step] = records.from_table(read_table(path, without_top))
            told[step] = json.loads((work.results(step) / "facts.json").read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise FinetraceError(f"{path.parent}: cannot be read ({error}); delete the folder and run the stage again") from error
    index = read_table(work.results(steps[0]) / "index.parquet")
    facts = summary.Facts(*(index[name].to_pylist() for name in ("corpus", "relation", "relation_type")),
                          index["held_out"].to_numpy(zero_copy_only=False), index["candidates"].to_numpy())
    layers = next(iter(found[steps[-1]].values())).rank.shape[0]
    vocabulary = "full" if work.settings.vocabulary == "full" else "common"
    table = summary.table(found, facts, vocabulary)
    with stage.output(folder, manifest) as out:
        write_table(out / "table.parquet", table)
        write_json(out / "metrics.json", summary.metrics(table, facts, steps, layers, vocabulary))
        write_curves(out / "curves.csv", summary.curves(table, facts, steps, layers, vocabulary))
        (out / "facts").mkdir()
        write_table(out / "facts" / "index.parquet", index)
        for step in steps:
            shutil.copyfile(work.results(step) / "ranks.parquet", out / "facts" / f"{step_name(step)}.parquet")
        head = f"re-attached from {timeline.head.name}" if timeline.head else "own"
        words = f"{told[steps[0]]['words']:,} words"
        write_figures(out / "figures", _figures(work, table, facts, layers, vocabulary, f"{words}; masked-word head: {head}"))
        cpu = f"cpu ({torch.get_num_threads()} threads)"
        manifest.facts = {
            "steps": steps, "axis": timeline.axis, "layers": layers, "head": head,
            "decoder": "word embeddings of the folder that the head is from", "readouts": list(work.settings.readouts),
            "heads_steps": sorted(work.with_heads), "vocabulary": work.words | {"words": told[steps[0]]["words"]},
            "facts": len(facts.corpora),
            "held_out": int(facts.held_out.sum()), "relations": told[steps[0]]["counts"],
            "heads": {str(step): one["heads"] for step, one in told.items() if one["heads"]},
            "chance": {c: guess for c in dict.fromkeys(facts.corpora) if np.isfinite(guess := summary.chance(facts, c, True))},
            "union": f"layers 1 to {layers - 1}",
            "interval": "95 %: Wilson for shares of one relation, else jackknife over facts within relations",
            "device": torch.cuda.get_device_name() if work.device == "cuda" else cpu}


def _figures(work: Work, table: Any, facts: Any, layers: int, vocabulary: str, among: str) -> dict[str, Any]:
    from finetrace.figures import cloze as figures
    from finetrace.lenses.cloze import views
    from finetrace.lenses.cloze.metrics import BY_FACT

    steps, axis = work.timeline.steps, work.timeline.axis
    place, made = work.entry.trajectory, {}
    shown = [r for r in ("own", "trained", "tuned") if r in work.settings.readouts]
    for corpus in dict.fromkeys(facts.corpora):
        name = "" if len(set(facts.corpora)) == 1 else f"-{corpus.lower().replace('_', '-')}"
        note = f"mean over {'facts' if corpus in BY_FACT else 'relations'}; ranked among {among}"
        common = {"title": f"{corpus}: {place}", "axis": axis, "note": note}
        view = views.View(table, steps, layers, vocabulary, corpus)
        made[f"precision{name}"] = figures.by_step(steps, view.by_layer(shown[0]), view.control(shown[0], facts),
                                                   readout=shown[0], **common)
        made[f"readouts{name}"] = figures.by_readout(view.readouts(shown), title=f"{corpus}: {place}, step {steps[-1]:,}",
                                                     note=note)
        made[f"relations{name}"] = figures.relations(steps, view.relations(shown[0], facts), readout=shown[0], **common)
        if len(steps) > 1:
            made[f"changes{name}"] = figures.changes(steps, view.changes(shown[0]), readout=shown[0], **common)
    return made


def _tokenizer_digest(folder: Path) -> str:
    return sha256_value({p.name: sha256_file(p) for p in sorted(folder.iterdir())
                         if p.is_file() and p.name not in NOT_TOKENIZER and p.suffix in (".json", ".txt", ".model")})


def _head_digest(folder: Path) -> str:
    content = folder / "content.json"
    return sha256_file(content) if content.is_file() else sha256_folder(folder, skip=("manifest.json",))


if __name__ == "__main__":
    run("cloze", main)

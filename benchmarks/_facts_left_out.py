"""Leave facts out: does cloze tell that a model never read them? `benchmarks/influence_truth.py --facts 3` runs it.

The micro-BERT is pre-trained anew on the world's corpus without every sentence that names both the subject and the
object of some facts, a tenth of those that follow from nothing else; each training leaves out other ones. So every fact
of them is missing in one training and stands in the others. Printed: of the facts left out, and of the same facts where
they were kept, the share that ranks first among all words, the rank among the words of the right type, and what
guessing among these would give.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _bars import verdict
from finetrace import seeds
from finetrace.store.files import write_json
from finetrace.store.tables import read_table, write_table

OPEN = ("born_in", "speaks")
"""Relations whose objects follow from no other sentence: capitals and locations tell of each other, jobs of hobbies."""
SHARE, SEED = 0.1, 2026


def parts(facts: list[dict[str, Any]], trainings: int, share: float = SHARE) -> list[list[str]]:
    """Training -> ids of the facts that it leaves out; disjoint. facts: rows of facts.parquet. SystemExit where there
    are not enough."""
    ids = sorted(row["fact_id"] for row in facts if row["relation"] in OPEN and not row["held_out"])
    size = max(1, round(share * len(ids)))
    if size * trainings > len(ids):
        raise SystemExit(f"--facts {trainings}: the world states {len(ids)} facts of {' and '.join(OPEN)}; each "
                         f"training leaves out {size}")
    order = seeds.generator(SEED, "facts left out").permutation(len(ids))
    return [[ids[i] for i in order[number * size:(number + 1) * size]] for number in range(trainings)]


def without(world: Path, facts: list[dict[str, Any]], missing: list[str], out: Path) -> int:
    """Write the world's corpus without the sentences that name subject and object of a missing fact, and its
    tokenizer. Returns how many sentences are gone."""
    pairs = {(row["subject"], row["object"]) for row in facts if row["fact_id"] in set(missing)}
    objects = {subject: {other for first, other in pairs if first == subject} for subject, _ in pairs}
    corpus = read_table(world / "corpus.parquet")
    kept = []
    for sentence in corpus["words"].to_pylist():
        words = set(sentence)
        kept.append(not any(objects[word] & words for word in words & objects.keys()))
    write_table(out / "corpus.parquet", corpus.filter(kept))
    shutil.copytree(world / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    return len(kept) - sum(kept)


def ranks_of(model: Path, facts: Path) -> dict[str, tuple[int, int, int]]:
    """Fact -> rank of its object among all words, among the candidates, and how many these are; 1 is first."""
    import torch

    from finetrace.data.common_vocabulary import restricted_vocabulary
    from finetrace.inference.prompts import encode_prompts
    from finetrace.lenses.cloze.settings import ClozeSettings
    from finetrace.lenses.cloze.states import rank_facts
    from finetrace.models.load import forward_names, load_encoder, load_tokenizer
    from finetrace.models.masked_head import load_masked_head
    from finetrace.models.rows import Collator

    torch.set_num_threads(1)
    tokenizer, encoder = load_tokenizer(model), load_encoder(model)
    vocabulary, _ = restricted_vocabulary(tokenizer, "full")
    table = read_table(facts)
    prompts = encode_prompts(table, tokenizer, vocabulary, max_length=64, where=str(facts),
                             inputs=forward_names(encoder) | {"attention_mask"})
    ranks = rank_facts(encoder, load_masked_head(model, tokenizer), prompts, vocabulary, {}, ["own"], ClozeSettings(
        readouts=("own",)), Collator(tokenizer, side="right"))["own"]
    ids = table["fact_id"].take(prompts.kept).to_pylist()
    counts = [0 if some is None else len(some) for some in prompts.candidates]
    return {name: (int(ranks.rank[-1][i]), int(ranks.rank_candidates[-1][i]), counts[i])
            for i, name in enumerate(ids)}


@dataclass(frozen=True)
class Answers:
    """Of one training: fact -> ranks as `ranks_of` gives them, and the facts left out."""

    ranks: dict[str, tuple[int, int, int]]
    missing: list[str]


def trained(data: Path, work: Path, number: int, missing: list[str], settings: Any) -> Answers:
    """Pre-train without the missing facts, unless it was done, and ask for all."""
    import torch

    from finetrace.training.pretrain import pretrain

    world, name = data / "world", f"facts-{number}"
    rows, model = read_table(world / "facts.parquet").to_pylist(), work / name
    if not model.is_dir():
        torch.set_num_threads(1)
        corpus = work / "corpora" / name
        corpus.mkdir(parents=True, exist_ok=True)
        gone = without(world, rows, missing, corpus)
        print(f"  {name}: {gone} sentences left out, {settings.steps:,} steps", flush=True)
        with tempfile.TemporaryDirectory(dir=work) as folder:
            out, finished = Path(folder) / "trajectory", Path(folder) / "model"
            out.mkdir()
            pretrain(settings, corpus, SEED, scratch=work / "scratch" / name, out=out, model_out=finished, name=name)
            write_json(finished / "missing.json", missing)
            os.replace(finished, model)
    return Answers(ranks_of(model, data / "micro-facts" / "facts.parquet"), missing)


def report(answers: list[Answers]) -> int:
    """Print what is known of the facts left out, of the same ones where they were kept, and the bars."""
    from finetrace.lenses.intervals import wilson_interval

    known = {}
    for kept, name in ((False, "left out"), (True, "kept elsewhere")):
        ranks = np.array([other.ranks[fact] for own in answers for fact in own.missing for other in answers
                          if (other is not own) == kept and fact in other.ranks]).reshape(-1, 3)
        if not len(ranks):
            continue
        first = int((ranks[:, 0] == 1).sum())
        low, high = wilson_interval(first, len(ranks))
        known[name] = (first / len(ranks), low, high)
        place = (ranks[:, 1] - 1) / (ranks[:, 2] - 1)
        print(f"  {name}: {len(ranks)} answers, first among all words {first / len(ranks):.2f} [{low:.2f}, {high:.2f}] "
              f"(guessing among the candidates: {np.mean(1 / ranks[:, 2]):.2f}), mean place among the candidates "
              f"{place.mean():.2f} (first: 0, chance: 0.5, last: 1)")
    missing = known["left out"]
    bars = [("facts left out: known at most", missing[0], missing[0] <= 0.2, "{:.2f}")]
    if "kept elsewhere" in known:
        kept_ones = known["kept elsewhere"]
        bars.append(("the same facts kept: low end above the high end left out", kept_ones[1] - missing[2],
                     kept_ones[1] > missing[2], "{:.2f}"))
    return verdict(bars)


def left_out(data: Path, work: Path, trainings: int, steps: int) -> int:
    """Everything. data: of the study."""
    from finetrace.config.models import PretrainSettings

    facts = read_table(data / "world" / "facts.parquet").to_pylist()
    settings = PretrainSettings(steps=steps, checkpoints={"steps": []}, evaluate={"steps": []})
    return report([trained(data, work, number, missing, settings)
                   for number, missing in enumerate(parts(facts, trainings))])

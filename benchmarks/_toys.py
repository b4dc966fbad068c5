"""Small models that are trained here, and states that are made up, for lenses of models: what is planted in them, and
what a lens says.

Every function that ends in a number and a claim is a look of `grounding.py`. Words are numbers; 0 pads, 1 begins a
sentence, 2 is hidden.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from finetrace.lenses.cloze.metrics import precision_at
from finetrace.lenses.cloze.ranking import Ranker
from finetrace.lenses.edges.control import control_gold
from finetrace.lenses.edges.data import EdgeData
from finetrace.lenses.edges.network import Probe
from finetrace.lenses.edges.recipe import Recipe
from finetrace.lenses.edges.scoring import score_probes
from finetrace.lenses.edges.training import train_probes
from finetrace.lenses.influence.losses import truths_of, with_truths
from finetrace.lenses.influence.products import loss_products
from finetrace.lenses.influence.scores import Influence, extremes, rate_weights
from finetrace.lenses.intervals import bootstrap_mean, bootstrap_weights, wilson_interval
from finetrace.models.masked_head import MaskedHead, Transform

Seen = tuple[float, bool]
WIDTH, MODELS = 32, 5  # seeds of the models that many looks share
BEGIN, HIDDEN, FIRST = 1, 2, 3
ASKED = 10  # evaluation examples of influence
RATE, EPOCHS, BATCH = 2e-3, 6, 16


def bert(kind: str, words: int, layers: int, seed: int) -> Any:
    """A small BERT with random weights and a head: `SequenceClassification` of two classes, or `MaskedLM`."""
    import transformers

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = transformers.BertConfig(vocab_size=words, hidden_size=WIDTH, num_hidden_layers=layers,
                                     num_attention_heads=2, intermediate_size=2 * WIDTH, max_position_embeddings=16,
                                     hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return getattr(transformers, f"BertFor{kind}")(config).eval()


# ---- influence


def trained_on(rows: np.ndarray, labels: np.ndarray, asked: np.ndarray, truth: np.ndarray, seed: int) -> Influence:
    """Train a classifier on rows (example, token) and labels, and measure influence on the asked ones at its start,
    after each third, and at its end."""
    model = bert("SequenceClassification", int(max(rows.max(), asked.max())) + 1, 1, seed)
    batches = [[with_truths({"input_ids": torch.from_numpy(some)}, truths_of(of, "class", 2))]
               for some, of in ((rows, labels), (asked, truth))]
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=RATE), np.random.default_rng(seed)
    order = np.concatenate([draw.permutation(len(rows)) for _ in range(EPOCHS)])
    parts = np.array_split(order, max(3, len(order) // BATCH))
    looks = sorted({0, len(parts) // 3, 2 * len(parts) // 3, len(parts)})
    weights = rate_weights(looks, np.arange(len(parts)), np.full(len(parts), RATE), len(rows))
    influence = Influence()
    for step in range(len(parts) + 1):
        if step in looks:
            influence.add(step, loss_products(model, batches[0], batches[1]), weights[looks.index(step)])
        if step < len(parts):
            some = parts[step]
            optimizer.zero_grad()
            logits = model(input_ids=torch.from_numpy(rows[some])).logits
            F.cross_entropy(logits, torch.from_numpy(labels[some])).backward()
            optimizer.step()
    return influence


def most_helpful(random: np.random.Generator, count: int, planted: bool) -> Seen:
    """How often the copy of an example is the most helpful of all; control: sentences of other words."""
    return duplicates(random, count, planted, lambda influence: influence.whole)


def most_alike(random: np.random.Generator, count: int, planted: bool) -> Seen:
    """The same of the one whose gradient is most alike after training."""
    return duplicates(random, count, planted, lambda influence: influence.cosines[-1])


def duplicates(random: np.random.Generator, count: int, planted: bool,
               pairs_of: Callable[[Influence], np.ndarray]) -> Seen:
    from scipy.stats import binomtest

    rows = random.integers(FIRST, FIRST + 100, size=(count, 8))
    labels = random.integers(0, 2, count)
    copied = random.permutation(count)[:ASKED]
    asked = rows[copied] if planted else rows[copied] + 100
    influence = trained_on(rows, labels, asked, labels[copied], int(random.integers(2**31)))
    right = int((extremes(pairs_of(influence), 1)[0][:, 0] == copied).sum())
    return right / ASKED, bool(binomtest(right, ASKED, 1 / count, alternative="greater").pvalue <= 0.05)


def wrong_labels(random: np.random.Generator, count: int, planted: bool) -> Seen:
    """How many of the most self-influential tenth have a wrong label; control: labels that all mean nothing."""
    from scipy.stats import hypergeom

    rows = random.integers(FIRST + 8, FIRST + 60, size=(count, 8))
    labels = random.integers(0, 2, count)
    rows[np.arange(count), random.integers(0, 8, count)] = FIRST + 4 * labels + random.integers(0, 4, count)
    turned = random.permutation(count)[:count // 10]
    shown = labels.copy() if planted else random.integers(0, 2, count)
    if planted:
        shown[turned] = 1 - shown[turned]
    own = trained_on(rows, shown, rows[:2], shown[:2], int(random.integers(2**31))).own
    right = int(np.isin(np.argsort(-own)[:len(turned)], turned).sum())
    return right / len(turned), bool(hypergeom.sf(right - 1, count, len(turned), len(turned)) <= 0.05)


# ---- edges

NOUNS, LENGTH = 24, 6
PLACES = np.array([1, 4])  # of the two nouns of a clause
TEST = 80
LEAN = 0.7  # how far a role moves a noun's vector, in standard deviations of the noise


def clauses(random: np.random.Generator, words: np.ndarray, count: int) -> tuple[EdgeData, np.ndarray, np.ndarray]:
    """Clauses of two nouns, one of which does what is done to the other: data without labels, nouns and roles
    (clause, noun), 0 does it, 1 is done to.

    words: (noun, dimension). Layer 0 knows nouns and places, which tell nothing of roles; layer 1 has besides what
    context adds: a direction for the role, and noise.
    """
    nouns, first = random.integers(0, NOUNS, size=(count, 2)), random.integers(0, 2, count)
    roles = np.stack([first, 1 - first], axis=1)
    states = np.zeros((2, count, LENGTH, WIDTH), np.float32)
    states[:, :, PLACES] = words[nouns] + words[:2]
    lean = np.where(roles[..., None] == 0, LEAN, -LEAN) * np.eye(WIDTH)[0]
    states[1][:, PLACES] += lean + random.normal(size=(count, 2, WIDTH))
    moments = np.stack([states.sum(axis=(2, 3), dtype=np.float64),
                        np.square(states, dtype=np.float64).sum(axis=(2, 3))], axis=-1)
    tokens = (np.arange(count)[:, None] * LENGTH + PLACES).ravel()
    spans = np.arange(2 * count)[:, None, None] + np.array([[0, 1]])
    bounds = 2 * np.arange(count + 1)
    data = EdgeData(states.reshape(2, count * LENGTH, WIDTH), tokens, bounds, bounds, spans,
                    np.eye(2, dtype=bool)[roles.ravel()], moments, np.full(count, LENGTH))
    return data, nouns, roles


def roles_in_context(random: np.random.Generator, count: int, planted: bool) -> Seen:
    """What a probe of the layer with context has more than one of the embeddings, which know the word and its place;
    control: a random label for each noun."""
    words = random.normal(size=(NOUNS, WIDTH))
    (data, nouns, _), (test, others, _) = clauses(random, words, count), clauses(random, words, TEST)
    if not planted:
        types = {"train": [str(noun) for noun in nouns.ravel()], "test": [str(noun) for noun in others.ravel()]}
        labels = control_gold(types, data.gold, int(random.integers(2**31)))
        data, test = replace(data, gold=labels["train"]), replace(test, gold=labels["test"])
    recipe = Recipe(hidden=WIDTH, max_steps=150, select="last", halve_patience=0, learning_rate=3e-3)
    trained = train_probes(data, None, [Probe("layer", layer) for layer in (0, 1)], recipe,
                           seed=int(random.integers(2**31)))
    right = score_probes(trained, test, recipe).right.astype(float)
    gain = (right[1] - right[0]).reshape(TEST, 2).mean(axis=1)
    low, _ = bootstrap_mean(gain, bootstrap_weights(TEST, 1000, 0))
    return float(gain.mean()), bool(low > 0)


# ---- cloze


SUBJECTS, OBJECTS = 100, 10  # as many subjects whose fact is never stated
WORDS = 2 * SUBJECTS + OBJECTS
IS, SEES = FIRST + WORDS, FIRST + WORDS + 1


def masked_words(model: Any, batch: Any, steps: int) -> Any:
    """Train on batches: rows (row, token), and which token of each is hidden (row,)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        rows, hidden = batch()
        each = np.arange(len(rows))
        gold = torch.from_numpy(rows[each, hidden])
        rows = rows.copy()
        rows[each, hidden] = HIDDEN
        optimizer.zero_grad()
        F.cross_entropy(model(input_ids=torch.from_numpy(rows)).logits[each, hidden], gold).backward()
        optimizer.step()
    return model


@lru_cache(maxsize=MODELS)
def reader(seed: int) -> tuple[Any, np.ndarray]:
    """A model that has read the facts of half of the subjects, and of all of them that they see things at random; and
    the objects (subject,) of all facts, words, the stated ones first."""
    draw = np.random.default_rng(seed)
    objects = FIRST + 2 * SUBJECTS + draw.integers(0, OBJECTS, 2 * SUBJECTS)

    def batch() -> tuple[np.ndarray, np.ndarray]:
        facts, plain = draw.integers(0, SUBJECTS, 64), draw.integers(0, 2 * SUBJECTS, 32)
        seen = FIRST + 2 * SUBJECTS + draw.integers(0, OBJECTS, 32)
        rows = np.concatenate([np.stack([FIRST + facts, np.full(64, IS), objects[facts]], axis=1),
                               np.stack([FIRST + plain, np.full(32, SEES), seen], axis=1)])
        return np.insert(rows, 0, BEGIN, axis=1), np.where(draw.random(96) < 0.8, 3, 1)

    return masked_words(bert("MaskedLM", SEES + 1, 2, seed), batch, 400), objects


def facts_told(random: np.random.Generator, count: int, planted: bool) -> Seen:
    """P@1 of stated facts less that of facts never stated, half of the questions each; control: the same questions
    about another world, whose facts have other objects."""
    model, objects = reader(int(random.integers(MODELS)))
    if not planted:
        objects = random.permutation(objects)
    half = count // 2
    subjects = np.concatenate([random.permutation(SUBJECTS)[:half], SUBJECTS + random.permutation(SUBJECTS)[:half]])
    rows = np.stack([np.full(2 * half, BEGIN), FIRST + subjects, np.full(2 * half, IS), np.full(2 * half, HIDDEN)],
                    axis=1)
    head, bias = model.cls.predictions, model.cls.predictions.bias.detach()
    norm = head.transform.LayerNorm
    masked = MaskedHead(Transform(head.transform.dense.weight.detach(), head.transform.dense.bias.detach(),
                                  norm.weight.detach(), norm.bias.detach(), head.transform.transform_act_fn, norm.eps),
                        head.decoder.weight.detach(), bias)
    with torch.no_grad():
        states = model(input_ids=torch.from_numpy(rows), output_hidden_states=True).hidden_states[-1][:, -1]
        ranks = Ranker(masked.decoder, masked.bias, np.arange(len(bias)))(masked.inner(states)[None], objects[subjects])
    right = precision_at(ranks.rank[-1], 1).reshape(2, half)
    (low, _), (_, high) = (wilson_interval(int(part.sum()), half) for part in right)
    return float(right[0].mean() - right[1].mean()), low > high

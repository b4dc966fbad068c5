"""Rows of the table from what the lens cloze found: knowledge by corpus, relation and layer, onsets, facts learned and
lost. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetrace.lenses.dynamics.arms import Arm, Curve, Scores, add_arms, collect, compared, differences
from finetrace.lenses.dynamics.forgetting import Transitions, compared_steps, forgotten_share, transitions
from finetrace.lenses.dynamics.gains import onset_layer, onset_step
from finetrace.lenses.dynamics.resampling import Resampled, Resampling
from finetrace.lenses.dynamics.table import DIFFERENCES, UNION, Key, Table

HITS = {"p_at_1": 1, "p_at_10": 10}
STATISTICS = (*HITS, "mrr", "mean_log_prob_nats")


@dataclass(frozen=True)
class Facts:
    """The facts that all trajectories were asked for; each array is (fact,)."""

    corpora: np.ndarray
    relations: np.ndarray
    types: np.ndarray
    """1-1 | N-1 | N-M, or empty."""
    held_out: np.ndarray
    """bool: facts that cannot be known."""

    def groups(self) -> list[tuple[str, bool]]:
        """Corpora, and with True their held-out facts."""
        return list(dict.fromkeys(zip(self.corpora.tolist(), self.held_out.tolist(), strict=True)))

    def rows(self, corpus: str, held_out: bool) -> np.ndarray:
        """Numbers of the facts of one group."""
        return np.flatnonzero((self.corpora == corpus) & (self.held_out == held_out))


@dataclass(frozen=True)
class Answers:
    """How one checkpoint answered, read by one readout: (layer, fact) each."""

    ranks: np.ndarray
    """Of the right object, from 1."""
    log_probs: np.ndarray
    """Of the right object, in nats."""


def add_facts(table: Table, corpus: str, held_out: bool, readout: str, arms: Mapping[str, Arm], layers: Sequence[int],
              facts: Facts, *, seeds: int, draws: int, seed: int) -> Resampling:
    """One corpus by one readout: P@1, P@10, mean reciprocal rank and log probability of every layer, of relations and
    types in the last layer and in any; what was learned, kept and lost; onsets.

    arms: `load` gives Answers;  layers: their rows, ascending. A corpus' score is the mean over relations of the mean
    over their facts; facts are resampled within relations.
    """
    rows = facts.rows(corpus, held_out)
    resampling = Resampling(seeds, np.arange(len(rows)), draws, seed, facts.relations[rows])
    relation_types = _types(facts, rows, resampling)
    types = {name: np.array([t == name for t in relation_types]) for name in dict.fromkeys(relation_types) if name}
    scores: dict[str, dict[str, Scores]] = {}
    for statistic in STATISTICS:
        curves = _curves(readout, layers, statistic in HITS, resampling.strata.tolist(), list(types))
        scores[statistic] = {name: collect(arm, resampling, _scorer(statistic, layers, rows, resampling, types))
                             for name, arm in arms.items()}
        add_arms(table, "cloze", corpus, statistic, scores[statistic], curves, n=_counts(curves, facts, rows),
                 seeds=seeds, held_out=held_out, gains=statistic in HITS)
    if not held_out:
        _add_forgotten(table, corpus, scores["p_at_1"], _curves(readout, layers, True, [], []), len(rows), seeds)
        _add_onsets(table, corpus, readout, layers, scores["p_at_10"], len(rows), seeds)
        _add_transitions(table, corpus, readout, layers, arms, rows, seeds)
    return resampling


def values_of(answers: Answers, statistic: str, layers: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """What is averaged: (layer, fact), for P@k with a last row for what any layer knows, the embeddings (layer 0) left
    out."""
    ranks = answers.ranks[:, rows]
    if statistic in HITS:
        hits = ranks <= HITS[statistic]
        return np.concatenate([hits, hits[int(layers[0] == 0 and len(layers) > 1):].any(axis=0, keepdims=True)])
    return 1 / ranks if statistic == "mrr" else answers.log_probs[:, rows].astype(np.float64)


def _scorer(statistic: str, layers: Sequence[int], rows: np.ndarray, resampling: Resampling,
            types: Mapping[str, np.ndarray]) -> Callable[[Answers], Resampled]:
    """Answers of one checkpoint -> (curve,), in the order of `_curves`."""
    def score(answers: Answers) -> Resampled:
        by = resampling.by_stratum(values_of(answers, statistic, layers, rows))  # (layer, relation)
        parts = [Resampled(by.value.mean(axis=-1), by.draws.mean(axis=-1))]
        if statistic in HITS:
            for which in (-2, -1):  # last layer, any layer
                parts += [by[which]] if len(resampling.strata) > 1 else []
                parts += [Resampled(*(v[..., strata].mean(axis=-1, keepdims=True)
                                      for v in (by[which].value, by[which].draws)))
                          for strata in types.values()]
        return Resampled.concatenate(parts)

    return score


def _curves(readout: str, layers: Sequence[int], hits: bool, relations: Sequence[str],
            types: Sequence[str]) -> list[Curve]:
    curves = [(readout, layer, "") for layer in (*layers, *([UNION] if hits else []))]
    if hits:
        for layer in (layers[-1], UNION):
            curves += [(readout, layer, relation) for relation in relations] if len(relations) > 1 else []
            curves += [(readout, layer, f"type:{name}") for name in types]
    return curves


def _counts(curves: Sequence[Curve], facts: Facts, rows: np.ndarray) -> list[int]:
    relations, types = facts.relations[rows], facts.types[rows]
    sizes = {"": len(rows)} | {r: int((relations == r).sum()) for r in np.unique(relations)}
    sizes |= {f"type:{t}": int((types == t).sum()) for t in np.unique(types)}
    return [sizes[relation] for _, _, relation in curves]


def _types(facts: Facts, rows: np.ndarray, resampling: Resampling) -> list[str]:
    """The type of each relation, in the order of the strata."""
    type_of = dict(zip(facts.relations[rows].tolist(), facts.types[rows].tolist(), strict=True))
    return [type_of[relation] for relation in resampling.strata.tolist()]


def _add_forgotten(table: Table, corpus: str, arms: Mapping[str, Scores], curves: Sequence[Curve], n: int,
                   seeds: int) -> None:
    """(before - after) / before of P@1: adapted and control against the original, in the last layer and in any."""
    for name in differences(arms):
        after, before = (arms[arm] for arm in DIFFERENCES[name])
        pairs = compared_steps(after.steps, after.axis, before.steps, before.axis)
        a, b = [after.steps.index(step) for step, _ in pairs], [before.steps.index(step) for _, step in pairs]
        adapted, original = after.estimate[a], before.estimate[b]
        forgotten = Resampled(forgotten_share(original.value, adapted.value),
                              forgotten_share(original.draws, adapted.draws))
        low, high = forgotten.interval()
        for c, (readout, layer, _) in list(enumerate(curves))[-2:]:
            table.add(Key("cloze", corpus, name, "p_at_1_forgotten", readout, layer), [step for step, _ in pairs],
                      forgotten.value[:, c], low[:, c], high[:, c], n=n, seeds=seeds)


def _add_onsets(table: Table, corpus: str, readout: str, layers: Sequence[int], arms: Mapping[str, Scores], n: int,
                seeds: int) -> None:
    """Of P@10: when each layer has half of what the last layer has at the end; the first layer with half of the
    last's."""
    for name, arm in arms.items():
        scores = arm.estimate.value[:, :len(layers)].T  # (layer, step)
        for layer, step in zip(layers, onset_step(np.array(arm.steps), scores), strict=True):
            table.add(Key("cloze", corpus, name, "onset_step", readout, layer), arm.steps[-1], step, n=n, seeds=seeds)
        positions = onset_layer(scores)
        numbers = np.where(np.isfinite(positions), np.array(layers)[np.nan_to_num(positions).astype(int)], np.nan)
        table.add(Key("cloze", corpus, name, "onset_layer", readout), arm.steps, numbers, n=n, seeds=seeds)


def _add_transitions(table: Table, corpus: str, readout: str, layers: Sequence[int], arms: Mapping[str, Arm],
                     rows: np.ndarray, seeds: int) -> None:
    """Shares of facts learned, kept and lost since the step before, and by adaptation; means over seeds."""
    known = {name: np.array([[values_of(arm.load(seed, step), "p_at_1", layers, rows)[-2:] for step in arm.steps]
                             for seed in range(seeds)])
             for name, arm in arms.items()}  # (seed, step, last or any layer, fact)
    for which, layer in enumerate((layers[-1], UNION)):
        for name, arm in arms.items():
            if len(arm.steps) > 1:
                shares = transitions(known[name][:, :-1, which], known[name][:, 1:, which])
                _add_shares(table, Key("cloze", corpus, name, "", readout, layer), arm.steps[1:], shares, len(rows),
                            seeds)
        for name, first, second, after_steps, before_steps in compared(arms):
            shares = transitions(known[second][:, before_steps, which], known[first][:, after_steps, which])
            steps = [arms[first].steps[i] for i in after_steps]
            _add_shares(table, Key("cloze", corpus, name, "", readout, layer), steps, shares, len(rows), seeds)


def _add_shares(table: Table, key: Key, steps: Sequence[int], shares: Transitions, n: int, seeds: int) -> None:
    for statistic, share in shares._asdict().items():
        table.add(key._replace(statistic=statistic), steps, share.mean(axis=0), n=n, seeds=seeds)

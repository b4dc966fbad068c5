"""From products of gradients at checkpoints to influence: what each training example did to each evaluation example.

A step of gradient descent on example z, of learning rate r, changes the loss of z' by - r <g(z), g(z')>, to first
order. TracInCP (Pruthi et al. 2020, section 3.2) adds this up over checkpoints. Positive: training on z lowered the
loss of z' (helpful, a proponent); negative: it raised it (harmful, an opponent).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finetrace.lenses.influence.products import Products


def rate_weights(steps: Sequence[int], at: np.ndarray, rates: np.ndarray, examples: int) -> np.ndarray:
    """(checkpoint,) float64: what a product of gradients counts at each checkpoint, the same for all training examples.

    steps: of the checkpoints, ascending;  at: (step,) of the training's steps, updates done before each;  rates:
    (step,) their learning rates;  examples: how many the training has. A step counts half at the checkpoint before it
    and half at the one after, whole where there is only one of them. The sum is that of the rates / examples: what the
    mean gradient of a batch takes of one example that comes once per epoch.
    """
    return _shared(steps, at, np.asarray(rates, dtype=np.float64) / examples)


def visit_weights(steps: Sequence[int], at: np.ndarray, rates: np.ndarray, visits: np.ndarray, rows: np.ndarray,
                  count: int) -> np.ndarray:
    """(checkpoint, training example) float64: as `rate_weights`, but each example counts the steps that saw it.

    visits: (visit,) the step of every example of every batch;  rows: (visit,) which of the `count` training examples it
    is, -1 for one that is not looked at. A step's rate is shared among its batch. ValueError for a visit of a step
    without rate.
    """
    order = np.argsort(at)
    place = np.searchsorted(at, visits, sorter=order).clip(max=len(at) - 1)
    if not len(at) or (at[order[place]] != visits).any():
        raise ValueError("signals.parquet has steps that history.parquet lacks; the trajectory is not whole")
    each = np.asarray(rates, dtype=np.float64)[order] / np.maximum(np.bincount(place, minlength=len(at)), 1)
    found, looked = np.zeros((count, len(steps))), rows >= 0
    for near in _nearest(steps, visits[looked]):
        np.add.at(found, (rows[looked], near), each[place[looked]] / 2)
    return found.T


def _shared(steps: Sequence[int], at: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """(checkpoint,) sums of amounts at steps, each half at the checkpoint before it and half at the one after."""
    found = np.zeros(len(steps))
    for near in _nearest(steps, at):
        np.add.at(found, near, amounts / 2)
    return found


def _nearest(steps: Sequence[int], at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the checkpoint before (or at) each step, and of the one after it; twice the same at the ends."""
    after = np.searchsorted(np.asarray(steps), np.asarray(at), side="right")
    return (after - 1).clip(0, len(steps) - 1), after.clip(0, len(steps) - 1)


@dataclass
class Influence:
    """Influence over a whole training, added up checkpoint by checkpoint; float64 but for `by_step`.

    Influence is in nats, or what the loss is in.
    """

    steps: list[int] = field(default_factory=list)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    """Group of parameters -> (eval example, train example), over all checkpoints."""
    by_step: list[np.ndarray] = field(default_factory=list)
    """Of each checkpoint: (eval example, train example) float32, through all parameters."""
    by_group: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Of each checkpoint: group -> (eval example,) sums over the training examples."""
    own_by_step: list[np.ndarray] = field(default_factory=list)
    """Of each checkpoint: (train example,) self-influence."""
    cosines: list[np.ndarray] = field(default_factory=list)
    """Of each checkpoint: (eval example, train example) float32 cosines of their gradients; 0 for a zero gradient."""
    train_losses: list[np.ndarray] = field(default_factory=list)
    eval_losses: list[np.ndarray] = field(default_factory=list)

    def add(self, step: int, products: Products, weights: np.ndarray) -> None:
        """The next checkpoint. weights: (), or (train example,)."""
        self.steps.append(step)
        parts = {name: values * weights for name, values in products.pairs.items()}
        for name, values in parts.items():
            self.groups[name] = self.groups[name] + values if name in self.groups else values
        self.by_step.append(np.sum(list(parts.values()), axis=0).astype(np.float32))
        self.by_group.append({name: values.sum(axis=1) for name, values in parts.items()})
        own = np.sum(list(products.train_squares.values()), axis=0)
        self.own_by_step.append(own * weights)
        lengths = np.sqrt(np.outer(np.sum(list(products.eval_squares.values()), axis=0), own))
        whole = np.sum(list(products.pairs.values()), axis=0)
        self.cosines.append(np.divide(whole, lengths, out=np.zeros_like(whole), where=lengths > 0).astype(np.float32))
        self.train_losses.append(products.train_losses)
        self.eval_losses.append(products.eval_losses)

    @property
    def whole(self) -> np.ndarray:
        """(eval example, train example) influence through all parameters, over the whole training."""
        return np.sum(list(self.groups.values()), axis=0)

    @property
    def own(self) -> np.ndarray:
        """(train example,) self-influence, at least 0: what training on it alone would have taken off its own loss.
        High for examples that others do not teach: rare ones, and wrong labels (Pruthi et al. 2020, section 4.1)."""
        return np.sum(self.own_by_step, axis=0)

    @property
    def shares(self) -> np.ndarray:
        """(checkpoint,) share of each in the absolute influence of all pairs, in [0, 1]; 0 where there is none."""
        sizes = np.array([np.abs(values, dtype=np.float64).sum() for values in self.by_step])
        return sizes / sizes.sum() if sizes.sum() > 0 else np.zeros(len(sizes))


def extremes(whole: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` most helpful and the `top` most harmful training examples of each evaluation example, strongest first:
    each (eval example, rank) int64, fewer ranks where there are fewer training examples. Ties go to the first one.

    whole: (eval example, train example). Only their order is told: the last of the helpful may be below zero.
    """
    count = min(top, whole.shape[1])
    return (np.argsort(-whole, axis=1, kind="stable")[:, :count], np.argsort(whole, axis=1, kind="stable")[:, :count])


def ranks(values: np.ndarray) -> np.ndarray:
    """(item,) int64 rank of each value, 1 for the largest; ties go to the first one."""
    found = np.empty(len(values), dtype=np.int64)
    found[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return found


def top_share(whole: np.ndarray, part: float = 0.1) -> float:
    """Share of the absolute influence that comes from the most influential `part` of the training examples, in [part,
    1]: `part` where all have the same, NaN where there is none. whole: (eval example, train example)."""
    sizes = np.sort(np.abs(whole).sum(axis=0))[::-1]
    count = max(1, round(part * len(sizes)))
    return float(sizes[:count].sum() / sizes.sum()) if sizes.sum() > 0 else float("nan")

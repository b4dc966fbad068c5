"""What training itself recorded: what the steps between two looks at the watched examples did to their loss.

Where the training looked after every step, this is the effect of a single batch, measured and not predicted
(Pruthi et al. 2020, section 3.1, "idealized" influence). Else it is shared among all rows of the steps between.
"""

from dataclasses import dataclass

import numpy as np

from finetrace.lenses.intervals import bootstrap_mean, bootstrap_weights


@dataclass(frozen=True)
class Drops:
    """How the loss of the watched examples of one split fell from look to look, positive where it fell.

    starts, ends: (interval,) updates done at both looks;  value, low, high: (interval,) mean over the watched examples
    and its 95 % bootstrap interval over them;  watched: how many;  visits: (interval,) training rows between.
    """

    starts: np.ndarray
    ends: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    watched: int
    visits: np.ndarray


def drops(looks: np.ndarray, examples: np.ndarray, losses: np.ndarray, visits: np.ndarray, *, draws: int = 1000,
          seed: int = 0) -> Drops | None:
    """looks: (row,) updates done before each look at an example;  examples, losses: (row,) which one, and its loss;
    visits: (visit,) step of each training row. None where there are no two looks at the same examples."""
    steps, where = np.unique(looks, return_inverse=True)
    names, who = np.unique(examples, return_inverse=True)
    table = np.full((len(names), len(steps)), np.nan)
    table[who, where] = losses
    table = table[np.isfinite(table).all(axis=1)]
    if len(steps) < 2 or not len(table):
        return None
    fall = table[:, :-1] - table[:, 1:]
    low, high = bootstrap_mean(fall, bootstrap_weights(len(fall), draws, seed))
    counts = np.diff(np.searchsorted(np.sort(visits), steps))
    return Drops(steps[:-1], steps[1:], fall.mean(axis=0), low, high, len(fall), counts)


def credit(of: Drops, visits: np.ndarray, examples: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each training example is credited with: (example,) float64, the sum over its visits of the drop between the
    looks around it, shared equally among all rows between them; and (example,) int64 its visits between looks.

    visits, examples: (visit,) step and example of each training row;  wanted: (example,) whom to tell of, unique.
    Credits of all examples sum to the drop from the first look to the last, over intervals in which rows were trained.
    """
    interval = np.searchsorted(of.ends, visits, side="right")
    inside = (visits >= of.starts[0]) & (interval < len(of.ends))
    share = of.value / np.maximum(of.visits, 1)
    order = np.argsort(wanted)
    place = np.searchsorted(wanted, examples, sorter=order).clip(max=len(wanted) - 1)
    mine = inside & (wanted[order[place]] == examples)
    rows = order[place[mine]]
    return (np.bincount(rows, share[interval[mine]], minlength=len(wanted)),
            np.bincount(rows, minlength=len(wanted)).astype(np.int64))

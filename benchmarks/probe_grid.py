"""The batched probe grid against scikit-learn's GridSearchCV: `python benchmarks/probe_grid.py [--cases small words]`.

All search the same grid of networks with the same definition (MLPClassifier: Adam, mini-batches of 200, the same
stopping) on the same rows, and train the best point again with five first weights.
Two ratios are told, because they say different things:

- "five folds": GridSearchCV as a user calls it, with its default of five-fold cross-validation over the whole grid. Its
  time is that of one in --share of its trainings, each point in one fold of five, times --share; 1 measures all of it.
- "same rows": GridSearchCV on the one held-out share that the batch searches with. With the full search both do the
  same trainings, so that this is the gain of computing them together; with halving it is that and the trainings saved.

scikit-learn has n_jobs=1 and one BLAS thread (two made it several times slower on products this small); the batch has
--threads. Both clocks are told: that of the wall, on which other work on the machine shows, and that of the processor,
whose ratio is the gain at equal cores and decides. Exits with 1 when halving is less than --least times faster than
five folds, or its accuracy or the full search's falls below scikit-learn's on the same rows by more than three standard
errors. With "words" it is about 18 times, because halving chooses the largest network there,
whose five final trainings are most of its time.
"""

import argparse
import itertools
import sys
import time
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from finetrace.lenses.probes.mlp import L2_GRID, SIZES, fold_rows, mlp_grid, mlp_logits

CASES = {"small": (600, 64, 2), "words": (800, 128, 17), "large": (2000, 768, 17)}  # training rows, dim, classes
TEST, SEEDS, FOLDS = 1000, 5, 5
Search = Literal["full", "halving"]
Row = tuple[np.ndarray, tuple, float, np.ndarray]  # both clocks, shape and strength, accuracies on the test rows


def hidden_like(rows: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, dim) float32 correlated features in which classes overlap, two bumps each, and (row,) labels."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(rows) % classes)
    mixing = rng.normal(size=(dim, dim)) / np.sqrt(np.arange(1, dim + 1))[:, None]
    means = rng.normal(size=(2, classes, dim)) * 4 / np.sqrt(dim)
    return (rng.normal(size=(rows, dim)) @ mixing + means[rng.integers(0, 2, rows), y]).astype(np.float32), y


def clocks() -> np.ndarray:
    """Seconds on the wall and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def batch(X: np.ndarray, y: np.ndarray, hidden: list, l2: list[float], search: Search, problems: int,
          device: str) -> Row:
    """Search and final trainings of the project, per problem."""
    rows = len(y) - TEST
    start = clocks()
    probe = mlp_grid(X[None, :rows].repeat(problems, axis=0), y[:rows], hidden=hidden, l2=l2, seeds=range(SEEDS),
                     search=search, device=device)
    taken = (clocks() - start) / problems
    right = mlp_logits(probe, 0, X[rows:]).argmax(axis=2) == y[rows:]
    return taken, hidden[probe.chosen_hidden[0]], probe.chosen_l2[0], right.mean(axis=1)


def grid_search(X: np.ndarray, y: np.ndarray, grid: object, cv: object) -> tuple[dict, np.ndarray]:
    """GridSearchCV over MLPClassifier on the training rows: the choice and both clocks."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    rows = len(y) - TEST
    start = clocks()
    found = GridSearchCV(MLPClassifier(max_iter=1000, random_state=0), grid, cv=cv, n_jobs=1, refit=False)
    return found.fit(X[:rows], y[:rows]).best_params_, clocks() - start


def final_networks(X: np.ndarray, y: np.ndarray, best: dict) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies of five networks on the test rows, and both clocks."""
    from sklearn.neural_network import MLPClassifier

    rows = len(y) - TEST
    start = clocks()
    models = [MLPClassifier(max_iter=1000, random_state=s, **best).fit(X[:rows], y[:rows]) for s in range(SEEDS)]
    taken = clocks() - start
    return np.array([m.score(X[rows:], y[rows:]) for m in models]), taken


def five_folds(X: np.ndarray, y: np.ndarray, hidden: list, l2: list[float],
               share: int) -> tuple[dict | None, np.ndarray]:
    """GridSearchCV with five folds: its choice (None when only a share was computed) and both clocks,
    made up to the whole."""
    from sklearn.model_selection import StratifiedKFold

    if share == 1:
        return grid_search(X, y, {"hidden_layer_sizes": hidden, "alpha": l2}, FOLDS)
    rows, taken, count = len(y) - TEST, np.zeros(2), 0
    for fold, split in enumerate(StratifiedKFold(FOLDS).split(X[:rows], y[:rows])):
        points = [{"hidden_layer_sizes": [hidden[i]], "alpha": [l2[k]]} for i in range(len(hidden))
                  for k in range(len(l2))
                  if (i + k + fold) % share == 0]
        count += len(points)
        taken += grid_search(X, y, points, [split])[1] if points else 0
    return None, taken * FOLDS * len(hidden) * len(l2) / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=["small"], choices=CASES)
    parser.add_argument("--threads", type=int, default=2, help="cores of the batch")
    parser.add_argument("--device", default="cpu", help="where the batch is computed: cpu or cuda")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--l2", nargs="+", type=float, default=L2_GRID)
    parser.add_argument("--problems", type=int, default=1, help="layers and checkpoints at once, for the batch alone")
    parser.add_argument("--share", type=int, default=5, help="one in so many trainings of the five folds is measured")
    parser.add_argument("--least", type=float, default=20.0, help="ratio of halving to five folds that passes")
    options = parser.parse_args()
    import torch
    from sklearn.model_selection import PredefinedSplit

    warnings.simplefilter("ignore")  # trainings that end by the number of epochs
    torch.set_num_threads(options.threads)
    hidden, l2, good = list(itertools.product(options.sizes, repeat=2)), list(options.l2), True
    for name in options.cases:
        rows, dim, classes = CASES[name]
        X, y = hidden_like(rows + TEST, dim, classes)
        print(f"{name}: {rows:,} rows x {dim}, {classes} classes, {len(hidden)} shapes x {len(l2)} strengths, "
              f"{SEEDS} final seeds")
        # wakes libraries
        mlp_grid(X[None, :rows], y[:rows], hidden=[(32, 32)], l2=[1.0], max_epochs=2, device=options.device)
        ours: dict[Search, Row] = {}
        searches: tuple[Search, ...] = ("halving", "full")
        for search in searches:
            ours[search] = batch(X, y, hidden, l2, search, options.problems, options.device)
            tell(f"batch, {search} ({options.device})", *ours[search])
        with threadpool_limits(1):
            held_out = PredefinedSplit(np.where(fold_rows(y[:rows], 1, 0.2, 0)[0], 0, -1))
            best, same = grid_search(X, y, {"hidden_layer_sizes": hidden, "alpha": l2}, held_out)
            theirs, finals = final_networks(X, y, best)
            tell("GridSearchCV, same rows", same + finals, best["hidden_layer_sizes"], best["alpha"], theirs)
            chosen, five = five_folds(X, y, hidden, l2, options.share)
            if chosen is None:
                print(f"  GridSearchCV, five folds   {five[0] + finals[0]:7.1f} s, processor "
                      f"{five[1] + finals[1]:7.1f} s; one training in {options.share} measured, made up to the whole",
                      flush=True)
            else:
                accuracy, finals = final_networks(X, y, chosen)
                tell("GridSearchCV, five folds", five + finals, chosen["hidden_layer_sizes"], chosen["alpha"], accuracy)
        for search, (taken, _, _, accuracy) in ours.items():
            more, ratio = (five + finals) / taken, (same + finals) / taken
            seeds, examples = ((theirs.var(ddof=1) + accuracy.var(ddof=1)) / SEEDS,
                               theirs.mean() * (1 - theirs.mean()) / TEST)
            error = np.sqrt(seeds + examples)
            equal = theirs.mean() - accuracy.mean() <= 3 * error
            good &= bool(equal) and (search == "full" or more[1] >= options.least)
            print(f"  {search}: {more[1]:.1f} times faster than five folds (wall {more[0]:.1f}), "
                  f"{ratio[1]:.1f} times than the same rows (wall {ratio[0]:.1f}); accuracy "
                  f"{accuracy.mean() - theirs.mean():+.4f}, error {error:.4f}",
                  flush=True)
    print(f"{'PASS' if good else 'FAIL'}: halving at least {options.least:g} times faster than five folds (processor), "
          "accuracies not below scikit-learn's")
    return 0 if good else 1


def tell(name: str, taken: np.ndarray, shape: tuple, strength: float, accuracy: np.ndarray) -> None:
    print(f"  {name:<26} {taken[0]:7.1f} s, processor {taken[1]:7.1f} s; {tuple(shape)}, l2 {strength:.0e}; accuracy "
          f"{accuracy.mean():.4f} (sd {accuracy.std(ddof=1):.4f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The batched probe grid against scikit-learn's GridSearchCV: `python benchmarks/probe_grid.py [--threads N] [--device cuda]`.

Both search the same grid of networks with the same definition (MLPClassifier: Adam, mini-batches of 200, the same stopping) on
the same rows, and train the best point with five first weights. scikit-learn runs first with the same held-out rows, so that
the ratio is about computing alone; its default of five folds costs five times as many trainings, which is multiplied out, or
measured with --folds. --l2 and --sizes cut the grid; what is left out is not extrapolated. scikit-learn has n_jobs=1 and one
BLAS thread (two made it several times slower on products this small); the batch has --threads. Both clocks are told: that of
the wall, on which other work on the machine shows, and that of the processor, whose ratio is the gain at equal cores.
Exits with 1 when accuracies differ by more than three standard errors, or the ratio of the wall clock with equal held-out rows
is below --least.
"""

import argparse
import itertools
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from finetrace.lenses.probes.mlp import L2_GRID, SIZES, fold_rows, mlp_grid, mlp_logits  # noqa: E402

CASES = {"small": (600, 64, 2), "words": (800, 128, 17), "large": (2000, 768, 17)}  # training rows, dim, classes
TEST, SEEDS = 1000, 5


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


def search(X: np.ndarray, y: np.ndarray, grid: dict, folds: int) -> tuple[list[float], dict, np.ndarray]:
    """GridSearchCV over MLPClassifier, then five networks: their accuracies on the test rows, the choice, both clocks."""
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier

    train = len(y) - TEST
    split = PredefinedSplit(np.where(fold_rows(y[:train], 1, 0.2, 0)[0], 0, -1)) if folds == 1 else folds
    start = clocks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trainings that end by the number of epochs
        found = GridSearchCV(MLPClassifier(max_iter=1000, random_state=0), grid, cv=split, n_jobs=1, refit=False)
        best = found.fit(X[:train], y[:train]).best_params_
        models = [MLPClassifier(max_iter=1000, random_state=s, **best).fit(X[:train], y[:train]) for s in range(SEEDS)]
    return [m.score(X[train:], y[train:]) for m in models], best, clocks() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=["small", "words"], choices=CASES)
    parser.add_argument("--threads", type=int, default=2, help="cores of both sides")
    parser.add_argument("--device", default="cpu", help="where the batch is computed: cpu or cuda")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--l2", nargs="+", type=float, default=L2_GRID)
    parser.add_argument("--problems", type=int, default=1, help="layers and checkpoints at once, for the batch alone")
    parser.add_argument("--folds", action="store_true", help="measure scikit-learn's five folds too")
    parser.add_argument("--least", type=float, default=1.0, help="ratio with equal held-out rows that passes")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    hidden, good = list(itertools.product(options.sizes, repeat=2)), True
    for name in options.cases:
        rows, dim, classes = CASES[name]
        X, y = hidden_like(rows + TEST, dim, classes)
        train, problems = X[None, :rows].repeat(options.problems, axis=0), options.problems
        mlp_grid(train[:1], y[:rows], hidden=[(32, 32)], l2=[1.0], max_epochs=2, device=options.device)  # wakes the libraries
        start = clocks()
        probe = mlp_grid(train, y[:rows], hidden=hidden, l2=options.l2, seeds=range(SEEDS), device=options.device)
        fast = (clocks() - start) / problems
        ours = np.array((mlp_logits(probe, 0, X[rows:]).argmax(axis=2) == y[rows:]).mean(axis=1))
        print(f"{name}: {rows:,} rows x {dim}, {classes} classes, {len(hidden)} shapes x {len(options.l2)} strengths, "
              f"{SEEDS} seeds")
        print(f"  batch               {fast[0]:.1f} s, processor {fast[1]:.1f} s per problem ({options.device}); "
              f"{hidden[probe.chosen_hidden[0]]}, l2 {probe.chosen_l2[0]:.0e}; accuracy {ours.mean():.4f} "
              f"(sd {ours.std(ddof=1):.4f})", flush=True)
        grid = {"hidden_layer_sizes": hidden, "alpha": list(options.l2)}
        with threadpool_limits(1):
            theirs, best, slow = search(X, y, grid, 1)
            five = search(X, y, grid, 5)[2] if options.folds else 5 * slow
        ratio, more = slow / fast, five / fast
        print(f"  GridSearchCV        {slow[0]:.1f} s, processor {slow[1]:.1f} s; {best['hidden_layer_sizes']}, l2 "
              f"{best['alpha']:.0e}; accuracy {np.mean(theirs):.4f} (sd {np.std(theirs, ddof=1):.4f})")
        print(f"  times slower: {ratio[0]:.1f} (processor {ratio[1]:.1f}) with the same held-out rows, {more[0]:.0f} (processor "
              f"{more[1]:.0f}) with five folds{'' if options.folds else ' (x 5, not measured)'}", flush=True)
        error = np.sqrt((np.var(theirs, ddof=1) + ours.var(ddof=1)) / SEEDS) + 1 / np.sqrt(4 * TEST)
        good &= bool(abs(np.mean(theirs) - ours.mean()) <= 3 * error) and ratio[0] >= options.least
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

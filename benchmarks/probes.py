"""Batched logistic probes against a loop of scikit-learn: `python benchmarks/probes.py [--threads N] [--device cuda]`.

Every layer and checkpoint at every L2 strength, the choice and the final fit, on the same standardised rows with the
same objective in the same precision. scikit-learn runs at its own tolerance of 1e-4, ten times looser than our final
fit, and at ours. Times are of the processor, or of the clock with --device cuda. Exits with 1 when, at the same
tolerance and strength, accuracies differ by more than two examples, or the batch is not the faster one.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from finetrace.lenses.probes.linear import L2_GRID, held_out_rows, logistic_probe, logits, score

CASES = {"default study: 7 checkpoints x 5 layers": (35, 64, 400, 400, 2),
         "default study, 6 classes": (35, 64, 400, 400, 6),
         "larger: 5 checkpoints x 7 layers": (35, 384, 2000, 1000, 2)}
MOST_APART = 2  # examples whose side may change between two minimisers that are both converged to a tolerance


def hidden_like(problems: int, dim: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(problem, row, dim) float32 correlated features in which classes come apart from problem to problem,
    (row,) labels."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(rows) % classes)
    X = np.empty((problems, rows, dim), dtype=np.float32)
    for p in range(problems):
        mixing = rng.normal(size=(dim, dim)) / np.sqrt(np.arange(1, dim + 1))[:, None]
        means = rng.normal(size=(classes, dim)) * (p + 1) / problems * 6 / np.sqrt(dim)
        X[p] = rng.normal(size=(rows, dim)) @ mixing + means[y]
    return X, y


def loop(X: np.ndarray, y: np.ndarray, train: int, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """What a script would do: per problem standardise, choose C by held-out loss, fit again, score."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.preprocessing import StandardScaler

    out, factor = held_out_rows(y[:train], 0.2, 0), 2 if y.max() == 1 else 1
    accuracy, chosen = [], []

    def fit(rows: np.ndarray, labels: np.ndarray, l2: float) -> LogisticRegression:
        return LogisticRegression(C=factor / (len(labels) * l2), tol=tolerance, max_iter=5000).fit(rows, labels)

    for x in X.astype(np.float64):
        x = StandardScaler().fit(x[:train]).transform(x)
        rows, gold = x[:train], y[:train]
        losses = [log_loss(gold[out], fit(rows[~out], gold[~out], l2).predict_proba(rows[out])) for l2 in L2_GRID]
        chosen.append(L2_GRID[int(np.argmin(losses))])
        accuracy.append(fit(rows, gold, chosen[-1]).score(x[train:], y[train:]))
    return np.array(accuracy), np.array(chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    parser.add_argument("--device", default="cpu", help="where the batch is computed: cpu or cuda")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    # left alone, BLAS threads that wait for each other make scikit-learn look 20 times slower
    threadpool_limits(options.threads)
    clock, good = (time.process_time if options.device == "cpu" else time.perf_counter), True
    for name, (problems, dim, train, test, classes) in CASES.items():
        X, y = hidden_like(problems, dim, train + test, classes)
        first = logistic_probe(X[:2, :train], y[:train], device=options.device)  # loads libraries, wakes the device
        score(logits(first, X[:2]), y, first.classes)
        start = clock()
        probe = logistic_probe(X[:, :train], y[:train], device=options.device)
        found = score(logits(probe, X[:, train:]), y[train:], probe.classes).accuracy
        fast = clock() - start
        print(f"{name}: {problems} problems, {train:,} rows x {dim}, {classes} classes, {len(L2_GRID)} strengths")
        print(f"  batch           {fast:.2f} s, {int(probe.converged.sum())} of {problems} converged, gradient <= "
              f"{probe.gradient_norm.max():.0e}, {probe.iterations.max()} iterations at most in the final fit")
        for tolerance in (1e-4, 1e-5):
            start = clock()
            expected, chosen = loop(X, y, train, tolerance)
            slow = clock() - start
            same = chosen == probe.l2
            apart = np.abs(found - expected)[same].max() * test
            print(f"  sklearn {tolerance:.0e}   {slow:.2f} s: {slow / fast:.1f} times slower; same strength for "
                  f"{same.sum()} of {problems}; accuracies there differ by {apart:.0f} of {test:,} examples at most")
        good &= bool(apart <= MOST_APART + 0.5) and slow > fast and bool(probe.converged.all())
    print("PASS" if good else "FAIL")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Batched convex solver behind the logistic probes: many multinomial logistic regressions in one computation.

Per problem the objective is the mean cross-entropy in nats plus l2/2 times the squared weights; the bias is free. It is
strictly convex in the weights, so the minimiser does not depend on the way there. The way: rotate the features to the
eigenvectors of X'X/n, scale them by the inverse square root of Boehning's bound on the Hessian, 1/2 X'X/n + l2
(Boehning 1992, "Multinomial logistic regression algorithm"), which makes the problem well conditioned, then L-BFGS
(Nocedal and Wright, algorithm 7.4) with one step length per problem. What has converged drops out of the computation.
"""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HISTORY = 10  # pairs that L-BFGS remembers
SUFFICIENT_DECREASE = 1e-4  # of the step's promise, Armijo's condition
ROUNDING = 1e-12  # relative error that the objective may carry
SHORTEST_STEP = 1e-8  # a fit that would need a shorter one counts as stalled


@dataclass(frozen=True)
class Minimum:
    """Where the solver ended, per problem and L2 strength; tensors on the device of the input.

    weights: (problem, strength, class, column) float64, for the columns of `rotate`, summing to zero over classes;
    iterations: (problem, strength) int64, evaluations of the objective;
    gradient_norm: (problem, strength) float64, largest absolute entry of the gradient;
    converged: (problem, strength) bool, gradient_norm <= tolerance.
    """

    weights: "torch.Tensor"
    iterations: "torch.Tensor"
    gradient_norm: "torch.Tensor"
    converged: "torch.Tensor"


def rotate(X: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Features in the coordinates in which `minimise` works; a rotation leaves objective and penalty as they are.

    X: (problem, row, dim) float64, standardised features. Returns the features along the eigenvectors of X'X/n with a
    last column of ones for the bias, (problem, row, directions + 1), directions = min(row, dim), because further
    directions cannot carry weight; the eigenvectors (problem, dim, directions); and the mean squares of the columns,
    (problem, directions + 1).
    """
    import torch

    problems, rows, dim = X.shape
    spectrum, vectors = torch.linalg.eigh(torch.bmm(X.transpose(1, 2), X) / rows)
    directions = min(rows, dim)
    vectors = vectors[:, :, dim - directions:].contiguous()
    rotated = torch.empty(problems, rows, directions + 1, dtype=X.dtype, device=X.device)
    rotated[:, :, :directions] = torch.bmm(X, vectors)
    rotated[:, :, directions] = 1
    ones = torch.ones(problems, 1, dtype=X.dtype, device=X.device)
    return rotated, vectors, torch.cat([spectrum[:, dim - directions:].clamp(min=0), ones], dim=1)


def minimise(rotated: "torch.Tensor", spectrum: "torch.Tensor", y: "torch.Tensor", l2: "torch.Tensor", classes: int, *,
             start: "torch.Tensor | None" = None, tolerance: float = 1e-5, max_iterations: int = 1000) -> Minimum:
    """Fit every problem at every L2 strength.

    rotated, spectrum: of `rotate`, or some of its rows;  y: (row,) int64 in 0 .. classes-1, shared by all problems;
    l2: (problem, strength) float64 > 0, per class weight and example (scikit-learn's C is 1 / (row l2), and 2 / (row
    l2) for two classes, where it keeps one weight vector instead of two);  start: (problem, strength, class, column)
    first weights, by default 0;  tolerance: largest gradient entry at which a fit is done.
    The result for one problem does not depend on the others beyond rounding.
    """
    import torch

    problems, rows, width = rotated.shape
    strengths = l2.shape[1]
    penalty = l2[:, :, None].repeat(1, 1, width)
    penalty[:, :, -1] = 0  # the bias
    scale = (0.5 * spectrum[:, None, :] + penalty).rsqrt()[:, :, None]
    one_hot = torch.nn.functional.one_hot(y, classes).to(rotated.dtype)
    gold = torch.bmm(one_hot.T.expand(problems, classes, rows), rotated)[:, None] / rows
    best = torch.zeros(problems, strengths, classes, width, dtype=rotated.dtype, device=rotated.device)
    norm = torch.full((problems, strengths), torch.inf, dtype=rotated.dtype, device=rotated.device)
    count = torch.zeros((problems, strengths), dtype=torch.int64, device=rotated.device)
    unsolved = torch.arange(problems, device=rotated.device)  # what is still in the computation
    part = _Batch(rotated, gold, penalty[:, :, None], scale, best if start is None else start / scale, tolerance)
    for _ in range(max_iterations):
        running = part.active.any(dim=1)
        if not bool(running.any()):
            break
        # copying the features costs about two iterations: only when it halves the rest. All strengths of a problem stay
        # together, so that its matrix products have the same shapes, and round alike, in every batch.
        if 2 * int(running.sum()) <= len(unsolved):
            best[unsolved], norm[unsolved] = part.point * part.scale, part.norm
            part.restrict(running)
            unsolved = unsolved[running]
        count[unsolved] += part.active
        part.step()
    best[unsolved], norm[unsolved] = part.point * part.scale, part.norm
    return Minimum(best, count, norm, norm <= tolerance)


class _Batch:
    """The fits still running: point, objective, gradient and curvature pairs, all (problem, strength, class, width)."""

    def __init__(self, X: "torch.Tensor", gold: "torch.Tensor", penalty: "torch.Tensor", scale: "torch.Tensor",
                 point: "torch.Tensor", tolerance: float):
        import torch

        self.X, self.gold, self.penalty, self.scale = X, gold, penalty, scale
        self.point, self.tolerance = point, tolerance
        self.value, self.gradient, self.norm = self._evaluate(self.point)
        self.direction = -self.gradient
        self.length = torch.ones_like(self.value)
        self.gamma = torch.ones_like(self.value)
        self.pairs: deque[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = deque(maxlen=HISTORY)

    @property
    def active(self) -> "torch.Tensor":
        """(problem, strength) bool: neither converged nor stalled."""
        return (self.norm > self.tolerance) & (self.length > SHORTEST_STEP)

    def restrict(self, problems: "torch.Tensor") -> None:
        """Keep these problems only: bool mask (problem,)."""
        for name in ("X", "gold", "penalty", "scale", "point", "value", "gradient", "norm", "direction", "length",
                     "gamma"):
            setattr(self, name, getattr(self, name)[problems])
        self.pairs = deque(((a[problems], b[problems], c[problems]) for a, b, c in self.pairs), maxlen=HISTORY)

    def step(self) -> None:
        """One evaluation per fit: a fit whose objective fell enough moves on, one whose did not halves its step."""
        import torch

        slope = _dot(self.gradient, self.direction)
        active = self.active
        point = self.point + _wide(torch.where(active, self.length, 0.0)) * self.direction
        value, gradient, norm = self._evaluate(point)
        fell = value <= self.value + SUFFICIENT_DECREASE * self.length * slope
        # near the minimum the decrease drowns in rounding; the slope along the step still tells (Hager and Zhang 2005,
        # eq. 4.1)
        level = value <= self.value + ROUNDING * self.value.abs()
        accepted = active & (fell | (level & (_dot(gradient, self.direction) <= (2 * SUFFICIENT_DECREASE - 1) * slope)))
        moved, turned = point - self.point, gradient - self.gradient
        curvature, size = _dot(moved, turned), _dot(turned, turned)
        usable = accepted & (curvature > 1e-14 * size)  # else the pair counts nothing
        self.pairs.append((moved, turned, torch.where(usable, 1 / torch.where(usable, curvature, 1.0), 0.0)))
        self.gamma = torch.where(usable, curvature / torch.where(usable, size, 1.0), self.gamma)
        wide = _wide(accepted)
        self.point, self.gradient = torch.where(wide, point, self.point), torch.where(wide, gradient, self.gradient)
        self.value, self.norm = torch.where(accepted, value, self.value), torch.where(accepted, norm, self.norm)
        self.direction = torch.where(wide, self._towards_minimum(), self.direction)
        self.length = torch.where(accepted, 1.0, torch.where(active, self.length / 2, self.length))

    def _evaluate(self, point: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
        """Objective (problem, strength), its gradient in scaled coordinates, and the unscaled gradient's largest
        entry."""
        import torch

        problems, strengths, classes, width = point.shape
        weights = point * self.scale
        scores = torch.bmm(weights.reshape(problems, -1, width), self.X.transpose(1, 2))
        scores = scores.view(problems, strengths, classes, -1)
        rows = scores.shape[-1]
        top = scores.amax(dim=2, keepdim=True)
        probability = scores.sub_(top).exp_()
        total = probability.sum(dim=2, keepdim=True)
        log_total = (total.log() + top).mean(dim=(2, 3))
        probability /= total * rows
        pulled = self.penalty * weights
        value = log_total - _dot(weights, self.gold) + 0.5 * _dot(pulled, weights)
        gradient = torch.bmm(probability.view(problems, -1, rows), self.X).view_as(point) - self.gold + pulled
        return value, gradient * self.scale, gradient.abs().amax(dim=(2, 3))

    def _towards_minimum(self) -> "torch.Tensor":
        """L-BFGS's two loops over the remembered pairs."""
        search = self.gradient.clone()
        shares = []
        for moved, turned, inverse in reversed(self.pairs):
            share = inverse * _dot(moved, search)
            shares.append(share)
            search.addcmul_(_wide(share), turned, value=-1)
        search *= _wide(self.gamma)
        for (moved, turned, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            search.addcmul_(_wide(share - inverse * _dot(turned, search)), moved)
        return -search


def _dot(a: "torch.Tensor", b: "torch.Tensor") -> "torch.Tensor":
    return (a * b).sum(dim=(2, 3))


def _wide(x: "torch.Tensor") -> "torch.Tensor":
    return x[..., None, None]

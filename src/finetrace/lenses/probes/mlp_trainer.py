"""Batched training of the networks of `mlp`: networks of one shape, for any problems, seeds and L2 strengths, at
once.

A network is one row of a matrix that holds its weights and then its biases, so that penalty, Adam and the removal of
finished networks are single operations on that matrix; the layers are batched matrix products on views of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BATCH, RATE, BETAS, EPSILON = 200, 1e-3, (0.9, 0.999), 1e-8
BLOCK = 4096  # rows per forward pass of an evaluation: bounds memory, changes nothing
TOLERANCE, PATIENCE = 1e-4, 10  # nats per row; epochs in a row without such a fall that are borne


@dataclass(frozen=True)
class Trained:
    """Networks as they are; tensors on the device of the input.

    weights: per layer (problem, seed, strength, in, out);  biases: per layer (problem, seed, strength, out);
    epochs: (problem, seed, strength) int64 trained so far;  converged: (problem, seed, strength) bool, ended by the
    loss.
    """

    weights: "list[torch.Tensor]"
    biases: "list[torch.Tensor]"
    epochs: np.ndarray
    converged: np.ndarray


class Training:
    """A network of the sizes `hidden` for every problem, seed and strength, in training.

    X: (problem, row, dim);  codes: (row,) or (problem, row) int64 in 0 .. classes-1;  outputs: classes, or 1 for two
    classes;
    l2: (strength,). First weights and orders come from numpy's RandomState(seed) in scikit-learn's order of draws, the
    same for every problem and strength. However `run` is divided, the networks are the same.
    """

    def __init__(self, X: "torch.Tensor", codes: "torch.Tensor", outputs: int, hidden: Sequence[int],
                 l2: Sequence[float], seeds: Sequence[int], max_epochs: int):
        import torch

        problems, rows, dim = X.shape
        self.X, self.codes, self.sizes, self.max_epochs = X, codes.expand(problems, rows), (dim, *hidden,
                                                                                            outputs), max_epochs
        self.draws = [np.random.RandomState(seed % 2**32) for seed in seeds]
        first = torch.as_tensor(np.stack([_first_weights(draw, self.sizes) for draw in self.draws])).to(X)
        self.shape = (problems, len(seeds), len(l2))
        self.problem, self.seed, strength = (axis.ravel() for axis in np.indices(self.shape))  # of every network
        strengths = torch.as_tensor(np.asarray(l2)[strength], dtype=X.dtype, device=X.device)
        self.batch = _Batch(first[self.seed], strengths, self.sizes)
        self.whole = self.batch.networks.clone()  # where networks are kept that no longer train
        count = len(self.whole)
        self.epochs, self.converged = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=bool)
        self.left, self.epoch = np.arange(count), 0
        self.best, self.waited = np.full(count, np.inf), np.zeros(count, dtype=np.int64)
        self.orders = [np.arange(rows) for _ in self.draws]

    def run(self, until: int) -> Trained:
        """Train on to the end of epoch `until` those networks that have neither converged nor been dropped."""
        while len(self.left) and self.epoch < min(until, self.max_epochs):
            self.epoch += 1
            loss = self._one_epoch()
            self.epochs[self.left] = self.epoch
            self.waited = np.where(loss > self.best - TOLERANCE, self.waited + 1, 0)
            self.best = np.minimum(self.best, loss)
            stopped = self.waited > PATIENCE
            self.converged[self.left] = stopped & (self.epoch < self.max_epochs)
            if stopped.any():
                self._keep(~stopped)
        self.whole[self.left] = self.batch.networks
        weights, biases = _layers(self.whole, self.sizes)
        return Trained([w.view(*self.shape, *w.shape[1:]) for w in weights],
                       [b.view(*self.shape, b.shape[2]) for b in biases],
                       self.epochs.reshape(self.shape), self.converged.reshape(self.shape))

    def drop(self, networks: np.ndarray) -> None:
        """Train these no further: networks (problem, seed, strength) bool."""
        dropped = np.asarray(networks, dtype=bool).ravel()[self.left]
        if dropped.any():
            self._keep(~dropped)

    def _keep(self, going: np.ndarray) -> None:
        """Of the networks in training, go on with these: going (network,) bool."""
        self.whole[self.left[~going]] = self.batch.networks[np.flatnonzero(~going)]
        self.left, self.best, self.waited = self.left[going], self.best[going], self.waited[going]
        self.batch.restrict(np.flatnonzero(going))

    def _one_epoch(self) -> np.ndarray:
        """Loss of each network in training over the epoch, (network,) in nats."""
        import torch

        X, rows, networks = self.X, self.X.shape[1], self.left
        for k, draw in enumerate(self.draws):
            shuffle = np.arange(rows)
            draw.shuffle(shuffle)
            self.orders[k] = self.orders[k][shuffle]
        order = torch.as_tensor(np.stack(self.orders), device=X.device)[self.seed[networks]]  # (network, row)
        problem_of = torch.as_tensor(self.problem[networks], device=X.device)[:, None]
        shared = len(self.draws) == len(X) == 1  # then all meet the same rows, which need no copies
        total = torch.zeros(len(networks), dtype=torch.float64, device=X.device)
        for start in range(0, rows, BATCH):
            chosen = order[:, start:start + BATCH]
            x = X[:, chosen[0]].expand(len(networks), -1, -1) if shared else X[problem_of, chosen]
            total.add_(self.batch.step(x, self.codes[problem_of, chosen]), alpha=chosen.shape[1] / rows)
        return total.cpu().numpy()


def scores(trained: Trained, X: "torch.Tensor", codes: "torch.Tensor") -> tuple[np.ndarray, np.ndarray]:
    """Accuracy in [0, 1] and mean cross-entropy in nats of networks of one seed: X (problem, row, dim), codes (row,)
    int64; both (problem, strength) float64."""
    import torch

    weights, biases = ([v.flatten(0, 2) for v in values] for values in (trained.weights, trained.biases))
    models = len(weights[0])
    right = torch.zeros(models, dtype=torch.int64, device=X.device)
    loss = torch.zeros(models, dtype=torch.float64, device=X.device)
    for start in range(0, len(codes), BLOCK):
        a = X[:, start:start + BLOCK].to(weights[0].dtype).repeat_interleave(models // len(X), dim=0)
        z, gold = forward(weights, biases, a), codes[start:start + BLOCK].expand(models, -1)
        right += ((z.argmax(dim=2) if z.shape[2] > 1 else (z[..., 0] > 0).long()) == gold).sum(dim=1)
        loss += _cross_entropy(z, gold)[0] * gold.shape[1]
    shares, losses = ((v.cpu().numpy() / len(codes)).reshape(len(X), -1) for v in (right, loss))
    return shares, losses


def forward(weights: "list[torch.Tensor]", biases: "list[torch.Tensor]", a: "torch.Tensor") -> "torch.Tensor":
    """Outputs (model, row, out) of networks for a (model, row, dim)."""
    import torch

    for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
        a = torch.baddbmm(b[:, None], a, w)
        if number < len(weights) - 1:
            a = a.relu_()
    return a


def _first_weights(draw: np.random.RandomState, sizes: Sequence[int]) -> np.ndarray:
    """Glorot and Bengio (2010): weights and, as scikit-learn has it, biases within -+ sqrt(6 / (in + out)); one
    network."""
    weights, biases = [], []
    for inputs, width in pairwise(sizes):
        limit = np.sqrt(6.0 / (inputs + width))
        weights.append(draw.uniform(-limit, limit, (inputs, width)).ravel())
        biases.append(draw.uniform(-limit, limit, width))
    return np.concatenate(weights + biases)


def _layers(networks: "torch.Tensor", sizes: Sequence[int]) -> "tuple[list[torch.Tensor], list[torch.Tensor]]":
    """Views of networks (network, size): per layer weights (network, in, out) and biases (network, 1, out)."""
    pairs = list(pairwise(sizes))
    parts = networks.split([a * b for a, b in pairs] + [b for _, b in pairs], dim=1)
    return ([part.unflatten(1, pair) for part, pair in zip(parts, pairs, strict=False)],
            [part[:, None] for part in parts[len(pairs):]])


class _Batch:
    """Networks in training: networks (network, size), l2 (network,)."""

    def __init__(self, networks: "torch.Tensor", l2: "torch.Tensor", sizes: Sequence[int]):
        import torch

        self.sizes, self.penalised = sizes, sum(a * b for a, b in pairwise(sizes))
        self.moments = [torch.zeros_like(networks), torch.zeros_like(networks)]
        self.updates = torch.zeros((), device=l2.device)
        self.count = 0
        self._take(networks, l2)

    def _take(self, networks: "torch.Tensor", l2: "torch.Tensor") -> None:
        self.networks, self.l2 = networks, l2
        self.weights, self.biases = _layers(networks, self.sizes)

    def restrict(self, networks: np.ndarray) -> None:
        """Keep these networks only: positions (network,)."""
        self.moments = [moment[networks] for moment in self.moments]
        self._take(self.networks[networks], self.l2[networks])

    def step(self, x: "torch.Tensor", y: "torch.Tensor") -> "torch.Tensor":
        """One update with mini-batches x (network, row, dim), y (network, row); the loss before it, (network,) in
        nats."""
        import torch
        from torch.optim.adam import adam

        inputs = [x]
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs.append(torch.baddbmm(b, inputs[-1], w).relu_())
        loss, error = _cross_entropy(torch.baddbmm(self.biases[-1], inputs[-1], self.weights[-1]), y)
        weights, biases = [], []
        for k in range(len(self.weights) - 1, -1, -1):
            weights.append(torch.bmm(inputs[k].transpose(1, 2), error).flatten(1))
            biases.append(error.sum(dim=1))
            if k:
                error = torch.ops.aten.threshold_backward(torch.bmm(error, self.weights[k].transpose(1, 2)), inputs[k],
                                                          0)
        gradient = torch.cat(weights[::-1] + biases[::-1], dim=1)
        share, penalised = self.l2 / x.shape[1], self.networks[:, :self.penalised]
        loss = loss.addcmul_(share, torch.linalg.vector_norm(penalised, dim=1).square_(), value=0.5)
        gradient[:, :self.penalised].addcmul_(penalised, share[:, None])
        self.count += 1
        # scikit-learn adds epsilon to the root of the uncorrected second moment, torch to that of the corrected one
        epsilon = EPSILON / (1 - BETAS[1] ** self.count) ** 0.5
        adam([self.networks], [gradient], [self.moments[0]], [self.moments[1]], [], [self.updates], fused=True,
             amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=RATE, weight_decay=0.0, eps=epsilon, maximize=False)
        return loss


def _cross_entropy(z: "torch.Tensor", y: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Mean cross-entropy over rows (network,) in nats and its gradient in z (network, row, out); one output is the
    second class's log odds. y: (network, row) int64."""
    import torch

    rows = z.shape[1]
    if z.shape[2] == 1:
        gold = y[:, :, None].to(z.dtype)
        loss = torch.nn.functional.softplus(z).addcmul_(z, gold, value=-1).sum(dim=(1, 2)).div_(rows)
        return loss, torch.sigmoid(z).sub_(gold).div_(rows)
    log_share = torch.log_softmax(z, dim=2)
    gold = y[:, :, None]
    loss = log_share.gather(2, gold).sum(dim=(1, 2)).div_(-rows)
    right = gold == torch.arange(z.shape[2], device=z.device)
    return loss, log_share.exp_().add_(right, alpha=-1).div_(rows)

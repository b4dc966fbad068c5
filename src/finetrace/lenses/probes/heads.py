"""The heads of the French study on frozen sentence vectors, trained with Adam: all problems and seeds in one batched
computation.

    xlm      dropout on the inputs, one linear layer (FlauBERT's own head)
    roberta  dropout on the inputs, dense layer of the same width with tanh, dropout, linear layer (CamemBERT's
             own head)

with a softmax over the classes. The study's own Keras heads put the dropout on the scalar logit instead; `parity`
reproduces them: one logit z, dropout on z, sigmoid, two classes. Optimiser as there: Adam (Kingma and Ba 2015) with
learning rate 1e-3, betas 0.9 and 0.999, epsilon 1e-7 beside the uncorrected root (Keras's form), Glorot-uniform
weights, zero bias, batches of 32 drawn in a new order each epoch, the last one smaller. Nothing here converges by
itself: read the curves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from finetrace.lenses.probes.linear import checked, known_codes

if TYPE_CHECKING:
    import torch

Head = Literal["xlm", "roberta"]
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
BLOCK = 1024  # rows per forward pass of an evaluation: bounds memory, changes nothing


@dataclass(frozen=True)
class TrainedHeads:
    """Heads after the last epoch, and how they got there.

    parameters: name -> (seed, problem, in, out) float32 weights and (seed, problem, 1, out) biases;
    loss, accuracy: name -> (seed, problem, epoch) float64, nats per example and share in [0, 1]; the names are
    "training" (in training mode, mean over the batches as they came: dropout lowers it), "train" (the same rows in
    evaluation mode at the epoch's end) and the evaluation splits;  classes: (class,) labels in the order of the logits;
    parity: one logit inside.
    """

    parameters: dict[str, np.ndarray]
    loss: dict[str, np.ndarray]
    accuracy: dict[str, np.ndarray]
    classes: np.ndarray
    parity: bool


def train_heads(X: np.ndarray, y: np.ndarray, evaluation: Mapping[str, tuple[np.ndarray, np.ndarray]], *,
                head: Head = "xlm",
                seeds: Sequence[int] = (0,), epochs: int = 30, learning_rate: float = 1e-3, batch_size: int = 32,
                dropout: float = 0.1, parity: bool = False, device: str = "cpu") -> TrainedHeads:
    """Train one head per seed and problem.

    X: (problem, row, dim) float;  y: (row,) labels;  evaluation: split -> (X (problem, row, dim), y (row,)), looked at
    after every epoch and never used for training; labels that training lacks count as wrong there, and nothing towards
    the loss;
    seeds: each fixes first weights, orders and dropout, the same for every problem, so that a problem's result does not
    depend on the others.
    Raises ValueError for NaN, one class, fewer rows than classes, `parity` with other than 2 classes.
    """
    import torch

    X, classes, codes = checked(X, y)
    if parity and len(classes) != 2:
        raise ValueError(f"parity: the study's heads have one logit, for 2 classes; there are {len(classes)}; set "
                         "parity: false")
    if head not in ("xlm", "roberta"):
        raise ValueError(f"head: {head!r} is none of xlm, roberta")
    parts = {"train": (X, codes)} | {split: (np.asarray(x), known_codes(t, classes))
                                     for split, (x, t) in evaluation.items()}
    for split, (features, _) in parts.items():
        if not np.isfinite(features).all():
            raise ValueError(f"X of the split {split!r} holds NaN or infinity")
    looks = {split: (torch.as_tensor(features, dtype=torch.float32, device=device),
                     torch.as_tensor(labels, device=device))
             for split, (features, labels) in parts.items()}
    rows, gold = looks["train"]
    problems, count, dim = rows.shape
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]  # on the CPU: the same numbers on every device
    parameters = _first_weights(draws, problems, dim, 1 if parity else len(classes), head, device)
    adam = _Adam(list(parameters.values()), learning_rate)
    names = ["training", *looks]
    loss, accuracy = ({name: np.zeros((len(seeds), problems, epochs)) for name in names} for _ in range(2))
    for epoch in range(epochs):
        order = torch.stack([torch.randperm(count, generator=g) for g in draws]).to(device)
        for start in range(0, count, batch_size):
            chosen = order[:, start:start + batch_size]
            batch = rows[:, chosen].transpose(0, 1)  # (seed, problem, row, dim)
            drop = _Dropout(draws, dropout, device)
            losses, hits = _compare(_forward(parameters, batch, head, parity, drop),
                                    gold[chosen][:, None].expand(-1, problems, -1))
            adam.step(torch.autograd.grad(losses.mean(dim=2).sum(), list(parameters.values())))
            loss["training"][..., epoch] += losses.detach().sum(dim=2).cpu().numpy() / count
            accuracy["training"][..., epoch] += hits.sum(dim=2).cpu().numpy() / count
        for split, (x, t) in looks.items():
            loss[split][..., epoch], accuracy[split][..., epoch] = _look(parameters, x, t, head, parity)
    trained = {name: values.detach().cpu().numpy() for name, values in parameters.items()}
    return TrainedHeads(trained, loss, accuracy, classes, parity)


def head_logits(heads: TrainedHeads, X: np.ndarray) -> np.ndarray:
    """Logits in evaluation mode: X (problem, row, dim) -> (seed, problem, row, class) float64; with parity they are (0,
    z)."""
    import torch

    parameters = {name: torch.from_numpy(values) for name, values in heads.parameters.items()}
    x = torch.as_tensor(np.asarray(X), dtype=torch.float32)
    logits = [torch.cat([block for block, _ in
                         _blocks(_one_seed(parameters, k), x, _head_of(parameters), heads.parity)], dim=2)
              for k in range(len(parameters["out.weight"]))]
    return torch.cat(logits).to(torch.float64).numpy()


def head_bytes(rows: int, test_rows: int, dim: int, classes: int, seeds: int, head: Head) -> int:
    """Memory that one problem of `train_heads` takes at most, with its rows of all splits, in bytes."""
    weights = dim * classes + (dim * dim if head == "roberta" else 0)
    return 4 * (2 * dim * (rows + test_rows) + 6 * seeds * weights + 4 * seeds * 64 * dim + 4 * BLOCK * dim)


def _first_weights(draws: Sequence["torch.Generator"], problems: int, dim: int, outputs: int, head: Head,
                   device: str) -> dict[str, "torch.Tensor"]:
    """Glorot and Bengio (2010): uniform within -+ sqrt(6 / (in + out)); biases 0."""
    import torch

    shapes = {"dense": (dim, dim), "out": (dim, outputs)} if head == "roberta" else {"out": (dim, outputs)}
    weights = {}
    for name, (inputs, width) in shapes.items():
        limit = (6 / (inputs + width)) ** 0.5
        drawn = torch.stack([(2 * torch.rand(inputs, width, generator=g) - 1) * limit for g in draws])
        weights[f"{name}.weight"] = drawn[:, None].repeat(1, problems, 1, 1)
        weights[f"{name}.bias"] = torch.zeros(len(draws), problems, 1, width)
    return {name: values.to(device).requires_grad_() for name, values in weights.items()}


class _Dropout:
    """Zeroes entries with probability `rate` and scales the others by 1/(1 - rate); one mask per seed, for every
    problem."""

    def __init__(self, draws: Sequence["torch.Generator"], rate: float, device: str):
        self.draws, self.rate, self.device = draws, rate, device

    def __call__(self, x: "torch.Tensor") -> "torch.Tensor":
        import torch

        if not self.rate:
            return x
        mask = torch.stack([torch.rand(x.shape[2:], generator=g) for g in self.draws]) >= self.rate
        return x * (mask[:, None].to(self.device) / (1 - self.rate))


def _same(x: "torch.Tensor") -> "torch.Tensor":
    return x


def _forward(parameters: Mapping[str, "torch.Tensor"], x: "torch.Tensor", head: str, parity: bool,
             drop: Callable[["torch.Tensor"], "torch.Tensor"] = _same) -> "torch.Tensor":
    """x: (seed, problem, row, dim) -> logits (seed, problem, row, class)."""
    import torch

    if not parity:
        x = drop(x)
    if head == "roberta":
        x = drop(torch.tanh(x @ parameters["dense.weight"] + parameters["dense.bias"]))
    logits = x @ parameters["out.weight"] + parameters["out.bias"]
    if parity:
        logits = drop(logits)
        logits = torch.cat([torch.zeros_like(logits), logits], dim=-1)  # softmax of (0, z) is the sigmoid of z
    return logits


def _compare(logits: "torch.Tensor", labels: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Cross-entropy in nats and whether the top class is right, both (seed, problem, row). A tie counts as class 0; a
    label of -1 costs nothing and is never right."""
    import torch

    losses = -torch.log_softmax(logits, dim=-1).gather(-1, labels[..., None].clamp(min=0))[..., 0] * (labels >= 0)
    return losses, logits.detach().argmax(dim=-1) == labels


def _look(parameters: Mapping[str, "torch.Tensor"], x: "torch.Tensor", y: "torch.Tensor", head: str,
          parity: bool) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy in evaluation mode, (seed, problem)."""
    seeds, problems = parameters["out.weight"].shape[:2]
    known_count = int((y >= 0).sum())
    loss, accuracy = np.zeros((seeds, problems)), np.zeros((seeds, problems))
    for seed in range(seeds):
        for logits, block in _blocks(_one_seed(parameters, seed), x, head, parity):
            losses, hits = _compare(logits, y[block].expand(1, problems, -1))
            loss[seed] += losses.double().sum(dim=2)[0].cpu().numpy() / known_count if known_count else np.nan
            accuracy[seed] += hits.sum(dim=2)[0].cpu().numpy() / len(y)
    return loss, accuracy


def _blocks(parameters: Mapping[str, "torch.Tensor"], x: "torch.Tensor", head: str, parity: bool
            ) -> Iterator[tuple["torch.Tensor", slice]]:
    """Logits of one seed, block by block: (1, problem, row, class) and the rows' slice."""
    for start in range(0, x.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        yield _forward(parameters, x[None, :, block], head, parity), block


def _one_seed(parameters: Mapping[str, "torch.Tensor"], seed: int) -> dict[str, "torch.Tensor"]:
    return {name: values.detach()[seed:seed + 1] for name, values in parameters.items()}


def _head_of(parameters: Mapping[str, "torch.Tensor"]) -> Head:
    return "roberta" if "dense.weight" in parameters else "xlm"


class _Adam:
    """Adam in Keras's form: w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)."""

    def __init__(self, parameters: list["torch.Tensor"], rate: float):
        self.parameters, self.rate, self.t = parameters, rate, 0
        self.first = [p.detach().new_zeros(p.shape) for p in parameters]
        self.second = [p.detach().new_zeros(p.shape) for p in parameters]

    def step(self, gradients: Sequence["torch.Tensor"]) -> None:
        import torch

        self.t += 1
        size = self.rate * (1 - BETA2**self.t) ** 0.5 / (1 - BETA1**self.t)
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
                m.lerp_(g, 1 - BETA1)
                v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
                p.addcdiv_(m, v.sqrt().add_(EPSILON), value=-size)

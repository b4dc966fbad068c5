"""Settings of the lens kernel."""

from typing import Literal

from finetrace.config.base import require, settings

OFFSET_SOLVERS = ("least-squares", "svr", "ridge")  # those that can start from the model's own logits
SYMMETRIC_SOLVERS = ("ridge", "svc", "svr")


@settings
class KernelSettings:
    """Neural tangent kernel at checkpoints of a trajectory: its parts, statistics, and what it predicts."""

    rows: dict[str, int] = None  # type: ignore[assignment]
    """Examples: `train`, on which kernel models are fitted, and `eval`, on which they are tested; by default 250 of
    each, as published. Cost and memory grow with the square of train x classes; 0 for eval: none."""
    eval_split: Literal["validation", "test"] = "validation"
    """Split of the eval examples."""
    choose: Literal["stratified", "random", "first"] = "stratified"
    """How examples are chosen: the classes in their own shares, at random, or the first ones; the same whatever the
    method."""
    checkpoints: Literal["ends", "all"] | list[int] = "ends"
    """First and last, all, or these steps; steps beyond the end of a run are left out there, first and last are always
    in."""
    parameters: Literal["trained", "all", "encoder", "head", "lora"] = "trained"
    """Whose gradients: `trained`, what the method trains (ft, lp-ft: all; lora, lp-lora: adapters and head; lp: the
    head, so that the FT-effective part is zero), all, all but the head, the head, or the adapters alone."""
    formula: Literal["sgd", "signgd", "asymmetric-signgd"] = "sgd"
    """Kernel of gradient descent <J, J'>, of its sign <sign J, sign J'>, or <sign J, J'> (Malladi et al. 2023)."""
    solver: Literal["logistic", "least-squares", "svc", "svr", "ridge", "asymmetric", "none"] = "logistic"
    """Kernel model; none leaves the accuracies out."""
    parity: bool = False
    """Logistic: the published fit of scikit-learn, whose folds cut through examples and whose optimiser stops early."""
    folds: int = 5
    """Logistic, ridge: folds of the cross-validation over examples that chooses the strength."""
    normalise: Literal["none", "frobenius", "mean-diagonal"] = "none"
    """Kernel models: divide kernels by the training kernel's norm or mean diagonal. Without it a larger kernel is
    regularised less, so that accuracies of kernels of different sizes are not on equal terms."""
    regularization: float = 0.0
    """Kernel models: this times the operator norm is added to the training kernel's diagonal."""
    gamma: float = 1.0
    """Solver asymmetric: its regularisation."""
    adjust_for_init: bool = False
    """Solvers of regression: fit what the checkpoint's own logits leave over, and add them to predictions."""
    f0_scaling: float = 1.0
    """The logits are divided by this for `adjust_for_init`."""
    rank_tolerance: float | None = None
    """Singular values up to this share of the largest count as zero; by default kernel rows x 1.19e-7 (float32)."""
    groups: bool = True
    """Also the FT-effective part of each group of parameters: embeddings, attention, FFN, norms, biases of each
    layer."""
    dtype: Literal["float32", "float64"] = "float32"
    """Arithmetic of the gradients; sums are float64 anyway."""
    memory_gb: float = 2.0
    """Memory for gradients that are kept between passes; less means more passes, not other results."""
    batch_tokens: int = 2048
    """Tokens per forward pass, padding included."""
    max_length: int | None = None
    """Longest input in tokens; by default the training's own."""
    keep: bool = False
    """Also write the kernels: kernels/step-*/{pretrain_effective,ft_effective}.npy, float32."""

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", {"train": 250, "eval": 250})
        require(set(self.rows) == {"train", "eval"}, f"rows: names {', '.join(self.rows) or 'nothing'}; write e.g. "
                                                     "{train: 250, eval: 250}")
        require(self.rows["train"] >= 2, f"rows.train: {self.rows['train']} is less than 2")
        require(self.rows["eval"] >= 0, f"rows.eval: {self.rows['eval']} is negative; 0 leaves the eval examples out")
        if isinstance(self.checkpoints, list):
            require(all(step >= 0 for step in self.checkpoints),
                    f"checkpoints: {self.checkpoints} is not a list of steps")
        require(not self.parity or self.solver == "logistic",
                f"parity: is about solver: logistic, not {self.solver}; change one")
        require(self.folds >= 2, f"folds: {self.folds} is less than 2")
        require(self.solver != "asymmetric" or self.formula == "asymmetric-signgd",
                f"solver: asymmetric is for formula: asymmetric-signgd, not {self.formula}; change one")
        require(self.formula != "asymmetric-signgd" or self.solver not in SYMMETRIC_SOLVERS,
                f"solver: {self.solver} needs a symmetric kernel; with formula: asymmetric-signgd take asymmetric, "
                "logistic, least-squares or none")
        require(not self.adjust_for_init or self.solver in OFFSET_SOLVERS,
                f"adjust_for_init: solver {self.solver} cannot start from logits; take {', '.join(OFFSET_SOLVERS)}")
        for key in ("gamma", "f0_scaling", "memory_gb"):
            require(getattr(self, key) > 0, f"{key}: {getattr(self, key)} is not above 0")
        require(self.regularization >= 0, f"regularization: {self.regularization} is negative")
        require(self.rank_tolerance is None or 0 <= self.rank_tolerance < 1,
                f"rank_tolerance: {self.rank_tolerance} is not a share of the largest singular value, from 0 up to 1")
        require(self.batch_tokens >= 16, f"batch_tokens: {self.batch_tokens} is less than 16")
        require(self.max_length is None or self.max_length >= 4,
                f"max_length: {self.max_length} tokens leave no room for a text")

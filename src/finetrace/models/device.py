"""Where a model runs."""

import os
import time
from functools import cache

from finetrace.store.threads import share


def device_name() -> str:
    """The accelerator's name, or cpu with its number of threads (results on a CPU are equal for equal threads)."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"cpu ({torch.get_num_threads()} threads)"


def use_bf16(precision: str) -> bool:
    """Whether to train in bfloat16: `auto` does on a GPU that has it, never silently on a CPU."""
    import torch

    if precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return precision == "bf16"


def set_up(parameters: int) -> None:
    """Deterministic algorithms where torch has them, and threads that fit the model: call before a training.

    parameters: size of the model; below a million, handing work to a second thread costs more than it gains.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order each time
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    fit_threads(parameters)


def fit_threads(parameters: int) -> None:
    """One thread for a model of less than a million parameters, for others this item's share of the cores; a forward
    pass on a CPU needs no more of `set_up`."""
    import torch

    if parameters < 1_000_000:
        torch.set_num_threads(1)
    elif (threads := share()) is not None:
        torch.set_num_threads(min(torch.get_num_threads(), threads))


@cache
def operations_per_second() -> float:
    """What this machine reaches in float32 matrix products with its threads of now; measured once, in a tenth of a
    second.

    For the time that is told before long work: what a lens's loops reach is a share of it.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 384
    a = torch.ones(size, size, device=device)
    best = float("inf")
    for _ in range(4):  # the first is a warm-up
        started = time.perf_counter()
        float((a @ a)[0, 0])  # reading a number waits for the GPU
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def quiet() -> None:
    """Keep transformers from drawing bars and load reports into our log."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

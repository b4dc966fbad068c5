"""In which arithmetic a model runs."""

from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.device import use_bf16


def bf16_of(model: Any, precision: str) -> bool:
    """Whether the model's passes are computed in bfloat16, as `use_bf16` says for the setting `precision`.

    Raises FinetraceError where that cannot be: on a CPU, the attention of DeBERTa (v1) masks by the least float32,
    which bfloat16 does not hold.
    """
    import torch

    chosen = use_bf16(precision)
    if chosen and model.config.model_type == "deberta" and not torch.cuda.is_available():
        raise FinetraceError("precision: bf16: on a CPU the attention of DeBERTa (v1) cannot be computed in bf16; set "
                             "fp32")
    return chosen

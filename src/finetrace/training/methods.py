"""What the methods ft, lp, lp-ft, lora and lp-lora do before the first step: which parameters are trained,
from which head."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.config.training import MethodSettings, TrainSettings
from finetrace.errors import FinetraceError
from finetrace.inference.evaluate import predict_with_features
from finetrace.models.head import last_linear
from finetrace.models.load import load_classifier
from finetrace.models.precision import bf16_of
from finetrace.models.rows import Collator, Encoded
from finetrace.models.saved import freeze_encoder, remember_base
from finetrace.store.whole import is_whole, whole_folder
from finetrace.training.linear_probe import LinearProbe, fit_linear_probe

log = logging.getLogger(__name__)


def start_classifier(model_folder: Path, task: dict[str, Any], settings: TrainSettings, method: MethodSettings,
                     head_seed: int, adapter_seed: int) -> Any:
    """The classifier before the first step, its head freshly drawn, with the method's own parameters set to be trained.

    task: facts of the task's manifest. Raises FinetraceError when weights of the model are NaN or infinite.
    """

    model = load_classifier(model_folder, task["label_names"], head_seed, settings.dropout, task.get("spans", 0),
                            settings.head)
    require_finite(model, model_folder)
    bf16_of(model, settings.precision)  # refuses what cannot be
    if method.adapts:
        from finetrace.models.adapters import add_lora

        add_lora(model.base_model, settings.lora_rank, settings.lora_alpha, settings.lora_dropout,
                 settings.lora_targets, adapter_seed)
    if method.adapts or method.kind == "lp":
        freeze_encoder(model)
    remember_base(model, model_folder)
    return model


def require_finite(model: Any, folder: Path) -> None:
    """Raises FinetraceError when a weight is NaN or infinite: nothing can be learned from there."""
    import torch

    for name, values in model.named_parameters():
        if not bool(torch.isfinite(values).all()):
            raise FinetraceError(f"{folder}: its weights {name} hold NaN or infinity; fetch the model again, or train "
                                 "it again with a lower learning_rate")


def probe_head(model: Any, train: Encoded, collator: Collator, settings: TrainSettings, seed: int,
               fit_folder: Path | None = None) -> tuple[LinearProbe, np.ndarray]:
    """Fit the head's last linear layer on the frozen encoder and install it;
    returns the fit and the features (example, dim).

    fit_folder: folder in which the fit is kept, so that a continued training does not repeat it
    (the features are then empty).
    """
    import torch

    if last_linear(model).bias is None:
        raise FinetraceError(f"{type(model).__name__}: its head has no bias, which linear probing needs; set "
                             "train.head: linear")
    if fit_folder is not None and is_whole(fit_folder):
        probe, features = _read(fit_folder), np.empty((0, 0), dtype=np.float32)
    else:
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        _, features = predict_with_features(model, train, collator)
        try:
            probe = fit_linear_probe(features, train.labels, last_linear(model).out_features, settings, seed)
        except ValueError as error:
            raise FinetraceError(f"linear probe: {error}") from error
        if fit_folder is not None:
            fit_folder.parent.mkdir(parents=True, exist_ok=True)
            _write(fit_folder, probe)
    install(model, probe.weight, probe.bias)
    return probe, features


def trained_parameters(model: Any) -> int:
    """How many numbers the optimiser changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def install(model: Any, weight: np.ndarray, bias: np.ndarray) -> None:
    """Put a head (class, dim) and its bias (class,) into the model's last linear layer."""
    import torch

    layer = last_linear(model)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def scale_head(model: Any, settings: TrainSettings) -> None:
    """Multiply the head's weight, and if asked its bias, by `head_scale`: the intervention of Tomihari and Sato 2024,
    fig. 3."""
    import torch

    layer = last_linear(model)
    with torch.no_grad():
        layer.weight.mul_(settings.head_scale)
        if settings.head_scale_bias and layer.bias is not None:
            layer.bias.mul_(settings.head_scale)


def _write(folder: Path, probe: LinearProbe) -> None:
    with whole_folder(folder) as temporary:
        for name in LinearProbe.__dataclass_fields__:
            np.save(temporary / f"{name}.npy", np.asarray(getattr(probe, name)), allow_pickle=False)


def _read(folder: Path) -> LinearProbe:
    values = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in LinearProbe.__dataclass_fields__}
    return LinearProbe(**{name: value if value.ndim else value.item() for name, value in values.items()})

"""The masked-word head of a model folder, apart from its encoder: what turns a hidden state into scores of all words.

In every family it is a transform (a linear layer, an activation, a layer norm; none in XLM and FlauBERT) and a decoder
whose weights are the word embeddings as they were when the head was trained.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetrace.errors import FinetraceError
from finetrace.models.device import quiet
from finetrace.models.load import one_line

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Transform:
    """Linear layer, activation, layer norm: (..., dim) -> (..., inner);
    inner is the embedding width in ALBERT and ELECTRA.

    Tensors may have a leading axis (head, ...): then input and output have it too, and each head reads its own part.
    dense_weight: (inner, dim);  dense_bias, norm_weight, norm_bias: (inner,), a bias may be missing;  eps: of the norm.
    """

    dense_weight: "torch.Tensor"
    dense_bias: "torch.Tensor | None"
    norm_weight: "torch.Tensor"
    norm_bias: "torch.Tensor | None"
    activation: Callable[["torch.Tensor"], "torch.Tensor"]
    eps: float

    def __call__(self, states: "torch.Tensor") -> "torch.Tensor":
        import torch

        def rows(values: "torch.Tensor") -> "torch.Tensor":
            return values.unsqueeze(-2) if values.ndim > 1 else values

        transformed = states @ self.dense_weight.transpose(-1, -2)
        transformed = self.activation(transformed if self.dense_bias is None else transformed + rows(self.dense_bias))
        transformed = torch.nn.functional.layer_norm(transformed, transformed.shape[-1:],
                                                     eps=self.eps) * rows(self.norm_weight)
        return transformed if self.norm_bias is None else transformed + rows(self.norm_bias)

    def tensors(self) -> dict[str, "torch.Tensor"]:
        """The tensors that are there, by field."""
        tensors = {k: getattr(self, k) for k in ("dense_weight", "dense_bias", "norm_weight", "norm_bias")}
        return {k: v for k, v in tensors.items() if v is not None}

    def with_tensors(self, tensors: dict[str, Any]) -> "Transform":
        """The same transform with other tensors, by field."""
        return replace(self, **tensors)


@dataclass(frozen=True)
class MaskedHead:
    """transform: None where the family has none;  decoder: (word, inner);  bias: (word,)."""

    transform: Transform | None
    decoder: "torch.Tensor"
    bias: "torch.Tensor"

    def inner(self, states: "torch.Tensor") -> "torch.Tensor":
        """States (..., dim) as the decoder reads them: (..., inner)."""
        return states if self.transform is None else self.transform(states)

    def __call__(self, states: "torch.Tensor") -> "torch.Tensor":
        """Scores (..., word) of states (..., dim), before the softmax."""
        return self.inner(states) @ self.decoder.T + self.bias

    def up_to(self, words: int) -> "MaskedHead":
        """The head without the words of number `words` and above; tensors are shared with it."""
        return replace(self, decoder=self.decoder[:words], bias=self.bias[:words])

    def to(self, *where: Any) -> "MaskedHead":
        """The head on another device or in another type."""
        moved = (self.transform
                 and self.transform.with_tensors({k: v.to(*where) for k, v in self.transform.tensors().items()}))
        return MaskedHead(moved, self.decoder.to(*where), self.bias.to(*where))


def load_masked_head(folder: Path, tokenizer: Any = None) -> MaskedHead:
    """The masked-word head of a model or checkpoint folder, float32, on the CPU.

    tokenizer: where given, rows of the decoder beyond its last token (vocabularies are often padded to a multiple of
    64) are left out: they stand for no word, so that none is ranked, and none has a share of the probability.
    Raises FinetraceError where the folder has no such head: its weights would be freshly drawn, and measure nothing.
    """
    import torch
    from transformers import AutoModelForMaskedLM

    quiet()
    try:
        model, report = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32,
                                                             use_safetensors=True, output_loading_info=True,
                                                             ignore_mismatched_sizes=True, trust_remote_code=False)
    except Exception as error:  # damaged files and wrong configs raise many kinds
        raise FinetraceError(f"{folder}: could not be loaded with a masked-word head: {one_line(error)}") from error
    drawn = {key if isinstance(key, str) else key[0] for key in (*report["missing_keys"], *report["mismatched_keys"])}
    # of the encoder only the word embeddings matter here, which are the decoder; a pooler is often missing
    missing = sorted(k for k in drawn if not k.startswith(model.base_model_prefix + ".")
                     or "embeddings" in k.rsplit(".", 1)[0])
    if missing:
        named = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise FinetraceError(f"{folder}: has no masked-word head: its weights lack {named}, which would be random "
                             "numbers; cloze probing needs a model that was trained with masked words and saved with "
                             "that head (not a sentence encoder or a classifier)")
    try:
        head = masked_head_of(model)
    except ValueError as error:
        raise FinetraceError(f"{folder}: {error}") from error
    return head if tokenizer is None else head.up_to(1 + max(tokenizer.get_vocab().values()))


def masked_head_of(model: Any) -> MaskedHead:
    """The head of a transformers model for masked words; tensors are shared with it.

    Raises ValueError for a head that is built in another way than those of the known families.
    """
    dense, norm, activation, decoder, bias = _parts(model)
    bias = decoder.new_zeros(len(decoder)) if bias is None else bias.detach()
    if dense is None:
        return MaskedHead(None, decoder.detach(), bias)

    def values(tensor: Any) -> Any:
        return None if tensor is None else tensor.detach()

    return MaskedHead(Transform(dense.weight.detach(), values(dense.bias), norm.weight.detach(), values(norm.bias),
                                activation, float(norm.eps)), decoder.detach(), bias)


def _parts(model: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Linear layer, norm, activation, decoder weight and bias, each where its family keeps it."""
    import torch

    if hasattr(model, "cls"):  # BERT, DeBERTa
        inner = model.cls.predictions
        part = inner.transform
        return part.dense, part.LayerNorm, part.transform_act_fn, inner.decoder.weight, inner.decoder.bias
    if hasattr(model, "lm_predictions"):  # DeBERTa as its authors store it
        part = model.lm_predictions.lm_head
        return part.dense, part.LayerNorm, part.transform_act_fn, model.get_input_embeddings().weight, part.bias
    if hasattr(model, "vocab_projector"):  # DistilBERT
        return (model.vocab_transform, model.vocab_layer_norm, model.activation, model.vocab_projector.weight,
                model.vocab_projector.bias)
    if hasattr(model, "generator_predictions"):  # ELECTRA
        part, decoder = model.generator_predictions, model.generator_lm_head
        return part.dense, part.LayerNorm, part.activation, decoder.weight, decoder.bias
    if hasattr(model, "pred_layer"):  # XLM, FlauBERT
        if not isinstance(model.pred_layer.proj, torch.nn.Linear):
            raise ValueError("its masked-word head is an adaptive softmax (asm), which is not supported")
        return None, None, None, model.pred_layer.proj.weight, model.pred_layer.proj.bias
    if hasattr(model, "lm_head") and hasattr(model.lm_head, "layer_norm"):  # RoBERTa and its kin, MPNet
        part = model.lm_head
        return part.dense, part.layer_norm, torch.nn.functional.gelu, part.decoder.weight, part.decoder.bias
    if hasattr(model, "predictions"):  # ALBERT
        part = model.predictions
        return part.dense, part.LayerNorm, part.activation, part.decoder.weight, part.decoder.bias
    if hasattr(model, "head") and hasattr(model, "decoder"):  # ModernBERT
        return model.head.dense, model.head.norm, model.head.act, model.decoder.weight, model.decoder.bias
    raise ValueError(f"the masked-word head of {type(model).__name__} is of no family that finetrace knows; "
                     "declare it in finetrace/models/masked_head.py")

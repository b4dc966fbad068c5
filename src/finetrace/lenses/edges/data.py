"""What a probe is trained on: states of the tokens that spans cover, and batches of whole sentences of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EdgeData:
    """One split of a task and the hidden states of one checkpoint.

    states: (layer, token, dim) float16 or float32, memory-mapped or a tensor on the device; tokens of several tasks
    and splits;
    tokens: (kept,) int64, which of them spans of this split cover, sentence after sentence;
    offsets: (sentence + 1,) int64, the kept tokens of sentence i are offsets[i] up to offsets[i + 1];
    starts: (sentence + 1,) int64, its targets are starts[i] up to starts[i + 1];
    spans: (target, side, 2) int64, first piece and the one after the last, counted in `tokens`; side: 1, or 2 for
    pairs;
    gold: (target, class) bool, the right classes: one each, or any number where labels are sets;
    moments: (layer, sentence, 2) float64, sum and sum of squares of all numbers of all tokens of a sentence, [CLS] and
    such too;
    lengths: (sentence,) int64, those tokens.
    """

    states: Any
    tokens: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    spans: np.ndarray
    gold: np.ndarray
    moments: np.ndarray
    lengths: np.ndarray

    @property
    def sentences(self) -> int:
        return len(self.lengths)

    @property
    def sentence_of(self) -> np.ndarray:
        """(target,) int64: the sentence of each target."""
        return np.repeat(np.arange(self.sentences), np.diff(self.starts))

    @cached_property
    def distinct(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Per side its different spans, for what many targets share is pooled once: spans (span, 2), the span of each
        target (target,), and where each sentence's spans begin (sentence + 1,)."""
        sides = []
        for side in range(self.spans.shape[1]):
            spans, inverse = np.unique(self.spans[:, side], axis=0, return_inverse=True)
            sides.append((spans, inverse.ravel(), np.searchsorted(spans[:, 0], self.offsets)))
        return sides


@dataclass(frozen=True)
class Side:
    """The different spans of one side of a batch, as tensors.

    pieces: (piece,) int64, their tokens in the batch;  span_of: (piece,) int64, the span of each;  begins: (span,)
    int64, where each span's pieces begin;  targets: (target,) int64, the span of each target, or None where target i
    has span i.
    """

    pieces: "torch.Tensor"
    span_of: "torch.Tensor"
    begins: "torch.Tensor"
    targets: "torch.Tensor | None"
    single: bool

    @property
    def spans(self) -> int:
        return len(self.begins)


@dataclass(frozen=True)
class Batch:
    """states: (layer, token, dim) of the wanted layers, normalised;  sides;  gold: (target, class) of the type of the
    states."""

    states: "torch.Tensor"
    sides: list[Side]
    gold: "torch.Tensor"


def check(data: EdgeData, name: str) -> None:
    """Raises ValueError, naming the split, for arrays that do not fit together or spans outside their sentence."""
    if not len(data.gold):
        raise ValueError(f"the split {name!r} has no targets")
    layers, total, _ = data.states.shape
    if data.moments.shape != (layers, data.sentences, 2) or len(data.offsets) != data.sentences + 1 \
            or len(data.starts) != data.sentences + 1 or data.starts[-1] != len(data.gold) \
            or len(data.spans) != len(data.gold):
        raise ValueError(f"the arrays of the split {name!r} do not fit together: {layers} layers, {data.sentences} "
                         f"sentences, {len(data.gold)} labels, {len(data.spans)} spans")
    sentence = data.sentence_of[:, None]
    if ((data.spans[..., 0] >= data.spans[..., 1]) | (data.spans[..., 0] < data.offsets[sentence])
            | (data.spans[..., 1] > data.offsets[sentence + 1])).any():
        raise ValueError(f"the split {name!r} has a span that is empty or leaves its sentence")
    outside = len(data.tokens) and not 0 <= data.tokens.min() <= data.tokens.max() < total
    if len(data.tokens) != data.offsets[-1] or outside:
        raise ValueError(f"the split {name!r} names tokens that its states do not have")


def take_sentences(data: EdgeData, chosen: np.ndarray) -> EdgeData:
    """Some sentences of a split, in the given order; the states are shared."""
    tokens, targets = _ranges(data.offsets, chosen), _ranges(data.starts, chosen)
    sizes, counts = np.diff(data.offsets)[chosen], np.diff(data.starts)[chosen]
    offsets, starts = (np.concatenate([[0], np.cumsum(n)]).astype(np.int64) for n in (sizes, counts))
    shift = np.repeat(offsets[:-1] - data.offsets[chosen], counts)
    return EdgeData(data.states, data.tokens[tokens], offsets, starts, data.spans[targets] + shift[:, None, None],
                    data.gold[targets], data.moments[:, chosen], data.lengths[chosen])


def norms(data: EdgeData, sentences: np.ndarray | None = None) -> np.ndarray:
    """Mean and standard deviation of each layer over all tokens and dimensions of some sentences, all by default:
    (layer, 2) float64. 1e-13 is added to the variance, as AllenNLP does."""
    moments = data.moments if sentences is None else data.moments[:, sentences]
    lengths = data.lengths if sentences is None else data.lengths[sentences]
    count = float(lengths.sum()) * data.states.shape[2]
    mean = moments[..., 0].sum(axis=1) / count
    variance = np.maximum(moments[..., 1].sum(axis=1) / count - mean * mean, 0.0)
    return np.stack([mean, np.sqrt(variance + 1e-13)], axis=1)


def make_batch(data: EdgeData, sentences: np.ndarray, layers: np.ndarray, norm: np.ndarray | None, twin: bool,
               like: "torch.Tensor") -> Batch:
    """The targets of some sentences, in the given order. layers: wanted ones;  norm: (layer, 2) of all layers, or
    None;  twin: give a single span twice;  like: a tensor of the wanted type on the wanted device."""
    import torch

    token = _ranges(data.offsets, sentences)
    states = _take(data.states, layers, data.tokens[token]).to(device=like.device, dtype=like.dtype)
    if norm is not None:
        mean, spread = torch.as_tensor(norm[layers], dtype=like.dtype, device=like.device).unbind(1)
        states = (states - mean[:, None, None]).div_(spread[:, None, None])
    target = _ranges(data.starts, sentences)
    sizes = data.offsets[sentences + 1] - data.offsets[sentences]
    # from a token's number in the split to that in the batch
    shift = np.cumsum(sizes) - sizes - data.offsets[sentences]
    sides = []
    for spans, span_of_target, begins in data.distinct:
        chosen = _ranges(begins, sentences)
        counts = begins[sentences + 1] - begins[sentences]
        local = spans[chosen] + np.repeat(shift, counts)[:, None]
        places = np.repeat(np.cumsum(counts) - counts - begins[sentences],
                           data.starts[sentences + 1] - data.starts[sentences])
        sides.append(_side(local, span_of_target[target] + places, like.device))
    if twin and len(sides) == 1:
        sides = sides * 2
    return Batch(states, sides, torch.as_tensor(data.gold[target], device=like.device).to(like.dtype))


def _side(spans: np.ndarray, targets: np.ndarray, device: Any) -> Side:
    import torch

    widths = spans[:, 1] - spans[:, 0]
    begins = np.cumsum(widths) - widths
    span_of = np.repeat(np.arange(len(spans)), widths)
    pieces = np.arange(len(span_of)) + (spans[:, 0] - begins)[span_of]
    one_each = len(targets) == len(spans) and bool((targets == np.arange(len(spans))).all())
    tensors = [torch.as_tensor(v, device=device) for v in (pieces, span_of, begins, targets)]
    return Side(tensors[0], tensors[1], tensors[2], None if one_each else tensors[3], bool((widths == 1).all()))


def _take(states: Any, layers: np.ndarray, tokens: np.ndarray) -> "torch.Tensor":
    import torch

    if isinstance(states, torch.Tensor):
        index = torch.as_tensor(tokens, device=states.device)
        return torch.stack([states[int(layer)].index_select(0, index) for layer in layers])
    taken = np.empty((len(layers), len(tokens), states.shape[2]), dtype=states.dtype)
    for place, layer in enumerate(layers):
        np.take(states[layer], tokens, axis=0, out=taken[place])
    return torch.from_numpy(taken)


def _ranges(bounds: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Numbers bounds[i] up to bounds[i + 1] for each chosen i, one after the other."""
    first, counts = bounds[chosen], bounds[chosen + 1] - bounds[chosen]
    return np.arange(int(counts.sum())) + np.repeat(first - (np.cumsum(counts) - counts), counts)

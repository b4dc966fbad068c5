"""A classifier of marked words: one linear layer on the vectors of an example's spans."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetrace.errors import FinetraceError
from finetrace.store.files import write_json

if TYPE_CHECKING:
    from types import SimpleNamespace

HEAD = "head.safetensors"
FACTS = "head.json"
DROPOUTS = ("classifier_dropout", "hidden_dropout_prob", "hidden_dropout", "dropout")  # where families keep their head's dropout


class SpanClassifier(torch.nn.Module):
    """Encoder, dropout, linear layer. An example's vector is that of its span, or those of its two spans one after the other.

    Written as the encoder's own folder (which every lens can load) with the head beside it.
    """

    def __init__(self, encoder: Any, spans: int, label_names: list[str]):
        super().__init__()
        self.encoder, self.spans, self.label_names = encoder, spans, list(label_names)
        self.config = encoder.config
        self.dropout = torch.nn.Dropout(head_dropout(encoder.config))
        self.classifier = torch.nn.Linear(spans * encoder.config.hidden_size, len(label_names))
        torch.nn.init.normal_(self.classifier.weight, std=getattr(encoder.config, "initializer_range", 0.02))
        torch.nn.init.zeros_(self.classifier.bias)

    @property
    def base_model(self) -> Any:
        return self.encoder

    def get_input_embeddings(self) -> Any:
        return self.encoder.get_input_embeddings()

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def forward(self, spans: torch.Tensor, slots: torch.Tensor, **inputs: torch.Tensor) -> "SimpleNamespace":
        """spans: (row, slot, token) float;  slots: (example,) int;  inputs: the encoder's. Returns `.logits` (example, class)."""
        from types import SimpleNamespace

        states = self.encoder(**inputs, return_dict=True).last_hidden_state
        vectors = span_vectors(states, spans, slots, self.spans)
        return SimpleNamespace(logits=self.classifier(self.dropout(vectors)))

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        """Write the encoder's folder with head.safetensors and head.json."""
        from safetensors.torch import save_file

        self.encoder.save_pretrained(folder, **options)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.classifier.state_dict().items()}, Path(folder) / HEAD)
        write_json(Path(folder) / FACTS, {"spans": self.spans, "label_names": self.label_names})

    @classmethod
    def read(cls, folder: Path, encoder: Any) -> "SpanClassifier":
        """The classifier of a checkpoint folder, around its encoder. Raises FinetraceError when the head does not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            facts = json.loads((folder / FACTS).read_text("utf-8"))
            model = cls(encoder, int(facts["spans"]), facts["label_names"])
            model.classifier.load_state_dict(load_file(folder / HEAD))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise FinetraceError(f"{folder}: its head ({HEAD}, {FACTS}) cannot be read: {error}") from error
        return model


def span_vectors(states: torch.Tensor, spans: torch.Tensor, slots: torch.Tensor, per_example: int) -> torch.Tensor:
    """(row, token, dim) states to (example, per_example * dim).

    spans: (row, slot, token) weights, `per_example` slots in a row for each example;  slots: (example,) places of the examples. A
    product instead of a gather: its gradient needs no atomic additions, so it is the same at every run. Never in half
    precision, also under autocast: a mean of equal numbers is that number.
    """
    states = states if states.dtype == torch.float64 else states.float()
    with torch.autocast(states.device.type, enabled=False):
        vectors = torch.bmm(spans.to(states.dtype), states)
    return vectors.reshape(-1, per_example * states.shape[2])[slots]


def head_dropout(config: Any) -> float:
    """The dropout that a config means for a classifier."""
    found = [value for name in DROPOUTS if isinstance(value := getattr(config, name, None), int | float)]
    return float(found[0]) if found else 0.1

"""A classifier with a linear head: dropout and one linear layer,
on the raw sentence token or on an example's marked words."""

from typing import TYPE_CHECKING, Any

import torch

from finetrace.models.families import sentence_position
from finetrace.models.vectors import sentence_vectors, span_vectors

if TYPE_CHECKING:
    from types import SimpleNamespace

# where families keep their head's dropout
DROPOUTS = ("classifier_dropout", "hidden_dropout_prob", "hidden_dropout", "dropout")


class LinearClassifier(torch.nn.Module):
    """Encoder, dropout, linear layer.

    spans: marked words per example. An example's vector is that of its span, or those of its two spans one after the
    other; with 0 it is the sentence token's last hidden state as it is, without pooler, dense layer or tanh
    (Tomihari and Sato 2024, section 3). Weights start from N(0, initializer_range), the bias from 0.
    """

    def __init__(self, encoder: Any, spans: int, label_names: list[str]):
        super().__init__()
        self.encoder, self.spans, self.label_names = encoder, spans, list(label_names)
        self.config = encoder.config
        self.dropout = torch.nn.Dropout(head_dropout(encoder.config))
        self.classifier = torch.nn.Linear(max(1, spans) * encoder.config.hidden_size, len(label_names))
        torch.nn.init.normal_(self.classifier.weight, std=getattr(encoder.config, "initializer_range", 0.02))
        torch.nn.init.zeros_(self.classifier.bias)

    @property
    def base_model(self) -> Any:
        return self.encoder

    def get_input_embeddings(self) -> Any:
        return self.encoder.get_input_embeddings()

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def forward(self, spans: torch.Tensor | None = None, slots: torch.Tensor | None = None,
                **inputs: torch.Tensor) -> "SimpleNamespace":
        """inputs: the encoder's;  for marked words spans (row, slot,
        token) float and slots (example,) int (see `span_vectors`).

        Returns `.logits` (example, class).
        """
        from types import SimpleNamespace

        states = self.encoder(**inputs, return_dict=True).last_hidden_state
        if self.spans:
            if spans is None or slots is None:
                raise ValueError("a classifier of marked words needs spans and slots, as the collator "
                                 "of rows gives them")
            vectors = span_vectors(states, spans, slots, self.spans)
        else:
            mask = inputs.get("attention_mask")
            mask = torch.ones_like(inputs["input_ids"]) if mask is None else mask
            vectors = sentence_vectors(states, mask, sentence_position(self.config))
        return SimpleNamespace(logits=self.classifier(self.dropout(vectors)))


def head_dropout(config: Any) -> float:
    """The dropout that a config means for a classifier."""
    rates = [value for name in DROPOUTS if isinstance(value := getattr(config, name, None), int | float)]
    return float(rates[0]) if rates else 0.1

"""Headline metrics of the lens similarity."""

from finetrace.lenses.headline import AtCheckpoint, Enough, Headline

ENOUGH = Enough(20, "sentences", "cls_examples")
HEADLINES = (
    Headline("cka/cls/layer-*/last|cka/span/layer-*/last", "CKA", "0 to 1", 3, "",
             "similarity of the last layer before and after training; 1: unchanged", short="CKA", enough=ENOUGH),
)
AT_CHECKPOINTS = (
    AtCheckpoint("cka", "cka_cls_layer_{layer}|cka_span_layer_{layer}",
                 metric="cka/cls/layer-*/last|cka/span/layer-*/last"),
)

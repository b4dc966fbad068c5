"""Headline metrics of the lens similarity."""

from finetrace.lenses.headline import Headline

HEADLINES = (
    Headline("cka/cls/layer-*/last|cka/span/layer-*/last", "CKA", "0 to 1", 3, "",
             "similarity of the last layer before and after training; 1: unchanged"),
)

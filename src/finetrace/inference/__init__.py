"""Extraction of hidden states: which token stands for the sentence, how layers are counted, one forward pass for all of them."""

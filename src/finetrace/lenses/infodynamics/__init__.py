"""Information dynamics: novelty, transience and resonance of the logits while a model learns."""

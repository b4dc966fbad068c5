"""What checkpoints say about given rows: one forward pass gives the hidden states of all layers.

choose, extract, trajectory  which examples, one pass per batch, all checkpoints: the stage hidden
predictions, evaluate        logits and features on every evaluation set, and their scores
prompts, masked              facts as prompts, states at masked positions
"""

"""What checkpoints say about given rows: one forward pass gives the hidden states of all layers.

choose, extract, trajectory  which examples, one pass per batch, all checkpoints: the stage hidden
edges, edge_work             states of the words of edge probes, and the work of the stage edges
prompts, masked, cloze       facts as prompts, states at masked positions, one checkpoint of the stage cloze
similarity_work              what the stages similarity and comparison share
"""

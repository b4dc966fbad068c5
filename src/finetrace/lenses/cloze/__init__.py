"""Cloze probing: which facts a model's masked-word predictions know, at every layer and checkpoint (Petroni et al.
2019).

ranking   where the right word stands among all words, by counting
readouts  own head, trained head per layer, tuned affine map per layer
fitting   trains the maps of all layers in one pass
metrics   P@k, MRR, learned/kept/lost, scores of relations, types and corpora with intervals
records   ranks of one checkpoint as a table, and back
summary   the lens' table, headline numbers and curves
views     what figures show of the table
"""

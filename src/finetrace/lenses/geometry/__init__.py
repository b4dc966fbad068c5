"""Geometry of hidden states: cosines, traces, ranks, isotropy, class cones, layer by layer."""

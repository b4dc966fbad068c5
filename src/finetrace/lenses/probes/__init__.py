"""Classifier probes on frozen vectors, layer by layer (Alain and Bengio 2016)."""

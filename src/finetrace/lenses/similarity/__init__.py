"""Similarity of representations: every layer and checkpoint against every other."""

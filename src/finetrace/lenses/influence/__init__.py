"""Influence: which training examples taught a prediction, and when (Pruthi et al. 2020)."""

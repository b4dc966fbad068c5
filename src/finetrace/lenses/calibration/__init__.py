"""Calibration: whether probabilities mean what they say (Guo et al. 2017), in and out of distribution."""

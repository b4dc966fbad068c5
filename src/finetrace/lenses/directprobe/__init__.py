"""The original DirectProbe's own input files, probed."""

"""Models: fetching, loading, heads, adapters, tokenised rows, devices, and the checkpoints of a trajectory."""

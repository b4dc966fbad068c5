"""Two trajectories of one task compared: how similar their layers are."""

"""Atlas: the comparison across trajectories and lenses."""

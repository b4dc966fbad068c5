"""The hull probe: label-pure clusters with disjoint convex hulls, and their distances (DirectProbe, Zhou 2021,
2022)."""

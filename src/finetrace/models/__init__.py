"""Models: fetching, loading, heads and devices."""

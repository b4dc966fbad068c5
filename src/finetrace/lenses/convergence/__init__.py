"""Convergence: from which layer on, and when, representations settle, beside what the other lenses measured."""

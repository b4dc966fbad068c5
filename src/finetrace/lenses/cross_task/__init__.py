"""Cross-task probing: what a model that was tuned on one task makes of another task's classes."""

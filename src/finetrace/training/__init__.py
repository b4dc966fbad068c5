"""Training: every kind of it (pre-training, adaptation, fine-tuning) leaves the same kind of trajectory."""

"""Training: every kind of training (pre-training, fine-tuning) leaves the same kind of trajectory."""

"""Feature change: how far fine-tuning moves what the head reads, and how long and wide it makes it."""

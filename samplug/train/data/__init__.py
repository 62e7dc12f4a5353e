"""The batches of training."""

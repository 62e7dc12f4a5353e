"""Prompts in every spelling: read, checked, batched for the decoder."""

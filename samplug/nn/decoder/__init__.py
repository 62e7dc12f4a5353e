"""Prompt encoder, two-way transformer and mask decoder."""

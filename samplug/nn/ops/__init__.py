"""Attention, linear layers, windows, positions, upscaling: plain functions that keep to a CPU's cache on their own."""

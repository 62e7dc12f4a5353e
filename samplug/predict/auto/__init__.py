"""Segment everything: grids of clicks, crops, tiles."""

"""Segment Anything with Ultralytics."""

__version__ = "0.1.0"

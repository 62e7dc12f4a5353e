"""Drawn images and clips with exact masks."""

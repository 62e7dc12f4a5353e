"""Objects tracked through videos, streams and cameras."""

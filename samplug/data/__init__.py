"""Readers of users' data sets: images, videos and their masks."""

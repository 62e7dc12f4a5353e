"""Placeholder."""


def hook():
    """Do nothing yet."""

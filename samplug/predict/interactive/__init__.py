"""Objects prompted on some images and found in others."""

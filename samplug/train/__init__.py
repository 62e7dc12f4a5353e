"""Training of the small bundled network on procedural pictures: `python -m samplug.train --help`.

Needs torch, numpy and OpenCV; no photograph and no download.
"""

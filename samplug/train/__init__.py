"""Training: `fit` is the loop behind `SAM.train`; `python -m samplug.train` trains the small network.

The small network is trained on drawn images: no photograph and no download is needed.
"""

"""The benchmark: samplug's networks beside every other implementation that is installed, on the same weights.

`samplug benchmark`, `SAM.benchmark()` and `python -m samplug.benchmark` are the same; the last also runs where
Ultralytics is not installed.
"""

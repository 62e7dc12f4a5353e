"""The benchmark: this network here and in every other implementation that is installed, on the same random weights.

`samplug benchmark`, `SAM.benchmark()` and `python -m samplug.benchmark` are the same; the last also runs where
Ultralytics is not installed.
"""

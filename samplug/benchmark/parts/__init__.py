"""The parts of a benchmark: what is timed."""

"""SAM 2's memory: its encoder, its attention, the selection of frames."""

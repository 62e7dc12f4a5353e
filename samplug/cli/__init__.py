"""The command line: `samplug …` and `yolo sam …`."""

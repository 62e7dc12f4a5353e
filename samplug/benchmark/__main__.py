"""`python -m samplug.benchmark model=sam2.1_t device=cuda parts=encoder,decoder,video`: also without Ultralytics."""

import sys

if __name__ == "__main__":
    from samplug.cli import main

    sys.argv.insert(1, "benchmark")
    main.main()

"""Starts one worker."""

import sys

from prichexy_worker.main import main

if __name__ == "__main__":
    sys.exit(main())

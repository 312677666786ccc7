"""``python -m prichexy_testing.unreading_gateway``: a command line whose search finds no text.

The real search takes seconds an image. No setting turns it off, so it is replaced in here.
"""

from __future__ import annotations

from prichexy_gateway import cli, offline_pool
from prichexy_testing.finders import Finds

if __name__ == "__main__":
    offline_pool.TextFinder = Finds  # type: ignore[assignment, misc]
    cli.main()

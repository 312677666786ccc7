"""``python -m prichexy_testing.unreading_worker``: a whole worker whose search finds no text.

The real search takes seconds an image. No setting turns it off, so it is replaced in here.
"""

from __future__ import annotations

import sys

from prichexy_testing.finders import Finds
from prichexy_worker import main

if __name__ == "__main__":
    main.TextFinder = lambda _threads: Finds()  # type: ignore[assignment, misc]
    sys.exit(main.main())

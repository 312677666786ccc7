"""Radiographs with unique identifying values planted in every place that a DICOM file has.

``specimens`` makes them, the same for the same seed, out of real chest radiographs where some are
at hand, else out of ``prichexy_testing.dicoms``. Each comes with its answer key: what was planted
where. ``survivors`` seeks it in a result; it shares no code with the worker.
"""

from prichexy_testing.canaries.mint import Mint, Value
from prichexy_testing.canaries.originals import Original, built_originals, real_originals
from prichexy_testing.canaries.planting import Canary
from prichexy_testing.canaries.search import Haystack, is_told_by_clocks, survivors
from prichexy_testing.canaries.specimens import Specimen, specimen, specimens

__all__ = [
    "Canary",
    "Haystack",
    "Mint",
    "Original",
    "Specimen",
    "Value",
    "built_originals",
    "is_told_by_clocks",
    "real_originals",
    "specimen",
    "specimens",
    "survivors",
]

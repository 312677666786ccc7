"""De-identification of headers: the Basic Profile of DICOM PS3.15, by allow-list.

``engine`` is the way in. ``allowlist`` reads what may be kept (``*.yaml``) under ``table``, the
standard's Table E.1-1; ``keeping`` keeps it, reading the source through ``elements``; ``lossy``
and ``marks`` say what was done; ``sweep`` looks at the result once more.
"""

from prichexy_worker.header.engine import deidentify
from prichexy_worker.header.marks import Provenance, is_ours, own_texts
from prichexy_worker.header.table import TABLE_EDITION

__all__ = ["TABLE_EDITION", "Provenance", "deidentify", "is_ours", "own_texts"]

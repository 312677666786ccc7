"""De-identification of headers: the Basic Profile of DICOM PS3.15 and its options, by allow-list.

``engine`` is the way in, ``profile`` what a project asks for. ``allowlist`` reads what may be kept
(``*.yaml``) under ``table``, the standard's Table E.1-1; ``keeping`` keeps it, reading the source
through ``elements``; ``lossy`` and ``marks`` say what was done; ``sweep`` looks at the result once
more; ``retained`` tells the last gate what an option lets pass; ``explain`` tells people.
"""

from prichexy_worker.header.engine import deidentify
from prichexy_worker.header.marks import Provenance, is_ours, model_digest, own_texts
from prichexy_worker.header.profile import BASIC, Profile
from prichexy_worker.header.retained import allowed
from prichexy_worker.header.table import TABLE_EDITION

__all__ = [
    "BASIC",
    "TABLE_EDITION",
    "Profile",
    "Provenance",
    "allowed",
    "deidentify",
    "is_ours",
    "model_digest",
    "own_texts",
]

"""What a bundle says of itself: read from its files, without loading a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prichexy_store.errors import Refused
from prichexy_store.history import Version

__all__ = ["EVIDENCE", "METADATA", "describe_bundle"]

#: From the weakest to the strongest.
EVIDENCE: Final = ("untrained", "trained", "measured")
#: Of a bundle's files, what it says of itself.
METADATA: Final = Path("configs") / "metadata.json"


def describe_bundle(folder: Path, digest: str) -> Version:
    """Give what the bundle in ``folder`` says, under ``digest``; quick, as nothing is loaded.

    Raises Refused when the metadata does not say it, or the weights are not those that it names.
    """
    place = folder / METADATA
    try:
        metadata = json.loads(place.read_bytes())
        section = metadata["prichexy"]
        version = Version(
            digest=digest,
            name=str(metadata["name"]),
            version=str(metadata["version"]),
            weights=str(section["weights_sha256"]),
            deformation=_deformation(section),
            evidence=str(section["evidence"]),
            statement=str(section["statement"]),
            protects=section.get("protects", False) is True,
        )
        weights = hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest()
    except OSError as error:
        raise Refused(f"The bundle cannot be used: {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Refused(f"The bundle cannot be used: {place} is not as it should be") from None
    if weights != version.weights or version.evidence not in EVIDENCE:
        raise Refused(f"The bundle cannot be used: its weights are not those that {place} names")
    return version


def _deformation(section: Mapping[str, Any]) -> str:
    """Say what beside the weights decides how images are deformed."""
    coarse = section.get("coarse")
    more = f" + {coarse['mu']} coarse in {coarse['cells']} cells" if coarse else ""
    return f"mu {section['mu']}{more}, border {section['border']}, {section['input_size']} px"

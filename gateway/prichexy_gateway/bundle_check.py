"""Whether a bundle can be put to use, and what it says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prichexy_gateway.errors import Misconfigured, Refused
from prichexy_gateway.model_history import Version

__all__ = ["EVIDENCE", "check_bundle", "describe_bundle"]

#: From the weakest to the strongest.
EVIDENCE: Final = ("untrained", "trained", "measured")


def check_bundle(folder: Path, digest: str) -> Version:
    """Give what the bundle in ``folder`` says, under ``digest``, after it was loaded and tried.

    Raises Refused when one of its networks is not what the metadata says, and when the generator
    gives no displacement, or none but zeros, for a plain view.
    """
    # Loads torch: seconds, and only where there is a bundle to be checked.
    import numpy as np  # noqa: PLC0415

    from prichexy_model.bundle import load_classifier, load_verifier, read_bundle  # noqa: PLC0415
    from prichexy_model.weights import WeightsError  # noqa: PLC0415
    from prichexy_worker.engine import Engine  # noqa: PLC0415

    try:
        engine = Engine.load(folder, device="cpu")
        found = read_bundle(folder)
        if found.verifier is not None:
            load_verifier(folder)
        if found.classifier is not None:
            load_classifier(folder)
    except (Misconfigured, WeightsError) as error:
        # The worker names its own setting, which nobody here has set.
        raise Refused(
            f"The bundle cannot be used: {str(error).removeprefix('model.bundle: ')}"
        ) from None
    side = np.linspace(0, 1, engine.input_size, dtype=np.float32)
    displacement = engine.displacement(np.minimum.outer(side, side))
    if not np.isfinite(displacement).all() or not displacement.any():
        raise Refused("The bundle cannot be used: its generator gives no displacement.")
    return describe_bundle(folder, digest)


def describe_bundle(folder: Path, digest: str) -> Version:
    """Give what the bundle in ``folder`` says, under ``digest``; quick, as nothing is loaded.

    Raises Refused when the metadata does not say it, or the weights are not those that it names.
    """
    place = folder / "configs" / "metadata.json"
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

"""Whether a bundle can be put to use."""

from __future__ import annotations

from pathlib import Path

from prichexy_gateway.errors import Misconfigured, Refused
from prichexy_store.bundles import describe_bundle
from prichexy_store.history import Version
from prichexy_store.store import ModelStore

__all__ = ["check_bundle", "store_at"]


def store_at(root: Path) -> ModelStore:
    """Give the store in a folder, whose bundles are loaded and tried before they are put to use."""
    return ModelStore(root, check_bundle)


def check_bundle(folder: Path, digest: str) -> Version:
    """Give what the bundle in ``folder`` says, under ``digest``, after it was loaded and tried.

    Raises Refused when one of its networks is not what the metadata says, and when for a plain
    view the generator gives no displacement, or none but zeros, or the others no figures.
    """
    # Loads torch: seconds, and only where there is a bundle to be checked.
    import numpy as np  # noqa: PLC0415

    from prichexy_worker.engine import Engine  # noqa: PLC0415

    try:
        engine = Engine.load(folder, device="cpu")
    except Misconfigured as error:
        # The worker names its own setting, which nobody here has set.
        raise Refused(
            f"The bundle cannot be used: {str(error).removeprefix('model.bundle: ')}"
        ) from None
    side = np.linspace(0, 1, engine.input_size, dtype=np.float32)
    displacement = engine.displacement(np.minimum.outer(side, side))
    if not np.isfinite(displacement).all() or not displacement.any():
        raise Refused("The bundle cannot be used: its generator gives no displacement.")
    return describe_bundle(folder, digest)

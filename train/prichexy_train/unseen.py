"""Whether a run may have learned from patients that something is tested on now.

The parts of a set are drawn when it is prepared, and it may be prepared twice: with another seed
test patients of now are training patients of then. Such a verifier or classifier knows them by
heart, and such a generator was tuned to hide them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from prichexy_train.data.pool import Pool
from prichexy_train.errors import Misconfigured
from prichexy_train.runs import RunFolder

__all__ = ["check_unseen", "held_back"]


def held_back(pool: Pool) -> dict[str, str]:
    """Give, by the set's name, the SHA-256 of the ids of its test images, in order.

    It is the same whatever the images' size, the other parts and the pairs are. A run keeps it in
    its provenance: the run has seen none of these patients, for none is in two parts.
    """
    return {
        prepared.name: hashlib.sha256(
            json.dumps(
                sorted(prepared.catalogue.images[row].image_id for row in prepared.split("test"))
            ).encode()
        ).hexdigest()
        for prepared in pool.sets
    }


def check_unseen(run: str | Path, pool: Pool) -> None:
    """Raise Misconfigured unless the run has learned from no test patient of the pool.

    A run on sets of other names is believed to be of other people. One on a set of the same name
    must have had the same test images; where its provenance does not say which, which is so for
    runs of earlier versions until they are started again, the very same prepared set. Raises
    Damaged when the provenance cannot be read.
    """
    there = RunFolder(run).provenance()
    data, had = there.get("data", {}), there.get("held_back", {})
    known = {name for key in data for name in key.split("+")}
    if data.get(pool.name) == pool.digest:
        return
    for prepared in pool.sets:
        name = prepared.name
        if name not in known or data.get(name) == prepared.digest:
            continue
        if name not in had:
            raise Misconfigured(
                f"{run}: was trained on {name} prepared in another way, and does not say with "
                "which test images: it may know those of now. The command that trained it, run "
                "again on its data, adds that; or train it on these data"
            )
        if had[name] != held_back(pool)[name]:
            raise Misconfigured(
                f"{run}: was trained on {name} with other test images, so it may have learned "
                "from those of now; train it again on these data"
            )

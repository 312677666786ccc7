"""One run of ``prichexy-train attack``: a method's images, then the ladder, then the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from prichexy_train.anonymised import NotInTime
from prichexy_train.attacks.ladder import Climbed, climb, rungs_of
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.shortcut_checks import SHORTCUT_CHECKS
from prichexy_train.attacks.target import Learning, Target, anonymised_images, redrawn_images
from prichexy_train.measures.summary import AttackSummary, strongest, summarise
from prichexy_train.methods_from import method_from
from prichexy_train.precision import choose_device, device_name
from prichexy_train.records import Record, UtilityRecord, read_records
from prichexy_train.runs import RunFolder, origin
from prichexy_train.settings import changeable_keys, flat
from prichexy_train.stages.training_run import file_digest, open_pool, pretrained_digest
from prichexy_train.trained import network_of
from prichexy_train.unseen import check_unseen

__all__ = ["STAGE", "attackers_digest", "run_attack", "spent"]

#: The stage's name in provenance.
STAGE: Final = "attack"


def run_attack(
    settings: AttackSettings,
    data: Sequence[str | Path],
    run_folder: str | Path,
    *,
    method: str,
    verifiers: Sequence[Path] = (),
    anonymised: Path | None = None,
    deadline: float | None = None,
) -> Climbed:
    """Attack a method on the test images of the prepared sets in ``data``.

    Writes a record for each attempt into the run folder, where those that are there count.
    Several processes may be at one run, with the same settings: they share the attempts.
    ``verifiers`` are finished runs of strong verifiers. Anonymised images are made, or found,
    below ``anonymised``, in the run folder by default; once the run is finished they are needed
    no more. Raises Misconfigured where a run may have learned from the test patients, and as
    ``RunFolder.claimed``, ``method_from`` and the attacks do.
    """
    device = choose_device(settings.device)
    pool, chosen, run = open_pool(data), method_from(method, device), RunFolder(run_folder)
    if chosen.run is not None:
        check_unseen(chosen.run, pool)
    digests = {pool.name: pool.digest, "method": chosen.of.digest}
    for number, verifier in enumerate(verifiers, start=1):
        network_of(verifier)  # refuses what is no finished verifier, before hours of attacks
        check_unseen(verifier, pool)
        digests[f"verifier-{number}"] = file_digest(RunFolder(verifier).best_file)
    digests |= _weights(settings)
    name = device_name(device)
    with run.claimed(STAGE, settings, data=digests, seed=settings.seed, device=name, together=True):
        rungs = (*rungs_of(settings.rungs), *(SHORTCUT_CHECKS if settings.shortcuts else ()))
        looked_at = {rung.learns(settings) for rung in rungs}
        learning: Learning = "means" if "means" in looked_at else "nothing"
        if "all" in looked_at:
            learning = "all"
        make: dict[str, Any] = {
            "seed": settings.seed,
            "device": device,
            "batch_size": settings.batch_size,
            "attackers": settings,
            "deadline": deadline,
        }
        folder = anonymised or run.path / "anonymised"
        try:
            images = anonymised_images(pool, chosen, folder, learning=learning, **make)
            redrawn = redrawn_images(pool, chosen, folder, **make) if learning == "all" else ()
        except NotInTime:
            return Climbed("deadline", 0, {})
        target = Target(
            pool=pool,
            method=chosen.of,
            anonymised=images,
            redrawn=redrawn,
            settings=settings,
            device=device,
            verifiers=tuple(verifiers),
            anonymizer=chosen.anonymizer,
            run=chosen.run,
        )
        provenance = {**digests, "attackers": attackers_digest(settings), **origin()}
        climbed = climb(target, run.path, rungs=rungs, provenance=provenance, deadline=deadline)
        if climbed.finished:
            _finish(run, climbed)
    return climbed


def attackers_digest(settings: AttackSettings) -> str:
    """Give a digest of all that makes attackers what they are.

    It is the same for more or fewer of them, on another machine, and wherever weights lie.
    """
    hidden = changeable_keys(settings)
    values = flat(settings.model_dump(mode="json"))
    kept = {
        key: value
        for key, value in values.items()
        if key not in hidden and not key.endswith(".pretrained")
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _weights(settings: AttackSettings) -> dict[str, str]:
    """Give what the provenance says of the ImageNet weights that attackers begin with."""
    networks = {
        "fresh.network.pretrained": settings.fresh.network,
        "other.pretrained": settings.other,
        "features.pretrained": settings.features,
    }
    return {
        name: pretrained_digest(network.pretrained)
        for name, network in networks.items()
        if network is not None
    }


def _finish(run: RunFolder, climbed: Climbed) -> None:
    stored = read_records(run.path)
    summaries = summarise(stored)
    run.finish(
        {
            "stage": STAGE,
            "records": len(stored),
            "left_out": dict(climbed.left_out),
            "strongest": {
                f"{best.data}.{best.pair_list}": _told(best)
                for best in strongest(summaries).values()
            },
        },
        seconds=spent([one.record for one in stored]),
    )


def spent(records: Sequence[Record]) -> float:
    """Give the seconds of all attempts; each has a record for every list that it was tested on."""
    attempts = {
        (record.rung.name, record.seed): record.seconds
        for record in records
        if not isinstance(record, UtilityRecord)
    }
    return sum(attempts.values())


def _told(best: AttackSummary) -> dict[str, object]:
    return {
        "rung": best.number,
        "name": best.rung,
        "auc": best.auc.mean,
        "sd": best.auc.sd,
        "interval": best.auc.interval,
        "seeds": len(best.seeds),
    }

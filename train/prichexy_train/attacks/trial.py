"""One verifier on real images, tested as the attacks are: a point of a learning curve.

Its records have a role of their own. They are no rung of the ladder, whose strong verifiers are
chosen before, and never in its maximum.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, JsonValue

from prichexy_train.attacks.ladder import Climbed, climb
from prichexy_train.attacks.rung import Attempt, Rung, Workplace
from prichexy_train.attacks.running import spent
from prichexy_train.attacks.searching import Search
from prichexy_train.attacks.settings import AttackSettings
from prichexy_train.attacks.target import Target
from prichexy_train.attacks.training import attack_with
from prichexy_train.data.settings import PairName
from prichexy_train.methods_from import method_from
from prichexy_train.precision import choose_device, device_name
from prichexy_train.records import AttackRecord, read_records
from prichexy_train.runs import RunFolder, origin
from prichexy_train.settings import Device, Section, changeable_keys, flat
from prichexy_train.stages.training_run import file_digest, open_pool
from prichexy_train.stages.verifier import VerifierSettings
from prichexy_train.trained import load_verifier, network_of
from prichexy_train.unseen import check_unseen

__all__ = ["STAGE", "TrialSettings", "run_trial"]

#: The stage's name in provenance.
STAGE: Final = "trial"


class TrialSettings(Section):
    """What of an attack's settings a trial depends on; see ``AttackSettings``."""

    changeable = frozenset({"device", "batch_size"})

    seed: int
    pair_lists: tuple[PairName, ...]
    validation_pairs: str
    queries: Annotated[int, Field(ge=1)] | None
    device: Device
    batch_size: int

    @classmethod
    def of(cls, attack: AttackSettings) -> Self:
        """Give those of ``attack``."""
        return cls(
            seed=attack.seed,
            pair_lists=attack.pair_lists,
            validation_pairs=attack.fresh.validation_pairs,
            queries=attack.retrieval.queries,
            device=attack.device,
            batch_size=attack.batch_size,
        )


def run_trial(
    settings: AttackSettings,
    data: Sequence[str | Path],
    run_folder: str | Path,
    *,
    verifier: Path,
    deadline: float | None = None,
) -> Climbed:
    """Test the finished run ``verifier`` on the real test images of the prepared sets in ``data``.

    Its pairs are those of the attacks with these ``settings``, and so is the gallery that it
    searches. Writes a record for each list and each set into the run folder, where those that are
    there count. Raises Misconfigured where the verifier may have learned from the test patients,
    and as ``RunFolder.claimed`` and ``load_verifier`` do.
    """
    device = choose_device(settings.device)
    pool, real, run = open_pool(data), method_from("real", device), RunFolder(run_folder)
    network_of(verifier)  # refuses what is no finished verifier
    check_unseen(verifier, pool)
    digests = {
        pool.name: pool.digest,
        "verifier-1": file_digest(RunFolder(verifier).best_file),
    }
    own = TrialSettings.of(settings)
    name = device_name(device)
    with run.claimed(STAGE, own, data=digests, seed=own.seed, device=name):
        target = Target(
            pool=pool,
            method=real.of,
            anonymised=pool.images,
            settings=settings,
            device=device,
            verifiers=(verifier,),
        )
        rungs = (_Trial(verifier), _TrialSearch(verifier))
        provenance = {**digests, **origin()}
        climbed = climb(target, run.path, rungs=rungs, provenance=provenance, deadline=deadline)
        if climbed.finished:
            records = [stored.record for stored in read_records(run.path)]
            aucs = {
                f"{one.data}.{one.pair_list}": one.auc
                for one in records
                if isinstance(one, AttackRecord)
            }
            result = {"stage": STAGE, "records": len(records), "auc": aucs}
            run.finish(result, seconds=spent(records))
    return climbed


class _Trial(Rung):
    """The pairs, by a verifier alone. What it learned from, and how, stands in the details."""

    number = 0
    role = "trial"

    def __init__(self, verifier: Path) -> None:
        self._verifier = verifier
        self.name = _name(verifier)

    def attack(self, target: Target, workplace: Workplace) -> Attempt:  # noqa: ARG002
        verifier = load_verifier(self._verifier).to(target.device)
        return attack_with(target, verifier, _about(self._verifier))


class _TrialSearch(Search):
    """The gallery, by a verifier alone."""

    def __init__(self, verifier: Path) -> None:
        super().__init__("frozen")
        self.role = "trial"
        self.name = _name(verifier)


def _name(verifier: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._=+-]", "-", verifier.resolve().name)


def _about(verifier: Path) -> dict[str, JsonValue]:
    """Give what a verifier learned from, and its settings with dotted keys."""
    run = RunFolder(verifier)
    result: dict[str, Any] = run.result()
    settings = VerifierSettings.model_validate(run.settings())
    hidden = changeable_keys(settings)
    values = flat(settings.model_dump(mode="json"))
    return {
        "verifier": verifier.name,
        "data": "+".join(name for name in run.provenance()["data"] if name != "network.pretrained"),
        "learned_from": result.get("learned_from", {}),
        "share_of_patients": settings.share_of_patients,
        "epochs": result["epochs"],
        "best_epoch": result["best_epoch"],
        "settings": {key: value for key, value in values.items() if key not in hidden},
    }

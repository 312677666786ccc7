"""What a worker tells of itself: its model, its targets, and that it is alive."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Self

from prichexy_worker.contract.reading import DIGEST, NAME, SENTENCE, WORKER_ID, Reader
from prichexy_worker.contract.terms import (
    CONTRACT_VERSION,
    DECISIONS,
    MOST_TARGETS,
    OLDEST_VERSION,
    QUEUE_NAME,
    TARGET_NAME,
)

__all__ = [
    "Available",
    "ModelInfo",
    "TargetInfo",
    "WorkerAnnouncement",
]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which generator deforms, and what is known about it.

    ``evidence`` is "untrained" (random initial weights: no privacy is claimed), "trained"
    (trained, not fully attacked) or "measured" (with an attack report); ``statement`` is the
    sentence that people are shown. ``protects``: the report shows that attackers do worse than on
    real images, on every list; versions before 3 do not tell it.
    """

    name: str
    model_version: str
    digest: str
    evidence: str
    statement: str
    protects: bool = False

    def to_json(self, version: int = CONTRACT_VERSION) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, for a reader of this version."""
        data: dict[str, object] = {"version": OLDEST_VERSION, **asdict(self)}
        if version >= DECISIONS and self.protects:
            return data | {"version": DECISIONS}
        del data["protects"]
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys = {"name", "model_version", "digest", "evidence", "statement"}
        read = Reader(data, "model", keys)
        return cls(
            name=read.text("name", SENTENCE),
            model_version=read.text("model_version", SENTENCE),
            digest=read.text("digest", DIGEST),
            evidence=read.text("evidence", re.compile("untrained|trained|measured")),
            statement=read.text("statement", SENTENCE),
            protects=read.yes_or_left_out("protects"),
        )


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What a worker's settings say of an export target, for people. It holds no secret.

    ``place`` is its address without user, password and query, or a folder. ``encrypted``: nobody
    on the way can read what is sent. ``check`` is how the worker sees that it holds what it was
    sent: "read_back" (read and compared), "commitment" (the node commits itself), or "none".
    ``default``: studies that name no target go there, with this worker. That is told where it is
    so, and versions before 3 do not tell it.
    """

    name: str
    kind: str
    place: str
    encrypted: bool
    check: str
    default: bool = False

    def to_json(self, version: int = CONTRACT_VERSION) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, for a reader of this version."""
        data: dict[str, object] = {"version": OLDEST_VERSION, **asdict(self)}
        if version >= DECISIONS and self.default:
            return data | {"version": DECISIONS}
        del data["default"]
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = Reader(data, "target", {"name", "kind", "place", "encrypted", "check"})
        return cls(
            name=read.text("name", TARGET_NAME),
            kind=read.text("kind", NAME),
            place=read.text("place", SENTENCE),
            encrypted=read.yes_or_no("encrypted"),
            check=read.text("check", re.compile("read_back|commitment|none")),
            default=read.yes_or_left_out("default"),
        )


@dataclass(frozen=True, slots=True)
class Available:
    """A model that a worker could use: its bundle's digest, and what is known of it."""

    bundle: str
    model: ModelInfo

    def to_json(self) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads; it came with version 3."""
        return {"version": DECISIONS, "bundle": self.bundle, "model": self.model.to_json()}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        read = Reader(data, "available model", {"bundle", "model"})
        return cls(
            bundle=read.text("bundle", DIGEST), model=ModelInfo.from_json(read.part("model"))
        )


@dataclass(frozen=True, slots=True)
class WorkerAnnouncement:
    """A worker tells that it is alive, where it computes and with which model.

    ``queues`` are those that it takes studies from; none stands for not told, as in version 1, and
    then it is the gateway's own queue. ``targets`` are the export targets of its settings; none
    stands for not told, too. ``models`` are the others that it could use, and the one in use, where
    they lie in a store; versions before 3 do not tell.
    """

    worker_id: str
    software: str
    device: str
    device_reason: str
    model: ModelInfo
    queues: tuple[str, ...] = ()
    targets: tuple[TargetInfo, ...] = ()
    models: tuple[Available, ...] = ()

    def to_json(self, version: int = CONTRACT_VERSION) -> dict[str, object]:
        """Give the JSON object that ``from_json`` reads, in this version of the contract."""
        data: dict[str, object] = {
            "version": version,
            "worker_id": self.worker_id,
            "software": self.software,
            "device": self.device,
            "device_reason": self.device_reason,
            "model": self.model.to_json(version),
        }
        if version > 1:
            data["queues"] = list(self.queues)
            # Left out rather than empty: software of before does without.
            if self.targets:
                data["targets"] = [one.to_json(version) for one in self.targets]
        if version >= DECISIONS:
            data["models"] = [one.to_json() for one in self.models]
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse strictly. Raises ContractError naming the key that does not fit."""
        keys = {"worker_id", "software", "device", "device_reason", "model"}
        read = Reader(data, "worker announcement", keys)
        return cls(
            worker_id=read.text("worker_id", WORKER_ID),
            software=read.text("software", SENTENCE),
            device=read.text("device", SENTENCE),
            device_reason=read.text("device_reason", SENTENCE),
            model=ModelInfo.from_json(read.part("model")),
            queues=read.texts("queues", QUEUE_NAME),
            targets=_targets(read, "targets"),
            models=tuple(Available.from_json(one) for one in read.items("models")),
        )


def _targets(read: Reader, key: str) -> tuple[TargetInfo, ...]:
    """Give what is told of export targets, nothing where the key is left out."""
    found = tuple(TargetInfo.from_json(one) for one in read.items(key, most=MOST_TARGETS))
    if len({target.name for target in found}) != len(found):
        raise read.refusal(key)
    return found

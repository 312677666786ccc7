"""The export targets of a worker, and those of them that one study goes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.ports import ExportTarget

__all__ = ["Destinations", "Route"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where one study goes.

    ``chosen`` are its targets by name, those that can take back first: what cannot be taken back
    is sent last. ``others`` are the worker's other targets, at which an earlier revision of the
    study may stand. ``unknown`` are names that this worker has no target for.
    """

    chosen: Mapping[str, ExportTarget]
    others: Mapping[str, ExportTarget]
    unknown: tuple[str, ...] = ()

    def require_known(self) -> None:
        """Raise Retryable (UNKNOWN_TARGET) when a name has no target here."""
        if self.unknown:
            raise Retryable(Reason.UNKNOWN_TARGET, ", ".join(self.unknown))


@dataclass(frozen=True, slots=True)
class Destinations:
    """All targets of a worker by name, and the names of those for studies that name none."""

    targets: Mapping[str, ExportTarget]
    default: frozenset[str]

    @classmethod
    def only(cls, target: ExportTarget, name: str = "export") -> Destinations:
        """Give the destinations of a worker with one target."""
        return cls({name: target}, frozenset({name}))

    def route(self, names: Iterable[str]) -> Route:
        """Give the way of a study that names these targets, or none."""
        wanted = set(names) or self.default
        known = [(name, target) for name, target in self.targets.items() if name in wanted]
        return Route(
            # A stable sort: beside that they keep the order of the settings.
            chosen=dict(sorted(known, key=lambda entry: not entry[1].recalls)),
            others={name: it for name, it in self.targets.items() if name not in wanted},
            unknown=tuple(sorted(wanted - self.targets.keys())),
        )

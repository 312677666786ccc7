"""A ledger with one study, whose instances come and go, and a worker that does what it is asked."""

from __future__ import annotations

from prichexy_plugin.database import open_database
from prichexy_plugin.exports import mark_of
from prichexy_plugin.intake import Decision
from prichexy_plugin.ledger import Ledger
from prichexy_testing.fake_orthanc import orthanc_id
from prichexy_testing.plugin_fakes import FakeClock, report_of
from prichexy_worker.contract import Reason, State, StudyMessage

__all__ = ["STUDY", "Gateway", "originals"]

STUDY = orthanc_id("a")


def originals(*names: str) -> tuple[str, ...]:
    """Give Orthanc's ids of instances of the study."""
    return tuple(sorted(orthanc_id("a", "series", name) for name in names))


class Gateway:
    """A ledger, and a worker that does what it is asked."""

    def __init__(self, url: str = "sqlite://") -> None:
        self.clock = FakeClock()
        self.engine = open_database(url)
        self.ledger = Ledger(self.engine, self.clock)

    def look(
        self, *names: str, refused: Reason | None = None, targets: tuple[str, ...] = ()
    ) -> tuple[State, Reason | None]:
        """Have the study looked at while Orthanc holds these instances."""
        self.clock.move(60)
        self.ledger.note({STUDY: self.clock()}, cursor=1)
        held = originals(*names)
        content = mark_of("".join(names).encode().hex().ljust(16, "0"))
        self.ledger.settle(
            STUDY, Decision(refused, targets), content=content, instances=len(held), present=held
        )
        return self.state()

    def state(self) -> tuple[State, Reason | None]:
        (study,) = self.ledger.studies().studies
        return study.state, study.reason

    def take(self) -> tuple[StudyMessage, int]:
        (message,) = self.ledger.outbox()
        return message, self.ledger.report(report_of(message, State.PROCESSING)).attempt

    def may_export(self, message: StudyMessage, attempt: int, *names: str) -> bool:
        """Ask as a worker does before it sends anything to a target."""
        held = originals(*names)
        asks = report_of(message, State.PROCESSING, attempt=attempt, originals=held)
        return self.ledger.report(asks).proceed

    def export(self, *names: str) -> None:
        message, attempt = self.take()
        assert self.may_export(message, attempt, *names)
        end = report_of(message, State.EXPORTED, attempt=attempt, instances=len(names))
        assert self.ledger.report(end).proceed

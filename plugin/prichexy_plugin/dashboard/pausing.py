"""The page where people pause the intake and the export, and let them go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import Response, go_to, plain
from prichexy_plugin.dashboard.needs import troubles_of
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.dashboard.wording import actor_for, ago
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.pauses import WHY_PAUSED, Pause, Stage, key_of
from prichexy_plugin.security import Role
from prichexy_worker.contract import TARGET_NAME

__all__ = ["pauses_page", "take_pause"]

#: What the page says after a form, by the name that stands in its address.
_NOTES: Final[Mapping[str, str]] = {
    "paused": "Done. It is paused until somebody lets it go on; the audit trail says by whom.",
    "resumed": "Done. It goes on within seconds; the audit trail says who let it.",
    "moved": "Nothing was changed: somebody else was faster. It is now as below.",
}
_RULES_NAME_NONE: Final = "studies whose rule names no target"


@dataclass(frozen=True, slots=True)
class _Valve:
    """One thing that can be paused, as the page shows it; ``token`` is None for whom it cannot.

    ``held``: nothing goes on here, because the export to all targets is paused.
    """

    stage: Stage
    target: str
    title: str
    while_paused: str
    pause: Pause | None
    held: bool
    since: str
    by: str
    waiting: int
    token: str | None


def pauses_page(overview: Overview, ledger: Ledger | None, forms: Forms, visit: Visit) -> Response:
    """Show what is paused and what can be. Raises SQLAlchemyError."""
    valves: tuple[_Valve, ...] = ()
    if ledger is not None and overview.ledger == "ok":
        valves = tuple(_valves(overview, ledger, forms, visit))
    noted = visit.request.query.get("note", "")
    return render(
        "pauses.html",
        visit,
        needs=tuple(troubles_of(overview)) if not valves else (),
        valves=valves,
        reasons=[(one.value, one.sentence.partition(": ")[2]) for one in WHY_PAUSED],
        note=_NOTES.get(noted),
        undone=noted == "moved",
    )


def take_pause(ledger: Ledger | None, forms: Forms, visit: Visit) -> Response:
    """Pause something or let it go on, then show the page again. Raises Refused."""
    if not visit.may(Role.OPERATOR):
        return plain(403, "This is for users with the role operator.")
    asked = visit.request.form()
    stage, target = asked.get("stage", ""), asked.get("target", "")
    if stage not in set(Stage) or (target and not TARGET_NAME.fullmatch(target)):
        return plain(400, "The form is not complete. Open it anew.")
    form = forms.read(visit, _purpose(Stage(stage), target))
    if ledger is None:
        return plain(503, "The ledger is not open.")
    if form.get("since"):
        # As it was on the page: who saw another pause than that of now ends none.
        known = {pause.key: pause for pause in ledger.pauses()}
        pause = known.get(key_of(Stage(stage), target))
        if pause is None or form["since"] != pause.since.isoformat():
            return go_to("pauses?note=moved")
        done = ledger.resume(pause.stage, target, actor=visit.actor, since=pause.since)
        return go_to(f"pauses?note={'resumed' if done else 'moved'}")
    chosen = next((one for one in WHY_PAUSED if one.value == form.get("reason")), None)
    if chosen is None:
        return plain(400, "No reason was chosen. Nothing was changed. Go back and choose one.")
    done = ledger.pause(Stage(stage), target, actor=visit.actor, reason=chosen)
    return go_to(f"pauses?note={'paused' if done else 'moved'}")


def _valves(overview: Overview, ledger: Ledger, forms: Forms, visit: Visit) -> Iterator[_Valve]:
    pauses = {pause.key: pause for pause in overview.pauses}
    waiting = ledger.waiting_by_targets()
    all_held = key_of(Stage.EXPORT) in pauses
    arrived = ledger.due_count()

    def valve(stage: Stage, target: str, title: str, told: str, waits: int) -> _Valve:
        pause = pauses.get(key_of(stage, target))
        return _Valve(
            stage,
            target,
            title,
            told,
            pause,
            held=all_held and stage is Stage.TARGET,
            since="" if pause is None else ago(pause.since, visit.at),
            by="" if pause is None else actor_for(visit.role, pause.by).removeprefix("user "),
            waiting=waits,
            token=forms.token(visit, _purpose(stage, target)) if visit.may(Role.OPERATOR) else None,
        )

    yield valve(
        Stage.INTAKE,
        "",
        "Intake",
        "Orthanc receives as ever, and what arrives is noted. The intake rules decide over "
        "nothing. What was taken in before goes on, as does what somebody tries again.",
        arrived,
    )
    yield valve(
        Stage.EXPORT,
        "",
        "Export to all targets",
        "No study is handed to a worker. What a worker has is brought to its end, exports "
        "included. Studies are still taken in, and wait here.",
        sum(waiting.values()),
    )
    for target in _targets(overview, waiting):
        waits = sum(
            count for names, count in waiting.items() if (target in names if target else not names)
        )
        whose = f"studies that go to {target}" if target else _RULES_NAME_NONE
        yield valve(
            Stage.TARGET,
            target,
            f"Export to {target}" if target else f"Export of {_RULES_NAME_NONE}",
            f"As above, for {whose}, with whatever else they go to: a study leaves whole.",
            waits,
        )


def _targets(overview: Overview, waiting: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Name the targets that the rules, waiting studies and pauses name; blank for none."""
    names = {name for ways in waiting for name in ways or ("",)}
    names |= {pause.target for pause in overview.pauses if pause.stage is Stage.TARGET}
    for rule in overview.rules:
        names |= rule.targets or {""}
    return tuple(sorted(names))


def _purpose(stage: Stage, target: str) -> str:
    return f"pause {key_of(stage, target)}"

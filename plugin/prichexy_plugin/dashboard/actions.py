"""What a person may do with a study: each is explained, confirmed and written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from prichexy_plugin.dashboard.forms import Forms
from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import Response, go_to, plain
from prichexy_plugin.decisions import AS_TURNED_AWAY, WITHDRAWALS
from prichexy_plugin.ledger import Ledger
from prichexy_plugin.records import StudyRecord
from prichexy_plugin.security import Role
from prichexy_plugin.studies import Studies, StudiesUnavailable, Unreadable, digests_of
from prichexy_worker.contract import ENDED, Errand, Reason, State

__all__ = [
    "ACTIONS",
    "DELETIONS",
    "NOTES",
    "UNDONE",
    "Action",
    "Hands",
    "Wish",
    "actions_for",
    "carry_out",
    "confirm_page",
    "take",
]

#: What a study's page says after a form, by the name that stands in its address.
NOTES: Final[Mapping[str, str]] = {
    "retried": "Done. The study goes its way once more; the time line shows how far it is.",
    "rejected": "Done. The study is turned away; the time line says by whom and why.",
    "taken_back": "Done. A worker takes back what may be sent of it; then it is turned away.",
    "deleted": "Done. Orthanc deletes its images within seconds; below stands by whom and why.",
    "withdrawn": "Done. A worker takes the export back from the targets; the time line shows when.",
    "rerun": "Done. The study is made anew with what you chose; the time line shows how far it is.",
    "kept": "Nothing was deleted: Orthanc does not tell what it holds of the study now. Try again.",
    "moved": "Nothing was changed: the study had moved on since you saw it. It is now as below.",
}
#: Those of the notes that tell of something which was not done.
UNDONE: Final = frozenset({"kept", "moved"})
#: Why an original was deleted; no study itself ever has one of these reasons.
DELETIONS: Final = (Reason.DELETED_DONE, Reason.DELETED_CONSENT, Reason.DELETED_WRONG)
_LASTS: Final = "Without consent, new images change nothing either."


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for: the job as it was ``seen`` (``as_seen``), who, and why."""

    job_id: str
    revision: int
    seen: str
    actor: str
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Hands:
    """What deeds are done with."""

    ledger: Ledger
    studies: Studies | None
    tidy: Callable[[], None]


#: Does it and gives the name of what is said afterwards (``NOTES``).
Deed = Callable[[Hands, Wish], str]


@dataclass(frozen=True, slots=True)
class Action:
    """One button; ``name`` is the last part of its address.

    One of ``reasons`` has to be chosen, where there are any. What is ``grave`` takes away what was
    there, for good or from others.
    """

    name: str
    title: str
    role: Role
    states: frozenset[State]
    explain: Callable[[StudyRecord], tuple[str, ...]]
    deed: Deed
    reasons: tuple[Reason, ...] = ()
    needs_originals: bool = False
    only: Callable[[StudyRecord], bool] = lambda _study: True
    grave: bool = False


def _retry(hands: Hands, wish: Wish) -> str:
    done = hands.ledger.again(wish.job_id, revision=wish.revision, seen=wish.seen, actor=wish.actor)
    return "retried" if done else "moved"


def _turn_away(hands: Hands, wish: Wish) -> str:
    done = wish.reason is not None and hands.ledger.turn_away(
        wish.job_id,
        revision=wish.revision,
        seen=wish.seen,
        actor=wish.actor,
        reason=wish.reason,
    )
    if not done:
        return "moved"
    study = hands.ledger.study(wish.job_id)
    return "taken_back" if study is not None and study.is_being_withdrawn else "rejected"


def _withdraw(hands: Hands, wish: Wish) -> str:
    done = wish.reason is not None and hands.ledger.order_withdrawal(
        wish.job_id,
        revision=wish.revision,
        seen=wish.seen,
        actor=wish.actor,
        reason=wish.reason,
    )
    return "withdrawn" if done else "moved"


def _delete(hands: Hands, wish: Wish) -> str:
    study = hands.ledger.study(wish.job_id)
    if study is None or wish.reason is None or hands.studies is None:
        return "kept"
    try:
        there = hands.studies.study(study.study_id)
        digests = {} if there is None else digests_of(hands.studies, there.instances)
    except (StudiesUnavailable, Unreadable):
        return "kept"
    # As the retention rules do it: these files and no later ones, with a line before and after.
    ordered = hands.ledger.order_disposal(
        wish.job_id,
        revision=wish.revision,
        seen=wish.seen,
        actor=wish.actor,
        reason=wish.reason,
        digests=digests,
    )
    if not ordered:
        return "moved"
    hands.tidy()
    return "deleted"


def _explain_delete(study: StudyRecord) -> tuple[str, ...]:
    first = (
        "All images of the study are deleted from this Orthanc, at once and for good, with all "
        "that Orthanc keeps beside them."
    )
    there = (
        "What was exported stays where it is. Whose it is can then no longer be found out here."
        if study.state is State.EXPORTED
        else "It can then no longer be tried again: a worker would find nothing."
    )
    lasts = "If its use is not consented to, nothing that comes of it later is taken in."
    if study.state is State.EXPORTED and not study.proved:
        there += " No target has shown that it holds all of it: look there first."
    return (first, there, lasts, "What the ledger knows of the study stays: it names no patient.")


def _explain_withdraw(study: StudyRecord) -> tuple[str, ...]:
    where = ", ".join(study.targets) or "the target that the workers have for it"
    there = (
        f"A worker removes all of the study from {where}, and from every other target that an "
        "earlier revision may have gone to, with what others added to it there."
    )
    left = (
        "A target that cannot take back what it was sent keeps it: the study's page names it "
        "afterwards. What somebody has copied from a target is not reached."
    )
    later = (
        "The study is then rejected, for the reason chosen here. If a target does not let go, it "
        "has failed, and the withdrawal can be tried again. What this Orthanc holds of it stays. "
        "Neither the intake rules nor a backfill take it in again, unless new images of "
        f"it come or somebody tries it again. {_LASTS}"
    )
    return (there, left, later)


def _explain_turn_away(study: StudyRecord) -> tuple[str, ...]:
    first = _explain_where_it_was(study)
    there = "Nothing is changed at any export target."
    if study.state in (State.PENDING, State.QUEUED):
        there = (
            "Where a worker may have sent something of it already and no whole export of before "
            "stands, another one takes that back first."
        )
        if study.stands:
            there += " A whole export of before stays: an administrator can have that withdrawn."
    elif study.stands:
        there += (
            " An export of before, or a part of one, stays: an administrator can have that "
            "withdrawn."
        )
    if study.measures.get("targets_not_withdrawn", 0):
        there += " Something of it may be left at one, as is said above."
    later = (
        "Neither the intake rules nor a backfill take it in again, unless new images of it come or "
        f"somebody tries it again. {_LASTS}"
    )
    return (first, there, later)


def _explain_where_it_was(study: StudyRecord) -> str:
    stays = "The original stays in this Orthanc."
    if study.state is State.REJECTED:
        told = "The study stays rejected, from now on for the reason chosen here."
        if study.unconsented or study.reason in (Reason.NO_CONSENT, Reason.WITHDRAWN_CONSENT):
            told += " That it is not consented to goes on to hold, whatever is chosen."
        return f"{told} {stays}"
    if study.state is State.WATCHED:
        return (
            "The study is rejected, though images of it may still be arriving: what has come when "
            f"it is complete is turned away with it. {stays}"
        )
    if study.state in (State.PENDING, State.QUEUED):
        return f"The study is rejected, and no worker gets it any more. {stays}"
    return (
        f"The study is rejected, and no longer stands among those that wait for a decision. {stays}"
    )


def _explain_retry(study: StudyRecord) -> tuple[str, ...]:
    consent = study.unconsented or study.reason in (Reason.NO_CONSENT, Reason.WITHDRAWN_CONSENT)
    if consent and not study.is_being_withdrawn:
        consented = (
            "Somebody has said that its use is not consented to. With this you say that it is."
        )
        return (consented, *_explain_another_try(study))
    return _explain_another_try(study)


def _explain_another_try(study: StudyRecord) -> tuple[str, ...]:
    if study.reason is Reason.ORIGINALS_MISSING:
        first = (
            "Originals of what was exported are not in this Orthanc any more. With this you say "
            "that they are not waited for."
        )
        there = (
            "The intake rules look at the study within seconds. If they take it in, it is exported "
            "anew from what is here now, and the images whose originals are missing are removed "
            "from the export targets. To keep them, send the missing originals again instead."
        )
        return (first, there)
    if study.state is State.REJECTED:
        return (
            "The intake rules of now look at the study once more, within seconds.",
            "If they take it in, it is handed to a worker; else it stays rejected.",
        )
    if study.orders.errand is Errand.WITHDRAW:
        withdrawal = (
            "The withdrawal of its export is what is tried again, from the beginning, with all "
            "attempts. No new export is made."
        )
        return (withdrawal,)
    first = (
        "The study is handed to a worker once more, from the beginning, with all attempts. It is "
        "made with the model and the settings that workers have now, and passes the release gate "
        "as at first: trying again releases nothing that the gate holds back."
    )
    if study.orders.looked:
        first += " What somebody decided over its images goes on to hold for these images."
    if study.state is State.EXPORTED:
        return (
            first,
            "What is at the export target stays until the new result takes its place.",
            "If the new result is held back, the export is withdrawn.",
        )
    return (first, "Until it has ended, its place is among those that wait.")


ACTIONS: Final[Mapping[str, Action]] = {
    action.name: action
    for action in (
        Action(
            name="retry",
            title="Try again",
            role=Role.OPERATOR,
            states=ENDED,
            explain=_explain_retry,
            deed=_retry,
            needs_originals=True,
        ),
        Action(
            name="reject",
            title="Turn away",
            role=Role.OPERATOR,
            states=frozenset(State) - {State.PROCESSING, State.EXPORTED},
            explain=_explain_turn_away,
            deed=_turn_away,
            reasons=tuple(one for one in Reason if one in AS_TURNED_AWAY),
            only=lambda study: study.can_be_turned_away,
        ),
        Action(
            name="withdraw",
            title="Withdraw the export",
            role=Role.ADMINISTRATOR,
            states=ENDED,
            explain=_explain_withdraw,
            deed=_withdraw,
            reasons=WITHDRAWALS,
            only=lambda study: study.can_be_withdrawn,
            grave=True,
        ),
        Action(
            name="delete",
            title="Delete the original",
            role=Role.ADMINISTRATOR,
            states=ENDED,
            explain=_explain_delete,
            deed=_delete,
            reasons=DELETIONS,
            needs_originals=True,
            grave=True,
        ),
    )
}


def actions_for(study: StudyRecord, visit: Visit) -> tuple[Action, ...]:
    """Give the buttons that this user may press on this study as it is."""
    return tuple(
        action
        for action in ACTIONS.values()
        if study.state in action.states
        and visit.may(action.role)
        and (study.has_originals or not action.needs_originals)
        and action.only(study)
    )


def confirm_page(action: Action, study: StudyRecord, forms: Forms, visit: Visit) -> Response:
    """Say what would happen, and ask."""
    if action not in actions_for(study, visit):
        return go_to(f"../{study.job_id}?note=moved")
    return render(
        "confirm.html",
        visit,
        action=action,
        study=study,
        sentences=action.explain(study),
        token=forms.token(visit, _purpose(action, study)),
    )


def take(action: Action, study: StudyRecord, hands: Hands, forms: Forms, visit: Visit) -> Response:
    """Do what the confirmed form asks for, and go back to the study. Raises Refused."""
    done = carry_out(action, study, hands, forms.read(visit, _purpose(action, study)), visit)
    return done if isinstance(done, Response) else go_to(f"../{study.job_id}?note={done}")


def carry_out(
    action: Action, study: StudyRecord, hands: Hands, form: Mapping[str, str], visit: Visit
) -> Response | str:
    """Do what a form asks for; gives the name of the note, or the answer to an odd form."""
    seen, reason = form.get("seen", ""), form.get("reason")
    if not seen:
        return plain(400, "The form is not complete. Open it anew.")
    chosen = next((one for one in action.reasons if one.value == reason), None)
    if action.reasons and chosen is None:
        return plain(400, "No reason was chosen. Nothing was changed. Go back and choose one.")
    if seen != study.as_seen or action not in actions_for(study, visit):
        return "moved"
    return action.deed(hands, Wish(study.job_id, study.revision, seen, visit.actor, chosen))


def _purpose(action: Action, study: StudyRecord) -> str:
    return f"{action.name} {study.job_id}"

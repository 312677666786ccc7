"""REST to a gateway, and following studies through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from prichexy_gateway.client import Health, OrthancClient, StudyRow, Unreachable
from prichexy_gateway.errors import Failed, Interrupted
from prichexy_gateway.following import exit_code, follow
from prichexy_worker.contract import API_ROOT, REQUEST_HEADER, SOFTWARE_VERSION, State

HEALTH = {
    "software": SOFTWARE_VERSION,
    "contract": 1,
    "ledger": "ok",
    "broker": {"reachable": True, "detail": "0 waiting"},
    "counts": {"exported": 2},
    "workers": [],
}
ROW = {
    "job_id": "a" * 32,
    "study_id": "b",
    "state": "exported",
    "reason": None,
    "reason_sentence": None,
    "revision": 1,
    "attempts": 1,
    "instances": 1,
    "first_seen": "2026-01-01T00:00:00Z",
    "updated": "2026-01-01T00:00:00Z",
    "worker_id": "w",
    "durations": {"store": 0.5},
    "measures": {},
    "key_id": "0123456789abcdef",
    "profile": "c" * 64,
    "something_newer": 1,
}


def client(answer: Callable[[httpx.Request], httpx.Response]) -> OrthancClient:
    return OrthancClient(
        "The Orthanc", "http://h", "user", "word", transport=httpx.MockTransport(answer)
    )


def answering(status: int, data: Any) -> OrthancClient:
    return client(lambda _: httpx.Response(status, json=data))


def test_requests_carry_the_login_and_what_marks_a_program() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=HEALTH)

    assert client(answer).health() == Health(
        SOFTWARE_VERSION, "ok", True, "0 waiting", {"exported": 2}, ()
    )
    assert {request.url.path for request in seen} == {f"{API_ROOT}/health"}
    for request in seen:
        assert request.headers["authorization"].startswith("Basic ")
        assert REQUEST_HEADER in request.headers
        assert request.headers["accept-encoding"] == "identity"


def test_an_orthanc_that_does_not_answer_is_named_with_its_address() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("CANARYFAMILY")

    with pytest.raises(Unreachable, match=r"The Orthanc does not answer at http://h") as error:
        client(answer).system()
    assert "CANARYFAMILY" not in str(error.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_told_from_silence(status: int) -> None:
    with pytest.raises(Unreachable, match="refuses this user or password"):
        answering(status, {}).system()


def test_what_the_plugin_could_not_load_is_passed_on() -> None:
    with pytest.raises(Unreachable, match="could not be loaded"):
        answering(503, {"problems": ["The PriCheXy plugin could not be loaded."]}).health()


@pytest.mark.parametrize("data", [{}, {"software": "1"}, [], "text", HEALTH | {"broker": 1}])
def test_a_health_page_of_another_version_is_an_error_not_a_crash(data: Any) -> None:
    with pytest.raises(Unreachable, match="not as this version expects"):
        answering(200, data).health()


def test_a_row_of_the_ledger_is_read_and_later_keys_are_passed_over() -> None:
    total, (row,) = answering(200, {"total": 1, "studies": [ROW]}).studies()
    assert (row.key_id, row.profile) == ("0123456789abcdef", "c" * 64)
    assert total == 1
    assert (row.job_id, row.state, row.durations) == ("a" * 32, State.EXPORTED, {"store": 0.5})


def test_a_job_that_is_not_there_is_said_so() -> None:
    with pytest.raises(Failed, match="no study with the job id"):
        answering(404, {}).study("a" * 32)


def test_only_objects_of_the_level_asked_for_are_found() -> None:
    found = [{"ID": "1", "Type": "Study"}, {"ID": "2", "Type": "Series"}]
    assert answering(200, found).find("Study", "1.2") == ["1"]


def ledger_going_through(
    *states: State, stable: Sequence[bool] = (True,), instances: Sequence[int] = (1,)
) -> OrthancClient:
    """Give a client whose one study takes these states, one an answer, and stays in the last.

    ``stable`` and ``instances`` are what Orthanc says of the study, likewise one an answer.
    """
    left: list[list[Any]] = [list(states), list(stable), list(instances)]

    def following(which: int) -> Any:
        return left[which].pop(0) if len(left[which]) > 1 else left[which][0]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/studies/b":
            return httpx.Response(200, json={"IsStable": following(1)})
        if request.url.path == "/studies/b/statistics":
            return httpx.Response(200, json={"CountInstances": str(following(2))})
        row = ROW | {"state": following(0).value}
        return httpx.Response(200, json={"total": 1, "studies": [row]})

    return client(answer)


def test_a_study_is_followed_to_its_end_and_each_change_is_told() -> None:
    told: list[State] = []
    rows = follow(
        ledger_going_through(State.WATCHED, State.QUEUED, State.PROCESSING, State.EXPORTED),
        ["b"],
        threading.Event(),
        lambda: None,
        lambda rows: told.append(rows["b"].state),
    )
    assert rows["b"].state is State.EXPORTED
    assert told == [State.WATCHED, State.QUEUED, State.PROCESSING, State.EXPORTED]


def test_what_was_exported_before_is_no_end_while_later_instances_wait() -> None:
    stop = threading.Event()
    unstable = ledger_going_through(State.EXPORTED, stable=[False, False, True])
    assert follow(unstable, ["b"], stop, lambda: None)["b"].state is State.EXPORTED
    not_yet_seen = ledger_going_through(State.EXPORTED, instances=[2])
    with pytest.raises(Failed, match="did not move"):
        follow(not_yet_seen, ["b"], stop, lambda: None, patience=0.1)


def test_a_study_that_was_deleted_meanwhile_has_ended() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/studies/b":
            return httpx.Response(404, json={})
        return httpx.Response(200, json={"total": 1, "studies": [ROW]})

    rows = follow(client(answer), ["b"], threading.Event(), lambda: None)
    assert rows["b"].state is State.EXPORTED


def test_a_study_that_does_not_move_is_given_up_with_advice() -> None:
    with pytest.raises(Failed, match=r"1 studies did not move.*prichexy doctor"):
        follow(
            ledger_going_through(State.QUEUED), ["b"], threading.Event(), lambda: None, patience=0.1
        )


def test_a_study_that_a_worker_has_may_take_longer() -> None:
    processing = [State.PROCESSING] * 4
    rows = follow(
        ledger_going_through(*processing, State.EXPORTED),
        ["b"],
        threading.Event(),
        lambda: None,
        patience=0.1,
        patience_with_a_worker=600,
    )
    assert rows["b"].state is State.EXPORTED
    with pytest.raises(Failed, match="1 studies did not move for 0 s"):
        follow(
            ledger_going_through(State.PROCESSING),
            ["b"],
            threading.Event(),
            lambda: None,
            patience=600,
            patience_with_a_worker=0.1,
        )


def test_following_can_be_called_off() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        follow(ledger_going_through(State.QUEUED), ["b"], stop, lambda: None)


def test_what_went_wrong_meanwhile_ends_the_waiting() -> None:
    def fail() -> None:
        raise Failed("redis died")

    with pytest.raises(Failed, match="redis died"):
        follow(ledger_going_through(State.QUEUED), ["b"], threading.Event(), fail)


@pytest.mark.parametrize(
    ("states", "refused", "code"),
    [
        ([State.EXPORTED], 0, 0),
        ([State.EXPORTED], 1, 3),
        ([State.EXPORTED, State.REJECTED], 0, 3),
        ([State.QUARANTINED], 0, 3),
        ([State.QUARANTINED, State.FAILED], 0, 1),
        ([], 0, 0),
    ],
)
def test_the_exit_code_tells_the_worst(states: list[State], refused: int, code: int) -> None:
    rows = {
        str(number): StudyRow.from_json(ROW | {"state": state.value})
        for number, state in enumerate(states)
    }
    assert exit_code(rows, refused) == code


def test_steps_keep_the_order_in_which_they_were_done() -> None:
    row = ROW | {"durations": {"fetch": 1.0, "decode": 2.0, "a_later_step": 3.0, "store": 4.0}}
    (found,) = answering(200, {"total": 1, "studies": [row]}).studies()[1]
    assert list(found.durations) == ["fetch", "decode", "a_later_step", "store"]


def test_a_study_is_found_by_the_beginning_of_its_job_id() -> None:
    rows = [ROW | {"job_id": job} for job in ("ab" * 16, "ac" * 16)]
    orthanc = answering(200, {"total": 2, "studies": rows})
    assert orthanc.job_id("abab") == "ab" * 16
    with pytest.raises(Failed, match="Several"):
        orthanc.job_id("a")
    with pytest.raises(Failed, match="no study"):
        orthanc.job_id("b")

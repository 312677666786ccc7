"""The list of ``prichexy status``."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from prichexy_gateway.commands import status
from prichexy_worker.contract import Reason, State

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def row(**changes: Any) -> dict[str, Any]:
    return {
        "job_id": "0123456789abcdef" * 2,
        "state": State.QUARANTINED,
        "reason": "burned_in_text",
        "attempts": 1,
        "instances": 2,
        "updated": "2026-05-04T11:57:00.123456+00:00",
    } | changes


def lines(*rows: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(status._table(rows, NOW))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("reason", list(Reason))
def test_each_study_takes_one_line_of_80_columns(reason: Reason) -> None:
    shown = lines(row(reason=reason.value, instances=64, updated="2024-05-04T11:57:00.123456"))
    assert len(shown) == 2
    assert reason.value.replace("_", " ") in shown[1]
    assert "2024-05-0" in shown[1]
    assert "01234567 " in shown[1]


@pytest.mark.parametrize(
    ("updated", "said"),
    [
        ("2026-05-04T11:59:30+00:00", "just now"),
        ("2026-05-04T11:57:00.123456+00:00", "2 min ago"),
        ("2026-05-04T07:00:00Z", "5 h ago"),
        ("", ""),
    ],
)
def test_the_time_is_said_as_people_say_it(updated: str, said: str) -> None:
    assert lines(row(updated=updated))[1].rstrip().endswith(f"2       {said}".rstrip())


@pytest.mark.parametrize(
    ("circuit", "said"),
    [
        ({"blame": "target", "targets": ["research"]}, "of studies for research is stopped: Away."),
        ({"blame": "target", "targets": ["a", "b"]}, "of studies for a and b is stopped: Away."),
        ({"blame": "target", "targets": []}, "whose rule names no export target is stopped: Away."),
        ({"blame": "source"}, "The handing out is stopped: Away."),
    ],
)
def test_it_says_for_which_targets_the_handing_out_is_stopped(
    circuit: dict[str, Any], said: str
) -> None:
    assert status._stopped({**circuit, "reason_sentence": "Away."}).endswith(said)


@pytest.mark.parametrize(
    ("pause", "said"),
    [
        ({"stage": "intake", "target": ""}, "The intake is paused since"),
        ({"stage": "export", "target": ""}, "The export is paused since"),
        ({"stage": "target", "target": "research"}, "The export to research is paused since"),
        ({"stage": "target", "target": ""}, "whose rule names no export target is paused since"),
    ],
)
def test_it_says_what_somebody_paused_and_why(pause: dict[str, Any], said: str) -> None:
    since = datetime.now(UTC) - timedelta(hours=5, minutes=1)
    told = status._paused({**pause, "since": since.isoformat(), "reason_sentence": "Work."})
    assert f"{said} 5 h ago. Work." in told

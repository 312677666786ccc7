"""The chain of digests: whatever is done to the lines shows, and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prichexy_plugin.chain import (
    GENESIS,
    ChainKey,
    Deed,
    Head,
    Line,
    UnknownKey,
    Verdict,
    canonical,
    digest_of,
    heads_in,
    read_key,
    verify,
)

NOW = datetime(2026, 3, 1, 8, 0, 0, 250, tzinfo=UTC)
START = Head(0, GENESIS)
KEY = ChainKey("0123456789abcdef", b"k" * 32)


def chained(count: int, *, key: ChainKey | None = None, after: Head = START) -> list[Line]:
    lines: list[Line] = []
    last = after
    for _ in range(count):
        line = Line(
            number=last.number + 1,
            at=NOW + timedelta(seconds=last.number),
            deed=Deed.STEP.value,
            actor="worker-1",
            job_id="a" * 32,
            from_state="pending",
            to_state="queued",
            details={"revision": 1, "model": "f" * 64},
            key_id="" if key is None else key.key_id,
        )
        line = replace(line, digest=digest_of(line, last.digest, key))
        lines.append(line)
        last = line.head
    return lines


def judged(
    lines: Sequence[Line],
    *,
    head: Head | None = None,
    noted: Sequence[Head] = (),
    keys: Sequence[ChainKey] = (),
    checkpoint: Head = START,
) -> Verdict:
    return verify(
        lines,
        checkpoint=checkpoint,
        head=head or (lines[-1].head if lines else checkpoint),
        keys={key.key_id: key for key in keys},
        noted=noted,
    )


def test_a_line_is_canonical_json_and_its_digest_is_known() -> None:
    [line] = chained(1)
    assert canonical(line) == (
        b'{"actor":"worker-1","at":"2026-03-01T08:00:00.000250+00:00","deed":"step",'
        b'"details":{"model":"' + b"f" * 64 + b'","revision":1},"from":"pending",'
        b'"job":"' + b"a" * 32 + b'","key":"","number":1,"reason":null,"to":"queued"}'
    )
    # Computed once by: (printf '%064d\n' 0; cat canonical) | sha256sum
    assert digest_of(line, GENESIS) == (
        "f755adfdcca9832747714bdd69cb82f474f5cd53f90bd845216ed09f3a93d7e9"
    )
    elsewhere = replace(line, at=line.at.astimezone(timezone(timedelta(hours=2))))
    assert canonical(elsewhere) == canonical(line), "the same moment in another zone"


def test_every_part_of_a_line_is_under_the_digest() -> None:
    [line] = chained(1)
    others: dict[str, object] = {
        "number": 2,
        "at": NOW + timedelta(microseconds=1),
        "deed": "other",
        "actor": "plugin",
        "job_id": None,
        "from_state": None,
        "to_state": "failed",
        "reason": "gone",
        "details": {"revision": "1", "model": "f" * 64},
        "key_id": "x",
    }
    assert set(others) == {field.name for field in fields(Line)} - {"digest"}
    for name, value in others.items():
        assert digest_of(replace(line, **{name: value}), GENESIS) != line.digest, name
    assert digest_of(line, "1" * 64) != line.digest


def test_a_chain_as_it_was_written_is_whole() -> None:
    lines = chained(5)
    verdict = judged(lines)
    assert verdict.whole
    assert (verdict.lines, verdict.head, verdict.unkeyed) == (5, lines[-1].head, 5)
    assert judged([]).whole, "so is one without lines"


@given(st.integers(1, 12), st.data())
def test_whatever_is_done_to_one_line_shows_at_it(count: int, data: st.DataObject) -> None:
    lines = chained(count)
    place = data.draw(st.integers(0, count - 1))
    whole = lines[-1].head
    doings: list[Callable[[], list[Line]]] = [
        lambda: [*lines[:place], replace(lines[place], actor="me"), *lines[place + 1 :]],
        lambda: [*lines[:place], *lines[place + 1 :]],
        lambda: [*lines[:place], lines[place], *lines[place:]],
        lambda: [*lines[:place], replace(lines[place], digest=GENESIS), *lines[place + 1 :]],
    ]
    for doing in doings:
        verdict = judged(doing(), head=whole)
        assert not verdict.whole
        assert verdict.broken in (place + 1, place + 2), "at the line, or at the copy behind it"
        assert verdict.lines == len(doing()), "all are counted"


def test_lines_that_are_cut_off_show_against_the_head_of_the_ledger() -> None:
    lines = chained(5)
    verdict = judged(lines[:3], head=lines[-1].head)
    assert (verdict.broken, verdict.trouble) == (4, "lines are cut off at the end")
    assert judged(lines, head=lines[2].head).broken == 4, "and lines that it does not know of"
    assert judged(lines, head=Head(5, GENESIS)).broken == 5


def test_an_end_that_was_cut_off_with_the_head_shows_against_a_noted_one() -> None:
    lines = chained(5)
    assert judged(lines[:3]).whole, "nothing in the ledger says so"
    verdict = judged(lines[:3], noted=[lines[1].head, lines[4].head])
    assert (verdict.broken, verdict.compared) == (4, 1)


def test_a_chain_that_was_computed_anew_shows_against_a_noted_head() -> None:
    lines = chained(5)
    first = replace(lines[0], actor="somebody else")
    first = replace(first, digest=digest_of(first, GENESIS))
    forged = [first]
    for line in lines[1:]:
        forged.append(replace(line, digest=digest_of(line, forged[-1].digest)))
    assert judged(forged).whole
    verdict = judged(forged, noted=[lines[2].head])
    assert verdict.broken == 3
    assert "noted elsewhere" in verdict.trouble
    assert judged(lines, noted=[lines[2].head, lines[4].head]).compared == 2


def test_under_a_key_nobody_without_it_computes_the_chain_anew() -> None:
    lines = chained(2) + chained(3, key=KEY, after=chained(2)[-1].head)
    verdict = judged(lines, keys=[KEY])
    assert verdict.whole
    assert verdict.unkeyed == 2
    with pytest.raises(UnknownKey, match=KEY.key_id):
        judged(lines)
    other = replace(KEY, secret=b"x" * 32)
    assert judged(lines, keys=[other]).broken == 3
    forged = chained(5)
    assert judged(forged, keys=[KEY]).broken == 5, "the last one has to be under the key"
    tail = chained(1, after=lines[-1].head)
    assert judged([*lines, *tail], keys=[KEY]).broken == 6


def test_after_a_checkpoint_the_chain_is_verified_from_there() -> None:
    lines = chained(6)
    checkpoint = lines[2].head
    pruned = Line(
        number=7,
        at=NOW,
        deed=Deed.PRUNED.value,
        actor="plugin",
        details={"upto": 3, "digest": checkpoint.digest, "lines": 3},
    )
    pruned = replace(pruned, digest=digest_of(pruned, lines[-1].digest))
    left = [*lines[3:], pruned]
    verdict = judged(left, checkpoint=checkpoint, noted=[lines[0].head, lines[2].head])
    assert verdict.whole
    assert (verdict.lines, verdict.compared, verdict.pruned) == (4, 1, 1)
    assert judged(left, checkpoint=Head(3, "1" * 64)).broken == 4, "another digest"
    untold = judged(lines[3:], checkpoint=checkpoint)
    assert (untold.broken, untold.trouble) == (3, "no line tells of the deletion up to this line")


def test_heads_are_found_in_any_text() -> None:
    head = Head(12, "0a" * 32)
    log = f"W0301 prichexy PriCheXy, audit trail: {head}.\nno line 3, digest of it\n"
    assert heads_in(log + f"Head: {head}") == (head, head)
    assert heads_in("line 12, digest 0a") == ()


def test_a_key_is_a_file_of_32_characters_or_more(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    path.write_text("a" * 64 + "\n")
    key = read_key(path)
    assert len(key.key_id) == 16
    assert "a" * 64 not in repr(key)
    path.write_text("a" * 31 + "\n")
    with pytest.raises(ValueError, match="less than 32"):
        read_key(path)

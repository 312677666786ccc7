"""docs/states.md shows the table of states and moves, all of it and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prichexy_plugin.transitions import ACTIVE, LEGAL, MOVES
from prichexy_worker.contract import ENDED, State

PAGE = (Path(__file__).parents[2] / "docs" / "states.md").read_text(encoding="utf-8")


def _arrows() -> list[tuple[str, str]]:
    """Give the arrows of the diagram; ``[*]`` is where a study comes from."""
    diagram = PAGE.split("```mermaid\n")[1].split("```")[0]
    return re.findall(r"^ *(\S+) --> (\S+)", diagram, flags=re.MULTILINE)


def _rows() -> Iterator[tuple[str, ...]]:
    for line in PAGE.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if len(cells) == 4 and cells[2] in ("plugin", "worker", "person"):
            yield cells


def test_the_diagram_has_an_arrow_for_each_legal_step_and_no_other() -> None:
    legal = {
        (before.value if before else "[*]", after.value)
        for before, afters in LEGAL.items()
        for after in afters
    }
    drawn = _arrows()
    assert set(drawn) == legal
    assert len(drawn) == len(legal), "none is drawn twice"


def test_the_table_on_the_page_is_the_table_of_the_program() -> None:
    table = [
        (move.before.value if move.before else "–", move.after.value, move.by, move.when)
        for move in MOVES
    ]
    assert list(_rows()) == table


def test_no_step_is_listed_twice_for_the_same_actor() -> None:
    steps = [(move.before, move.after, move.by) for move in MOVES]
    assert len(set(steps)) == len(steps)


def test_from_every_state_an_end_can_be_reached_and_from_every_end_the_work() -> None:
    def reached(state: State) -> set[State]:
        found: set[State] = set()
        ahead = {state}
        while ahead:
            found |= ahead
            ahead = {after for one in ahead for after in LEGAL[one]} - found
        return found

    for state in ACTIVE:
        assert reached(state) >= ENDED
    for state in ENDED:
        assert State.PENDING in reached(state)

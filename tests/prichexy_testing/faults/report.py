"""The figures of a soak, and the page that shows them. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from prichexy_testing.faults.invariants import Violation, World, violations
from prichexy_worker.contract import ENDED

__all__ = ["Figures", "table"]


@dataclass
class Figures:
    """What a soak came to.

    ``times``: by fault, how often it came. ``recovered``: for each time that studies were on their
    way, the seconds from its end until they had ended. ``claims``: how often each of those studies
    was claimed by then.
    """

    times: Counter[str] = field(default_factory=Counter)
    recovered: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    claims: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    worker_deaths: int = 0
    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    deleted: int = 0
    images: int = 0
    lines: int = 0
    violations: list[Violation] = field(default_factory=list)

    def note(self, fault: str, seconds: float, claims: Sequence[int]) -> None:
        """Count one fault that came and went."""
        self.times[fault] += 1
        if claims:
            self.recovered[fault].append(seconds)
            self.claims[fault].extend(claims)

    def judge(self, world: World) -> None:
        """Take in what there is in the end."""
        self.violations = violations(world)
        self.ends = Counter(row.state.value for row in world.rows)
        self.deleted = sum(sent.deleted for sent in world.sent)
        self.images = sum(len(images) for images in world.peer.values())
        self.lines = len(world.lines)


def table(figures: Figures, *, workers: int, seed: int) -> str:
    """Give the page in Markdown."""
    wrong = Counter(found.what for found in figures.violations)
    ends = {state.value: figures.ends.get(state.value, 0) for state in sorted(ENDED)}
    rows = [
        ("studies that went in", sum(figures.ends.values())),
        *((f"ended as *{name}*", count) for name, count in ends.items()),
        ("deleted meanwhile", figures.deleted),
        ("workers", workers),
        ("workers found dead between faults", figures.worker_deaths),
        ("faults", figures.times.total()),
        ("images at the peer", figures.images),
        ("images or studies more than once at the peer", wrong["more than once at the peer"]),
        ("studies not whole at the peer", wrong["not whole at the peer"]),
        ("studies lost, or without an end", wrong["not once in the ledger"] + wrong["has no end"]),
        ("left at the peer of a study that is not exported", wrong["left at the peer"]),
        ("lines of the audit trail", figures.lines),
        ("double lines of it", wrong["an audit line stands more than once"]),
        ("files left that tell of a patient", wrong["a file tells of a patient"]),
        ("anything else that does not hold", _others(wrong)),
        ("minutes", round(figures.seconds / 60)),
        ("seed", seed),
    ]
    lines = ["| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += [
        "| fault | times | recovered, median s | longest s | claims of a study, mean | most |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, times in sorted(figures.times.items()):
        seconds, claims = figures.recovered[name], figures.claims[name]
        cells = ("–",) * 4
        if seconds:
            cells = (
                f"{median(seconds):.0f}",
                f"{max(seconds):.0f}",
                f"{fmean(claims):.1f}",
                f"{max(claims)}",
            )
        lines.append(f"| {name} | {times} | {' | '.join(cells)} |")
    lines += [f"- {found.what}: {found.where} {found.detail}" for found in figures.violations]
    return "\n".join(lines) + "\n"


def _others(wrong: Counter[str]) -> int:
    counted = {
        "more than once at the peer",
        "not whole at the peer",
        "not once in the ledger",
        "has no end",
        "left at the peer",
        "an audit line stands more than once",
        "a file tells of a patient",
    }
    return sum(count for what, count in wrong.items() if what not in counted)

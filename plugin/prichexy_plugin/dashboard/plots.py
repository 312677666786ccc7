"""Plots of the last hours and days as SVG shapes: numbers in, places out. Pure.

The drawing is ``WIDTH`` by ``HEIGHT`` units; the style sheet gives it colours and a size.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prichexy_plugin.dashboard.wording import took
from prichexy_plugin.records import Span
from prichexy_worker.contract import State

__all__ = ["Bar", "Block", "Plot", "Tick", "latency", "percentile", "percentile_of", "throughput"]

WIDTH: Final = 400
HEIGHT: Final = 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 6, 10, 22
#: From the bottom of a bar to its top.
_STACK: Final = (State.EXPORTED, State.QUARANTINED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Block:
    """One rectangle of a bar; ``kind`` is its class in the style sheet."""

    y: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Bar:
    """What happened in one span; ``told`` says it in words."""

    x: float
    width: float
    blocks: tuple[Block, ...]
    told: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its place and what stands beside it."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing; ``empty`` says that there is nothing to see in it."""

    title: str
    told: str
    bars: tuple[Bar, ...]
    across: tuple[Tick, ...]
    upwards: tuple[Tick, ...]
    empty: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    base: int = HEIGHT - _BOTTOM


def percentile(seconds: Sequence[float], share: float) -> float | None:
    """Give the smallest value that ``share`` of ascending values do not exceed; None of none."""
    return percentile_of((seconds,), share)


def percentile_of(runs: Sequence[Sequence[float]], share: float) -> float | None:
    """Do so for the values of several ascending ``runs`` together, without joining them."""
    rank = max(1, math.ceil(share * sum(map(len, runs))))

    def not_above(value: float) -> int:
        return sum(bisect_right(run, value) for run in runs)

    reach = ((run, bisect_left(run, rank, key=not_above)) for run in runs)
    return min((run[place] for run, place in reach if place < len(run)), default=None)


def throughput(spans: Sequence[Span], title: str) -> Plot:
    """Draw how many studies ended in each span, stacked by how."""
    totals = [sum(span.ended.get(state, 0) for state in _STACK) for span in spans]
    top = _ceiling(max(totals, default=0))
    bars = []
    for number, span in enumerate(spans):
        counted = [(state, span.ended.get(state, 0)) for state in _STACK]
        blocks, below = [], 0
        for state, count in counted:
            if count:
                blocks.append(_block(below, below + count, top, state.value))
            below += count
        words = ", ".join(f"{count} {state.value}" for state, count in counted if count)
        bars.append(_bar(number, len(spans), blocks, f"{_name(span)}: {words or 'nothing ended'}"))
    told = ", ".join(
        f"{sum(span.ended.get(state, 0) for span in spans)} {state.value}" for state in _STACK
    )
    return _plot(title, told, spans, bars, [(0.0, "0"), (top, f"{top:g}")], empty=not any(totals))


def latency(spans: Sequence[Span], title: str) -> Plot:
    """Draw from arrival to export, in each span: from 0 to the median, and on to 95 % of all."""
    highest = max((percentile(span.seconds, 0.95) or 0.0 for span in spans), default=0.0)
    unit = next(size for size in (3600, 60, 1) if highest >= 2 * size or size == 1)
    top = _ceiling(highest / unit) * unit
    bars = []
    for number, span in enumerate(spans):
        median, most = percentile(span.seconds, 0.5), percentile(span.seconds, 0.95)
        blocks = []
        words = "nothing exported"
        if median is not None and most is not None:
            blocks = [_block(0, median, top, "median"), _block(median, most, top, "most")]
            words = f"half within {took(median)}, 95 % within {took(most)}"
        bars.append(_bar(number, len(spans), blocks, f"{_name(span)}: {words}"))
    half = percentile_of([span.seconds for span in spans], 0.5)
    number = sum(len(span.seconds) for span in spans)
    told = "nothing exported" if half is None else f"half of {number} within {took(half)}"
    named = {1: "s", 60: "min", 3600: "h"}[unit]
    return _plot(
        title, told, spans, bars, [(0.0, "0"), (top, f"{top / unit:g} {named}")], empty=not number
    )


def _plot(
    title: str,
    told: str,
    spans: Sequence[Span],
    bars: list[Bar],
    upwards: Sequence[tuple[float, str]],
    *,
    empty: bool,
) -> Plot:
    top = upwards[-1][0]
    days = bool(spans) and spans[0].end - spans[0].begin >= timedelta(days=1)
    every = 4 if days else 6
    across = tuple(
        Tick(bar.x + bar.width / 2, span.begin.strftime("%d %b" if days else "%H:00"))
        for number, (bar, span) in enumerate(zip(bars, spans, strict=True))
        if (len(spans) - 1 - number) % every == every // 2
    )
    ticks = tuple(Tick(_height(value, top), text) for value, text in upwards)
    return Plot(title, told, tuple(bars), across, ticks, empty)


def _name(span: Span) -> str:
    days = span.end - span.begin >= timedelta(days=1)
    return span.begin.strftime("%a %d %b" if days else "%d %b %H:00")


def _bar(number: int, count: int, blocks: Sequence[Block], told: str) -> Bar:
    room = (WIDTH - _LEFT - _RIGHT) / count
    return Bar(round(_LEFT + room * (number + 0.12), 2), round(room * 0.76, 2), tuple(blocks), told)


def _block(low: float, high: float, top: float, kind: str) -> Block:
    upper, lower = _height(high, top), _height(low, top)
    return Block(upper, round(lower - upper, 2), kind)


def _height(value: float, top: float) -> float:
    base = HEIGHT - _BOTTOM
    return round(base - (base - _TOP) * (value / top if top else 0), 2)


def _ceiling(value: float) -> float:
    """Give the next of 1, 2, 5, 10, 20, … that is not below ``value``."""
    if value <= 1:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= value)

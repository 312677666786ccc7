"""What a soak sends, and the page that it writes."""

from __future__ import annotations

import random
from collections import Counter

from prichexy_testing.faults.invariants import LedgerRow, Sent, World
from prichexy_testing.faults.report import Figures, table
from prichexy_testing.faults.soak import studies_by_chance
from prichexy_worker.contract import State


def test_the_same_seed_gives_the_same_studies_and_another_one_others():
    first, again, other = (list(studies_by_chance(50, random.Random(seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_soak_has_studies_of_every_kind_and_most_are_well():
    studies = [study for study, _ in studies_by_chance(2000, random.Random(1))]
    assert len({study.uid for study in studies}) == 2000
    kinds = Counter(
        "codec" if one.codec else one.worker or ("unsafe" if one.unsafe else "well")
        for one in studies
    )
    assert set(kinds) == {"codec", "unsafe", "well", "poison endless", "poison segfault"}
    assert kinds["well"] > 1900
    assert len({one.codec for one in studies if one.codec}) == 3


def test_the_page_counts_what_recovered_and_names_what_does_not_hold():
    figures = Figures(worker_deaths=2, seconds=90.0)
    figures.note("worker killed", 3.0, [1, 2])
    figures.note("worker killed", 9.0, [2])
    figures.note("worker killed", 0.0, [])
    figures.note("peer killed", 0.0, [])
    sent = Sent("study", "2.25.1", frozenset({"2.25.2"}))
    row = LedgerRow("study", "job", State.FAILED, revision=1, attempts=0)
    figures.judge(World((sent,), (row,), (), frozenset({"study"}), {"2.25.1": ("2.25.2",)}))
    page = table(figures, workers=4, seed=1)
    assert "| worker killed | 3 | 6 | 9 | 1.7 | 2 |" in page
    assert "| peer killed | 1 | – | – | – | – |" in page
    assert "| left at the peer of a study that is not exported | 1 |" in page
    assert "| ended as *failed* | 1 |" in page
    assert "- has another end: study failed: None" in page
    assert "- left at the peer: study 1 images" in page

"""Sends damaged radiographs through the pipeline and tells which did anything but be turned away.

    PYTHONPATH=tests python benchmarks/mutation_fuzz.py --mutants 20000 --jobs 2 --record FILE

Each mutant is drawn from its number and ``--seed``. ``--record`` keeps a line for each; the same
command goes on where it was stopped. A finding (a crash, a hang, a leak, a process that died) is
printed with its number: ``prichexy_testing.fuzzing.numbered(NUMBER, SEED)`` gives its bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from prichexy_testing.fuzzing import PATIENCE, Verdict, run
from prichexy_testing.sections import replace_section, table

OUTCOMES = ("released", "released with a moved number", "turned away")


def earlier(record: Path | None, seed: str) -> Iterator[Verdict]:
    """Give what an earlier run of this seed wrote; a line that was cut short is not one."""
    if record is None or not record.exists():
        return
    for line in record.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.pop("seed") == seed:
            yield Verdict(**entry)


def report(outcomes: Counter[str], reasons: Counter[str], findings: Counter[str]) -> str:
    """Give the table in Markdown."""
    rows: list[tuple[str, int]] = [("damaged files", outcomes.total())]
    rows += [(outcome, outcomes[outcome]) for outcome in OUTCOMES]
    rows += [(f"for {reason.replace('_', ' ')}", count) for reason, count in reasons.most_common()]
    rows += [(f"**finding:** {detail}", count) for detail, count in findings.most_common()]
    rows.append(("findings", findings.total()))
    return table(["", "files"], rows)


def told(verdict: Verdict) -> None:
    """Print a finding."""
    if verdict.finding:
        sys.stdout.write(f"{verdict.number}: {verdict.outcome}: {verdict.detail}\n")
        sys.stdout.flush()


def main() -> int:
    """Run; the exit code is 1 when there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--record", type=Path, help="a file of JSON lines, to go on later")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for one mutant")
    parser.add_argument("--write", type=Path, help="a page with a section <!-- fuzz -->")
    parser.add_argument("--minutes", type=float, help="begin no mutant after so long")
    chosen = parser.parse_args()
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    done = {verdict.number: verdict for verdict in earlier(chosen.record, chosen.seed)}
    start = time.monotonic()

    def waiting() -> Iterator[int]:
        for number in range(chosen.mutants):
            if chosen.minutes and time.monotonic() - start > 60 * chosen.minutes:
                return
            if number not in done:
                yield number

    for verdict in done.values():
        told(verdict)
    for verdict in run(waiting(), jobs=chosen.jobs, seed=chosen.seed, patience=chosen.patience):
        done[verdict.number] = verdict
        told(verdict)
        if chosen.record is not None:
            with chosen.record.open("a", encoding="utf-8") as record:
                record.write(json.dumps({"seed": chosen.seed, **asdict(verdict)}) + "\n")
    for verdict in done.values():
        outcomes[verdict.outcome] += 1
        if verdict.outcome == "turned away":
            reasons[verdict.detail] += 1
    text = report(outcomes, reasons, Counter(v.detail for v in done.values() if v.finding))
    sys.stdout.write(f"{time.monotonic() - start:.0f} s\n{text}\n")
    if chosen.write is not None:
        replace_section(chosen.write, "fuzz", text)
    return int(any(verdict.finding for verdict in done.values()))


if __name__ == "__main__":
    sys.exit(main())

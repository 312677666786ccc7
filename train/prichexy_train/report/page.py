"""The report itself: what stands on its page, and the two files it is written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from prichexy_train.checkpoints import write_whole
from prichexy_train.report.attackers import attackers_table, attackers_warnings
from prichexy_train.report.curve import CurveView, curve_view
from prichexy_train.report.evidence import Evidence, Run
from prichexy_train.report.examples import Example
from prichexy_train.report.limits import agreement, findings, limits, training_notes
from prichexy_train.report.plots import Plot, roc_curves, trade_off, training_curves
from prichexy_train.report.published import published
from prichexy_train.report.results import Section, sections
from prichexy_train.report.shortcuts import shortcuts_findings, shortcuts_table
from prichexy_train.report.tables import (
    Table,
    label_table,
    ladder_table,
    main_table,
    pairs_table,
    retrieval_table,
    runs_table,
    sets_table,
)
from prichexy_train.report.wording import counted, duration, listed

__all__ = ["HTML", "MARKDOWN", "Page", "compose", "write_page"]

HTML: Final = "report.html"
MARKDOWN: Final = "report.md"

#: What the columns mean, the same in every report: a paragraph a point, no figures.
_READING: Final = "reading.txt"


@dataclass(frozen=True)
class ListView:
    """One list of pairs of a data set on the page."""

    name: str
    findings: Sequence[str]
    main: Table
    trade_off: Plot | None
    limits: Sequence[str]
    agreement: Sequence[str]
    ladder: Table
    roc: Sequence[Plot]


@dataclass(frozen=True)
class DataView:
    """One data set on the page."""

    name: str
    lists: Sequence[ListView]
    attackers: Table | None
    attackers_warnings: Sequence[str]
    retrieval: Table | None
    labels: Table | None
    shortcuts: Table | None
    shortcuts_findings: Sequence[str]
    curve: CurveView | None


@dataclass(frozen=True)
class Page:
    """All that a report says, in its order."""

    title: str
    subtitle: str
    warnings: Sequence[str]
    data: Sequence[DataView]
    published: str
    citation: str
    examples: Sequence[Example]
    training: Sequence[Plot]
    training_notes: Sequence[str]
    tables: Sequence[Table]
    facts: Sequence[tuple[str, str]]
    reading: Sequence[str]
    examples_note: str = (
        "Test images, chosen by their identifiers’ order alone. The field shows how far each point "
        "of the picture was taken from, brighter is further; arrows are enlarged."
    )


def compose(
    evidence: Evidence,
    title: str,
    *,
    sets: Mapping[str, Mapping[str, Any]] | None = None,
    examples: Sequence[Example] = (),
    unfinished: Sequence[str] = (),
) -> Page:
    """Give the report on ``evidence``.

    ``sets`` are the summaries of the prepared sets, by name; ``unfinished`` the steps of an
    experiment that are still to come. Raises Failed where records contradict each other.
    """
    paper = published()
    found = sections(evidence)
    tables = [sets_table(sets or {}), pairs_table(sets or {}), runs_table(evidence.runs)]
    return Page(
        title=title,
        subtitle=_subtitle(found, evidence),
        warnings=_warnings(evidence, unfinished),
        data=tuple(_data_view(section, evidence) for section in found),
        published=f"{paper.citation}; {paper.data}",
        citation=paper.citation,
        examples=examples,
        training=training_curves(evidence.runs),
        training_notes=training_notes(evidence.runs),
        tables=[table for table in tables if table is not None],
        facts=(*_facts(found, evidence), *_left_out(sets or {})),
        reading=_template(_READING).strip().split("\n\n"),
    )


def write_page(page: Page, folder: str | Path) -> tuple[Path, Path]:
    """Write ``page`` as one HTML file that needs nothing else, and as Markdown; give both paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=PackageLoader("prichexy_train.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
    )
    environment.filters["md"] = _markdown
    css = _template("report.css")
    paths = folder / HTML, folder / MARKDOWN
    for path in paths:
        text = environment.get_template(path.name).render(page=page, css=css)
        write_whole(path, text.encode())
    return paths


def _template(name: str) -> str:
    file = resources.files("prichexy_train.report") / "templates" / name
    return file.read_text(encoding="utf-8")


def _data_view(section: Section, evidence: Evidence) -> DataView:
    paper = published()
    return DataView(
        name=section.data,
        lists=tuple(
            ListView(
                name=name,
                findings=findings(section, name),
                main=main_table(section, name, paper),
                trade_off=trade_off(section, name, paper),
                limits=limits(section, name),
                agreement=agreement(section, name, paper),
                ladder=ladder_table(section, name),
                roc=roc_curves(section, name),
            )
            for name in section.pair_lists
        ),
        attackers=attackers_table(section, evidence),
        attackers_warnings=attackers_warnings(section),
        retrieval=retrieval_table(section),
        labels=label_table(section),
        shortcuts=shortcuts_table(section),
        shortcuts_findings=shortcuts_findings(section),
        curve=curve_view(section, evidence),
    )


def _subtitle(found: Sequence[Section], evidence: Evidence) -> str:
    methods = {method.digest for section in found for method in section.methods}
    return (
        f"{counted(len(methods), 'method')} on {listed(section.data for section in found)}, "
        f"{counted(len(evidence.records), 'record')}, {_time(evidence.runs)}"
    )


def _time(runs: Sequence[Run]) -> str:
    seconds = sum(run.seconds or 0.0 for run in runs)
    devices = dict.fromkeys(device for run in runs for device in _devices(run))
    return f"{duration(seconds)} on {listed(devices) or 'a machine not recorded'}"


def _warnings(evidence: Evidence, unfinished: Sequence[str]) -> tuple[str, ...]:
    names = dict.fromkeys([*(run.name for run in evidence.runs if not run.result), *unfinished])
    if not names:
        return ()
    return (f"Not finished, so this is an interim report: {listed(names)}.",)


def _facts(found: Sequence[Section], evidence: Evidence) -> tuple[tuple[str, str], ...]:
    starts = [start for run in evidence.runs for start in run.provenance.get("starts", [])]
    libraries = {
        f"{name} {version}"
        for start in starts
        for name, version in start.get("libraries", {}).items()
    }
    code = {f"{start.get('software')} at {start.get('commit') or 'no commit'}" for start in starts}
    dates = sorted(str(start["at"]) for start in starts)
    facts = {
        "Time": _time(evidence.runs),
        "From, to (UTC)": f"{dates[0][:16]}, {dates[-1][:16]} (last start)" if dates else "",
        "Software": listed(sorted(code)),
        "Libraries": ", ".join(sorted(libraries)),
        "Data digests": "; ".join(
            f"{section.data}: {', '.join(digest[:16] for digest in section.digests)}"
            for section in found
            if section.digests
        ),
        "Runs from": evidence.folder.name,
    }
    return tuple((word, value) for word, value in facts.items() if value)


def _left_out(sets: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"Left out of {name}",
            "; ".join(f"{number:,} {reason}" for reason, number in summary["left_out"].items()),
        )
        for name, summary in sets.items()
        if summary.get("left_out")
    )


def _devices(run: Run) -> Sequence[str]:
    return [str(start["device"]) for start in run.provenance.get("starts", [])]


def _markdown(text: str) -> str:
    """Give ``text`` with what Markdown would take for markup, or a table's edge, escaped."""
    for mark in ("\\", "|", "*", "_", "`", "<", "["):
        text = text.replace(mark, f"\\{mark}")
    return text

"""What records say about one anonymizer: its figures, their limits, and what they make of it.

Nothing here is typed in: each number and each sentence follows from the records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from prichexy_model.bundle import Evidence as Level
from prichexy_train.errors import Misconfigured
from prichexy_train.measures.summary import AttackSummary, Figure, RetrievalSummary
from prichexy_train.records import Role, Stored, UtilityRecord
from prichexy_train.report.attackers import attackers_warnings
from prichexy_train.report.evidence import Evidence, gather
from prichexy_train.report.limits import limits
from prichexy_train.report.results import MethodResult, Section, sections
from prichexy_train.report.wording import in_words, listed

__all__ = ["Figures", "figures_of", "no_figures"]

#: What "measured" asks for: attackers who train anew, so often; a strong verifier as it is; where
#: the generator had critics, these; and undoing the deformation.
_TRAINED: Final = (1, 2, 4)
_SEEDS: Final = 5
_FROZEN: Final = 3
_CRITIC: Final = 5
_UNDOING: Final = 8
#: What the strongest attack must reach on real images. Who tells few patients apart there proves
#: nothing by telling as few apart elsewhere; the paper's own attacker, a weak one, reaches 0.818.
_LEAST_ON_REAL: Final = 0.8
#: What records call the digests of the networks that measured.
_VERIFIERS: Final = re.compile(r"verifier-[0-9]+")
_CLASSIFIER: Final = re.compile(r"classifier")
#: What a bundle's statement may hold; see ``prichexy_model.bundle``.
_LONGEST: Final = 400


@dataclass(frozen=True)
class Figures:
    """What is known about an anonymizer.

    ``protects``: on every list the strongest attack does worse than on real images, beyond the
    chance of patients and of trainings. ``missing`` says what "measured" would need and is not
    there. ``metrics`` are the figures as JSON, by data set; ``limits`` sentences; ``sources`` says
    which records they are of.
    """

    evidence: Level
    statement: str
    protects: bool = False
    missing: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    sources: Mapping[str, Any] = field(default_factory=dict)


def no_figures() -> Figures:
    """Give what is known about an anonymizer that nobody attacked."""
    return Figures(
        "trained",
        "Trained, not yet attacked: no privacy is claimed.",
        missing=("records of attacks and of utility",),
    )


def figures_of(folder: str | Path, digest: str, *, critics: bool = True) -> Figures:
    """Give what the records below ``folder`` say about the deformation with this digest.

    Records of other methods are left aside, but for real images, which it is compared with.
    "measured" asks for one data set on which, on every list that anybody was attacked on, the
    deformation met rungs 1 to 4 and 8, and 5 where it was trained against ``critics``; those that
    train with five seeds; real images met rungs 1 to 4 likewise, and a strong attacker; and on
    which utility was measured. Raises Misconfigured when no record is about the method, and Failed
    and RecordError as ``gather`` and ``sections`` do.
    """
    evidence = gather(folder)
    about = [_about(section, digest) for section in sections(evidence)]
    found = [section for section in about if _ours(section) is not None]
    if not found:
        raise Misconfigured(
            f"{folder}: none of its {len(evidence.records)} records is about this anonymizer; "
            "attack it first, or leave --records out"
        )
    lacks = [_lacking(section, critics=critics) for section in found]
    lacking = min(lacks, key=len)
    whole = [section for section, lack in zip(found, lacks, strict=True) if not lack]
    statement, protects = _verdict(whole, found) if whole else (_partly(lacking), False)
    return Figures(
        evidence="measured" if whole else "trained",
        statement=statement,
        protects=protects,
        missing=lacking,
        metrics={section.data: _metrics(section) for section in found},
        limits=tuple(dict.fromkeys(_limits(found))),
        sources=_sources(evidence, digest),
    )


def _about(section: Section, digest: str) -> Section:
    """Give the section with this method and the real images alone, but the lists of all."""
    kept = tuple(one for one in section.methods if one.real or one.digest == digest)
    return replace(section, methods=kept)


def _ours(section: Section) -> MethodResult | None:
    return next((one for one in section.methods if not one.real), None)


def _method(section: Section) -> MethodResult:
    ours = _ours(section)
    if ours is None:
        raise ValueError(f"{section.data}: has no results of the method")
    return ours


def _lacking(section: Section, *, critics: bool) -> tuple[str, ...]:
    """Say in words what a data set's results lack for "measured"; nothing where nothing does."""
    lacking = [
        f"{what} (list {name})"
        for name in section.pair_lists
        for what in _lacking_on(section, name, critics=critics)
    ]
    if not section.pair_lists:
        lacking.append("attacks")
    if _method(section).utility is None:
        lacking.append("utility")
    return tuple(lacking)


def _lacking_on(section: Section, name: str, *, critics: bool) -> Iterator[str]:
    method, real = _method(section), section.real
    met = _most_seeds(
        (one.number, one.role, len(one.seeds)) for one in method.attacks.get(name, ())
    )
    wanted = {*_TRAINED, _FROZEN, _UNDOING, *([_CRITIC] if critics else [])}
    if absent := sorted(wanted - met.keys()):
        yield _rungs(absent)
    if few := [number for number in _TRAINED if 0 < met.get(number, 0) < _SEEDS]:
        yield f"{_SEEDS} seeds of {_rungs(few)}"
    attack = None if real is None else real.strongest.get(name)
    if attack is None:
        yield "attacks on real images"
        return
    change = method.changes.get(name)
    both = _most_seeds(
        (one.attack.number, one.attack.role, len(one.seeds))
        for one in (() if change is None else change.compared)
    )
    least = {number: _SEEDS if number in _TRAINED else 1 for number in (*_TRAINED, _FROZEN)}
    # What the method itself did not meet is said above.
    unlike = [
        number
        for number, seeds in least.items()
        if both.get(number, 0) < seeds <= met.get(number, 0)
    ]
    if unlike:
        yield f"{_rungs(sorted(unlike))} on real images with the same seeds"
    if attack.auc.mean < _LEAST_ON_REAL:
        yield (
            f"an attacker who reaches AUC {_LEAST_ON_REAL} on real images, where the strongest "
            f"reaches {attack.auc.mean:.3f}"
        )


def _most_seeds(attacks: Iterable[tuple[int, Role, int]]) -> dict[int, int]:
    """Give for each rung that counts as an attack the most seeds that one of its kinds has."""
    most: dict[int, int] = {}
    for number, role, seeds in attacks:
        if role == "attack":
            most[number] = max(seeds, most.get(number, 0))
    return most


def _rungs(numbers: Sequence[int]) -> str:
    return f"{'rung' if len(numbers) == 1 else 'rungs'} {listed(map(str, numbers))}"


def _partly(lacking: Sequence[str]) -> str:
    text = "Trained, not fully measured: {} missing. No privacy is claimed."
    whole = text.format("; ".join(lacking))
    return whole if len(whole) <= _LONGEST else text.format(f"{len(lacking)} requirements")


def _verdict(whole: Sequence[Section], found: Sequence[Section]) -> tuple[str, bool]:
    """Say how well the strongest attack of all did and what is left of use; and if it protects.

    The statement is about the sections that were measured as a ``whole``; for protection none of
    those ``found`` may speak against it.
    """
    attacks = [
        (attack, section) for section in whole for attack in _method(section).strongest.values()
    ]
    worst, section = max(attacks, key=lambda pair: pair[0].auc.mean)
    protects = all(_is_less(name, one) for one in found for name in _method(one).strongest)
    method, real = _method(section), section.real
    tried = sum(one.counted for one in method.attacks[worst.pair_list])
    text = (
        f"Measured on {section.data}, list {worst.pair_list}: the strongest of {tried} attacks "
        f"({in_words(worst.rung)}) tells one patient's pairs from two's with AUC {_said(worst.auc)}"
    )
    before = None if real is None else real.strongest.get(worst.pair_list)
    if before is not None:
        text += f" (real images {_said(before.auc)})"
    utility = method.utility
    if utility is not None:
        text += f"; class AUC {utility.auc:.3f} (real images {utility.control:.3f})"
    if not protects:
        less = _is_less(worst.pair_list, section)
        text += ". On another list no" if less else ". No"
        text += " protection was shown"
    return f"{text}.", protects


def _is_less(pair_list: str, section: Section) -> bool:
    """Whether attacks did worse on the method's images than the strongest on real ones."""
    change = _method(section).changes.get(pair_list)
    return change is not None and change.certain


def _said(figure: Figure) -> str:
    if figure.interval is None:
        return f"{figure.mean:.3f}"
    low, high = figure.interval
    return f"{figure.mean:.3f} [{low:.3f}, {high:.3f}]"


def _metrics(section: Section) -> dict[str, Any]:
    method, real = _method(section), section.real
    verification = {}
    for name, attacks in method.attacks.items():
        before = None if real is None else real.strongest.get(name)
        change = method.changes.get(name)
        verification[name] = {
            "pairs": attacks[0].pairs,
            "patients": attacks[0].patients,
            "strongest": _attack(method.strongest[name]) if name in method.strongest else None,
            "real_images": None if before is None else _attack(before),
            "change": None
            if change is None
            else {
                "difference": _number(change.difference),
                "interval": _ends(change.interval),
                "attacks": [one.attack.rung for one in change.compared],
            },
            "attacks": [_attack(one) for one in attacks],
        }
    return {
        "data_digests": list(section.digests),
        "verification": verification,
        "retrieval": [_retrieval(one) for one in method.retrievals],
        "utility": None if method.utility is None else _utility(method.utility),
    }


def _attack(attack: AttackSummary) -> dict[str, Any]:
    return {
        "rung": attack.number,
        "name": attack.rung,
        "role": attack.role,
        "seeds": len(attack.seeds),
        "auc": _figure(attack.auc),
    }


def _retrieval(one: RetrievalSummary) -> dict[str, Any]:
    return {
        "rung": one.number,
        "name": one.rung,
        "role": one.role,
        "seeds": len(one.seeds),
        "queries": one.queries,
        "gallery": one.gallery,
        "rank1": _figure(one.rank1),
        "rank1_of_guessing": _number(one.chance_rank1),
        "map_at_r": _figure(one.map_at_r),
    }


def _utility(record: UtilityRecord) -> dict[str, Any]:
    return {
        "images": record.images,
        "patients": record.patients,
        "auc": _number(record.auc),
        "interval": _ends(record.interval),
        "real_images": _number(record.control),
        "real_images_interval": _ends(record.control_interval),
        "difference": _number(record.difference),
        "difference_interval": _ends(record.difference_interval),
        "labels": {
            name: {
                "auc": _number(label.auc),
                "interval": _ends(label.interval),
                "real_images": _number(label.control),
                "positives": label.positives,
            }
            for name, label in record.labels.items()
        },
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "mean": _number(figure.mean),
        "sd": _number(figure.sd),
        "interval": _ends(figure.interval),
    }


def _number(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(end, 6) for end in interval]


def _limits(found: Iterable[Section]) -> Iterator[str]:
    for section in found:
        for name in section.pair_lists:
            # In plain spaces and hyphens: this goes into JSON and onto every kind of screen.
            for sentence in limits(section, name):
                yield f"{section.data}, {name}: {_plain(sentence)}"
        for sentence in attackers_warnings(section):
            yield f"{section.data}: {_plain(sentence)}"


def _plain(text: str) -> str:
    for fancy, plain in {"\N{NO-BREAK SPACE}": " ", "−": "-", "’": "'"}.items():
        text = text.replace(fancy, plain)
    return text


def _networks(records: Iterable[Stored], key: re.Pattern[str]) -> list[str]:
    """Give the digests of the networks that these records say they were measured with."""
    return sorted(
        {
            str(digest)
            for stored in records
            for name, digest in stored.record.provenance.items()
            if key.fullmatch(name)
        }
    )


def _sources(evidence: Evidence, digest: str) -> dict[str, Any]:
    ours = [one for one in evidence.records if one.record.method.digest == digest]
    digests = sorted(sha256(one.path.read_bytes()).hexdigest() for one in ours)

    def told(key: str) -> list[str]:
        return sorted({str(one.record.provenance.get(key)) for one in ours})

    return {
        "records": len(ours),
        "records_sha256": sha256("\n".join(digests).encode()).hexdigest(),
        "verifiers": _networks(ours, _VERIFIERS),
        "classifiers": _networks(ours, _CLASSIFIER),
        "software": told("software"),
        "commits": told("commit"),
    }

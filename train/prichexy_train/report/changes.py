"""How far a method's strongest attack lies from that on real images, by attacks that both met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from prichexy_train.measures.bootstrap import (
    Resamples,
    interval,
    mean_over_seeds,
    weighted_auc,
)
from prichexy_train.measures.summary import AttackSummary
from prichexy_train.records import Stored

__all__ = ["Change", "NotComparable", "Shared", "change", "members"]

#: Of a record's details, beside an ensemble's members: who attacked.
_WHO: Final = ("verifiers", "verifier")
#: Of a record's provenance: digests of settings, strong verifiers and ImageNet weights.
_SETTINGS, _VERIFIER, _WEIGHTS = "attackers", "verifier-", ".pretrained"
#: How often each member of an ensemble was trained.
_TRAININGS: Final = "trainings"
#: What only records of an attacker who trained for this very method have in their details.
_TRAINED: Final = "epochs"
_PAIRS: Final = ("first", "second", "same")


class NotComparable(Exception):
    """A method and real images met nothing that can be compared; the text says why."""


@dataclass(frozen=True)
class Shared:
    """One attack, by the seeds with which the other side met it, too."""

    attack: AttackSummary
    seeds: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Give the mean AUC over these seeds."""
        each = zip(self.attack.seeds, self.attack.auc.values, strict=True)
        return float(np.mean([value for seed, value in each if seed in self.seeds]))


@dataclass(frozen=True)
class Change:
    """How far the strongest attack's AUC lies from real images', below 0 where it is lower.

    Either side's maximum is over the same attacks, with the same seeds: ``compared``, as they are
    on the method. ``interval`` holds 95 % of resamples of the patients, the same for both sides,
    and of the seeds. ``beyond`` is the method's strongest attack of all where real images did not
    meet it, ``beyond_interval`` how far it lies from the strongest on real images.
    """

    difference: float
    interval: tuple[float, float] | None
    attack: Shared
    real: Shared
    compared: tuple[Shared, ...]
    beyond: AttackSummary | None = None
    beyond_interval: tuple[float, float] | None = None

    @property
    def certain(self) -> bool:
        """Whether all lies below 0: no attack on the method does as well as on real images.

        An attack that real images did not meet can only speak against the method. Never where an
        attacker was trained once: another training might have done better.
        """
        if self.trained_once:
            return False
        found = [self.interval, *([self.beyond_interval] if self.beyond else [])]
        return all(one is not None and one[1] < 0 for one in found)

    @property
    def trained_once(self) -> bool:
        """Whether the interval knows nothing of how a training varies: either side has one."""
        return any(_trained_once(one) for one in (self.attack, self.real))


def change(attacks: Sequence[AttackSummary], real: Sequence[AttackSummary]) -> Change:
    """Give how the strongest of ``attacks`` on a method differs from the strongest on real images.

    Both are all attacks on one list; those that do not count in the maximum are left aside.
    Raises NotComparable where they have no attack, with a seed, in common, or not the same pairs.
    """
    ours, theirs = _shared(attacks, real), _shared(real, attacks)
    if not ours:
        raise NotComparable("no attack with the same seed was made on real images, too")
    best, before = (max(side, key=lambda one: one.mean) for side in (ours, theirs))
    top = max((one for one in attacks if one.counted), key=lambda one: one.auc.mean)
    beyond = None if any(one.attack is top for one in ours) else top
    return Change(
        difference=best.mean - before.mean,
        interval=_interval(best, before),
        attack=best,
        real=before,
        compared=tuple(ours),
        beyond=beyond,
        beyond_interval=None if beyond is None else _interval(Shared(top, top.seeds), before),
    )


def members(stored: Stored) -> tuple[str, ...]:
    """Give who made up the ensemble that attacked; nobody where one attacked alone.

    An ensemble names them by their weights or in a list, or says how many there were.
    """
    details = stored.record.details
    found = details.get("weights", details.get("members", []))
    names = found if isinstance(found, dict | list) else [found]
    return tuple(sorted(str(name) for name in names))


def _shared(attacks: Sequence[AttackSummary], others: Sequence[AttackSummary]) -> list[Shared]:
    """Give what of ``attacks`` was made, by the same attacker and with the same seed, on both."""
    of = {_name(one): _attackers(one) for one in others if one.counted}
    found = []
    for attack in attacks:
        known = of.get(_name(attack), {})
        seeds = tuple(seed for seed, who in _attackers(attack).items() if known.get(seed) == who)
        if attack.counted and seeds:
            found.append(Shared(attack, seeds))
    return found


def _name(attack: AttackSummary) -> tuple[int, str]:
    return attack.number, attack.rung


def _attackers(attack: AttackSummary) -> Mapping[int, str]:
    return {stored.record.seed: _who(stored) for stored in attack.records}


def _who(stored: Stored) -> str:
    """Give the attacker of a record: his members, networks, training, and the data's form.

    One who began with other weights, trained for fewer epochs or looked at smaller images is
    another one, whatever his name.
    """
    record = stored.record
    made_of = {
        key: value
        for key, value in record.provenance.items()
        if key == _SETTINGS or key.startswith(_VERIFIER) or key.endswith(_WEIGHTS)
    }
    details = [record.details.get(key) for key in _WHO]
    return repr([members(stored), details, sorted(made_of.items()), record.data_digest])


def _interval(attack: Shared, real: Shared) -> tuple[float, float] | None:
    ours, theirs = _scores(attack), _scores(real)
    first, second, same = (ours[0][name] for name in _PAIRS)
    if any(not np.array_equal(ours[0][name], theirs[0][name]) for name in _PAIRS):
        raise NotComparable("real images were attacked on other pairs")
    resamples = Resamples(np.concatenate([first, second]))

    def replicates(all_scores: Sequence[Mapping[str, NDArray[Any]]]) -> NDArray[np.float64]:
        return np.stack(
            [resamples.of(weighted_auc(one["scores"], same), first, second) for one in all_scores]
        )

    # What was not trained anew is one network on both sides: its seeds are drawn together.
    alike = _name(attack.attack) == _name(real.attack) and attack.seeds == real.seeds
    together = alike and not _trained(attack.attack)
    return interval(
        mean_over_seeds(replicates(ours), stream=0)
        - mean_over_seeds(replicates(theirs), stream=0 if together else 1)
    )


def _scores(shared: Shared) -> list[dict[str, NDArray[Any]]]:
    return [
        stored.scores() for stored in shared.attack.records if stored.record.seed in shared.seeds
    ]


def _trained_once(shared: Shared) -> bool:
    """Whether one of an ensemble's members, or the attacker himself, was trained with one seed."""
    for stored in shared.attack.records:
        trainings = stored.record.details.get(_TRAININGS)
        if isinstance(trainings, dict) and 1 in trainings.values():
            return True
    return len(shared.seeds) == 1 and _trained(shared.attack)


def _trained(attack: AttackSummary) -> bool:
    return any(_TRAINED in stored.record.details for stored in attack.records)

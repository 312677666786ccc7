"""How a method of anonymisation is called in a report, and where it stands in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prichexy_train.records import MethodOf

__all__ = ["KINDS", "Described", "described"]

#: The families of methods, in a table's order, with what each is called.
KINDS: Final[Mapping[str, str]] = {
    "real": "Real images",
    "privacy-net": "Privacy-Net",
    "dp-pix": "DP-Pix",
    "random": "Random deformation",
    "prichexy-net": "PriCheXy-Net",
}
#: What a method's own settings are when they are not said.
_USUAL: Final[Mapping[str, Any]] = {"eps": 0.1, "coarseness": 1, "mu_coarse": 0.0}


@dataclass(frozen=True)
class Described:
    """A method in words.

    ``kind`` is one of ``KINDS``, or the method's own first word. ``label`` names it in full,
    ``short`` without its family. ``values`` are what published figures are looked up by.
    """

    kind: str
    label: str
    short: str
    values: Mapping[str, Any]

    @property
    def order(self) -> tuple[Any, ...]:
        """Give what methods are sorted by: family, operator, strength."""
        kinds = list(KINDS)
        place = kinds.index(self.kind) if self.kind in kinds else len(kinds)
        values = self.values
        return (
            place,
            values.get("border", "") != "paper",
            values.get("mu_coarse", 0.0),
            values.get("mu", 0.0),
            values.get("b", 0),
            self.label,
        )


def described(method: MethodOf) -> Described:
    """Give ``method`` in words, as far as its settings say."""
    kind, _, rest = method.name.partition(":")
    values = {**method.settings, "kind": kind}
    if kind not in KINDS:
        return Described(kind, method.name, rest or method.name, values)
    parts = list(_parts(kind, values))
    short = ", ".join(parts) or KINDS[kind]
    return Described(kind, " ".join([KINDS[kind], ", ".join(parts)]).strip(), short, values)


def _parts(kind: str, values: Mapping[str, Any]) -> list[str]:
    # No-break spaces: a line must not end between a symbol and its value.
    parts = []
    if (cell := values.get("b")) is not None:
        parts.append(f"b\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{cell}")
    if (mu := values.get("mu")) is not None and kind != "privacy-net":
        parts.append(f"μ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{mu:g}")
    if _unusual(values, "eps"):
        parts.append(f"ε\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{values['eps']:g}")
    if _unusual(values, "mu_coarse"):
        parts.append(f"coarse {values['mu_coarse']:g} on {values.get('cells')} cells")
    if _unusual(values, "coarseness"):
        parts.append(f"coarseness {values['coarseness']}")
    if values.get("border") == "paper":
        parts.append("paper’s operator")
    return parts


def _unusual(values: Mapping[str, Any], key: str) -> bool:
    return key in values and values[key] != _USUAL[key]

"""Intake rules as a text: as they stand behind ``Intake.Rules``, and as a dry run reads them."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from pydantic import (
    ValidationError,
)

from prichexy_plugin.intake import Rank, Rule
from prichexy_plugin.section import SECTION, IntakePart, RulePart, SettingsError, settings_error
from prichexy_plugin.upright import with_escapes

__all__ = ["MOST_RULES_TEXT", "read_rules", "rules_text"]

#: Letters and digits that are written from right to left.
_TURNS: Final = frozenset({"R", "AL", "AN"})
#: Characters of rules that ``read_rules`` takes, and how deep lists and objects may lie in them:
#: Orthanc's threads have small stacks, and a parser that descends far ends the whole Orthanc.
MOST_RULES_TEXT: Final = 32 * 1024
_DEEPEST: Final = 4
#: A text, whatever it holds, or a bracket.
_PARTS: Final = re.compile(r'"(?:\\.|[^"\\])*"|[][{}]')


def read_rules(text: str, own_queue: str) -> tuple[Rule, ...]:
    """Read intake rules as they stand behind ``Intake.Rules``, as strictly as ``read_settings``.

    ``own_queue`` is the gateway's. Raises SettingsError.
    """
    key = f"{SECTION}.Intake.Rules"
    if len(text) > MOST_RULES_TEXT:
        raise SettingsError((f"{key}: is longer than {MOST_RULES_TEXT} characters.",))
    if _depth(text) > _DEEPEST:
        raise SettingsError((f"{key}: is a list of rules, and nested too deep for one.",))
    try:
        whole = json.dumps({"Rules": json.loads(text)})
    except ValueError:
        raise SettingsError((f"{key}: is not JSON.",)) from None
    try:
        intake = IntakePart.model_validate_json(whole, strict=True)
    except ValidationError as error:
        raise settings_error(error, ("Intake",)) from None
    return tuple(rule.to_rule(own_queue) for rule in intake.rules)


def rules_text(rules: Iterable[Rule]) -> str:
    """Write rules as ``read_rules`` reads them, one a line."""
    lines = []
    for rule in rules:
        fields: dict[str, object] = {"Name": rule.name}
        for name, info in RulePart.model_fields.items():
            words = getattr(rule, name)
            if isinstance(words, frozenset) and words:
                fields[info.alias or name] = sorted(words)
        if rule.priority is not Rank.NORMAL:
            fields["Priority"] = rule.priority.name.lower()
        if rule.queue:
            fields["Queue"] = rule.queue
        lines.append(with_escapes(json.dumps(fields, ensure_ascii=False), _is_odd))
    return "[\n  " + ",\n  ".join(lines) + "\n]" if lines else "[]"


def _is_odd(one: str) -> bool:
    """Say whether a character is not seen, or turns the order of what stands beside it round."""
    return not one.isprintable() or unicodedata.bidirectional(one) in _TURNS


def _depth(text: str) -> int:
    """Say how deep lists and objects lie in JSON; texts may hold brackets."""
    deepest = depth = 0
    for part in _PARTS.findall(text):
        if part in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif part in "]}":
            depth -= 1
    return deepest

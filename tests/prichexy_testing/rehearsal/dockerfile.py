"""The text of a Dockerfile as a sequence of instructions. Pure, and strict."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DockerfileError",
    "Instruction",
    "exec_form",
    "pairs",
    "parse",
    "substitute",
    "words",
]

KEYWORDS: Final = frozenset(
    {
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "RUN",
        "USER",
        "WORKDIR",
    }
)
_FLAG: Final = re.compile(r"--([a-z-]+)=(\S+)\s*")
_VARIABLE: Final = re.compile(
    r"\\(?P<escaped>.)|\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})"
)


class DockerfileError(Exception):
    """A Dockerfile that the rehearsal cannot follow to the letter; the text names the line."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: ``COPY --chown=0:0 a b`` has one flag and the text ``a b``."""

    keyword: str
    flags: Mapping[str, str]
    text: str
    line: int

    def refuse(self, why: str) -> DockerfileError:
        """Give the error that names this instruction."""
        return DockerfileError(f"line {self.line}: {self.keyword}: {why}")


def parse(text: str) -> tuple[Instruction, ...]:
    """Give the instructions in order. Raises DockerfileError for what is not rehearsed."""
    instructions = [_instruction(line, content) for line, content in _logical_lines(text)]
    if not any(instruction.keyword == "FROM" for instruction in instructions):
        raise DockerfileError("there is no FROM")
    return tuple(instructions)


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Join continued lines; drop comments and empty lines, also within a continuation."""
    joined: list[tuple[int, str]] = []
    started, pending = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if re.match(r"#\s*(escape|syntax|check)\s*=", stripped, re.IGNORECASE) and not joined:
            raise DockerfileError(f"line {number}: parser directives are not rehearsed")
        if not stripped or stripped.startswith("#"):
            continue
        started = started or number
        if stripped.endswith("\\"):
            pending += line.rstrip()[:-1]
            continue
        joined.append((started, (pending + line).strip()))
        started, pending = 0, ""
    if pending:
        raise DockerfileError(f"line {started}: the last line is continued")
    return joined


def _instruction(line: int, content: str) -> Instruction:
    keyword, _, rest = content.partition(" ")
    keyword = keyword.upper()
    if keyword not in KEYWORDS:
        raise DockerfileError(f"line {line}: {keyword} is not rehearsed")
    flags: dict[str, str] = {}
    rest = rest.strip()
    while found := _FLAG.match(rest):
        flags[found[1]] = found[2]
        rest = rest[found.end() :]
    instruction = Instruction(keyword, flags, rest, line)
    if not rest:
        raise instruction.refuse("is empty")
    if "<<" in rest:
        raise instruction.refuse("here-documents are not rehearsed")
    return instruction


def exec_form(instruction: Instruction) -> tuple[str, ...] | None:
    """Give the words of ``["a", "b"]``, or None when the text is a shell command."""
    text = instruction.text
    if not text.startswith("["):
        return None
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise instruction.refuse("is neither a JSON list nor a command") from error
    if not listed or not all(isinstance(word, str) for word in listed):
        raise instruction.refuse("the list must hold strings")
    return tuple(listed)


def words(instruction: Instruction) -> list[str]:
    """Split as a shell would, quotes removed."""
    try:
        return shlex.split(instruction.text)
    except ValueError as error:
        raise instruction.refuse("the quotes do not match") from error


def pairs(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """Give the ``key=value`` pairs of ENV or LABEL, values substituted from ``variables``."""
    found: dict[str, str] = {}
    for word in words(instruction):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise instruction.refuse("only KEY=VALUE is rehearsed")
        found[key] = substitute(value, variables)
    return found


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$NAME``, ``${NAME}`` and ``${NAME:-default}``; what is unknown becomes empty."""

    def value(found: re.Match[str]) -> str:
        if found["escaped"] is not None:
            return found["escaped"]
        known = variables.get(found["plain"] or found["name"], "")
        return known or found["default"] or ""

    return _VARIABLE.sub(value, text)

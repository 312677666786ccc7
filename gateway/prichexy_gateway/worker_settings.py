"""The settings of the worker that ``prichexy serve`` starts: its own, and what a file adds."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prichexy_gateway.errors import Failed, Misconfigured
from prichexy_worker.settings import CONFIG_VARIABLE, Settings, load_settings

__all__ = [
    "IN_ENVIRONMENT",
    "Sections",
    "export_elsewhere",
    "load_settings_at",
    "merged",
    "read_sections",
    "toml",
]

Setting = str | float | bool | list[str]
#: By their names; a section of a section, such as ``targets.research``, by both with a point.
Sections = Mapping[str, Mapping[str, Setting]]

#: Where this is set, as in an image, a worker is configured without a file.
IN_ENVIRONMENT: Final = "PRICHEXY_WORKER_INGEST__URL"
_TARGETS: Final = "targets."
#: What names the parts that ``prichexy serve`` starts itself.
_OURS: Final[Mapping[str, frozenset[str]]] = {
    "ingest": frozenset({"url", "user", "password_file", "ca_file"}),
    "broker": frozenset({"url", "password_file", "queue"}),
}


def read_sections(path: Path) -> Sections:
    """Read the file that adds to the worker's settings.

    Only its form is checked here; the values are checked together with the generated ones. Raises
    Misconfigured, naming a key and never its value.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"--worker-config cannot be read ({error.strerror})") from None
    except ValueError:  # of the decoder, too; its text may show a piece of the file
        raise Misconfigured("--worker-config is not TOML") from None
    targets = data.pop("targets", {})
    if not isinstance(targets, Mapping):
        raise Misconfigured("--worker-config: targets is no section")
    data |= {f"{_TARGETS}{name}": section for name, section in targets.items()}
    for name, section in data.items():
        if not isinstance(section, Mapping):
            raise Misconfigured(f"--worker-config: {name} is no section")
        if "password" in section:
            raise Misconfigured(f"--worker-config: {name}.password; name a password_file instead")
        taken = sorted(_OURS.get(name, frozenset()) & set(section))
        if taken:
            raise Misconfigured(
                f"--worker-config: {name}.{taken[0]} is set by `prichexy serve`, which starts "
                "that part itself"
            )
        for key, value in section.items():
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not texts and not isinstance(value, str | int | float | bool):
                raise Misconfigured(
                    f"--worker-config: {name}.{key} is no text, list of texts, number or boolean"
                )
    return data


def merged(generated: Sections, given: Sections) -> Sections:
    """Give both, key by key; what is given wins.

    Given export targets stand alone: our own peer's password must not be sent to another one.
    """
    result = {name: dict(values) for name, values in generated.items()}
    if any(name.startswith(_TARGETS) for name in given):
        result.pop("export", None)
    for name, values in given.items():
        if name == "export" and "kind" in values:
            result[name] = dict(values)
        else:
            result.setdefault(name, {}).update(values)
    return result


def export_elsewhere(given: Sections) -> bool:
    """Tell whether what is given names the export targets: then none of ours is started."""
    named = any(name.startswith(_TARGETS) for name in given)
    return named or "kind" in given.get("export", {})


def load_settings_at(path: Path) -> Settings:
    """Read a worker's settings from ``path``, or from the environment where it holds them all.

    Raises Misconfigured, Failed when there is no such file.
    """
    if path.is_file():
        with _environment(CONFIG_VARIABLE, str(path)):
            return load_settings()
    if IN_ENVIRONMENT not in os.environ:
        raise Failed(f"{path} does not exist. Start a gateway (prichexy serve), or name one.")
    return load_settings()


@contextmanager
def _environment(variable: str, value: str) -> Iterator[None]:
    """Set a variable for the length of the block."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def toml(sections: Sections) -> str:
    """Write flat sections as TOML."""
    lines = ["# Written by `prichexy serve` at each start.\n"]
    for name, values in sections.items():
        lines.append(f"\n[{'.'.join(_key(part) for part in name.split('.', 1))}]\n")
        lines.extend(f"{key} = {_value(value)}\n" for key, value in values.items())
    return "".join(lines)


def _key(name: str) -> str:
    """Give a key, quoted where it may not stand as it is."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Setting) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)

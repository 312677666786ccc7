"""Keyed pseudonyms: what stands in the place of patients' and objects' identifiers.

Every pseudonym is HMAC-SHA256 of the original under one 256-bit key, each kind in a domain of its
own, and each project's, where a project profile names one. The same key gives the same pseudonym
on every machine and in every run, so studies that are sent one by one still belong together;
without the key nobody can test a guessed identifier (PS3.15 E.1.1: unkeyed hashes should be
avoided). Who holds the key can: the output is pseudonymous in the sense of the GDPR, not anonymous,
and the key belongs in no output folder and no backup of one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
import unicodedata
import uuid
from pathlib import Path
from typing import Final, Self

from prichexy_worker.errors import Misconfigured

__all__ = ["KEY_BYTES", "Pseudonyms"]

KEY_BYTES: Final = 32
_MODES: Final = frozenset({0o600, 0o400})
_KEY_LINE: Final = re.compile(rb"[0-9a-f]{64}\n?")
#: Part of every HMAC: another meaning of these functions needs another version here.
_VERSION: Final = b"prichexy-1"
_PROJECT_VERSION: Final = b"prichexy-1 project"
#: Dates are moved by at least a day and at most about ten years.
_MOST_DAYS: Final = 3653


class Pseudonyms:
    """Pseudonyms under one key. Immutable; its text shows ``key_id`` and never the key."""

    __slots__ = ("_key", "_prefix", "_version", "key_id")

    def __init__(self, key: bytes, *, project: str = "", prefix: str = "PX-") -> None:
        """Take a key of ``KEY_BYTES`` random bytes. Raises ValueError at any other length.

        Two projects have unrelated pseudonyms under one key. ``prefix`` begins patients'.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"a pseudonym key has {KEY_BYTES} bytes")
        self._key = key
        self._prefix = prefix
        self._version: tuple[str | bytes, ...] = (_VERSION,)
        #: 16 hexadecimal digits that name the key in reports and tell nothing about it.
        self.key_id: str = self._digest("key id").hex()[:16]
        if project:
            self._version = (_PROJECT_VERSION, project)

    def __repr__(self) -> str:
        return f"Pseudonyms(key_id={self.key_id!r})"

    @classmethod
    def of_the_moment(cls) -> Self:
        """Give pseudonyms under a new key that is kept nowhere: nobody's ever again."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_key_file(cls, path: Path) -> Self:
        """Read the key that ``create_key_file`` wrote.

        Raises Misconfigured when the file is absent, readable by anyone but its owner (its mode
        is neither 0600 nor 0400), or holds no key.
        """
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(KEY_BYTES * 2 + 2)
        except OSError as error:
            raise Misconfigured(
                f"pseudonyms.key_file: cannot be read ({error.strerror}); "
                "create one or name the file that holds the key"
            ) from error
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or mode not in _MODES:
            raise Misconfigured(
                f"pseudonyms.key_file: its mode is {mode:04o}; make it a file that only its owner "
                "can read (chmod 600)"
            )
        try:
            return cls.from_text(content)
        except ValueError as error:
            raise Misconfigured(f"pseudonyms.key_file: {error}") from None

    @classmethod
    def from_text(cls, content: bytes) -> Self:
        """Take what a key file holds. Raises ValueError, which tells nothing of it."""
        if not _KEY_LINE.fullmatch(content):
            raise ValueError("holds no key of 64 hexadecimal digits")
        return cls(bytes.fromhex(content.decode("ascii")))

    @classmethod
    def create_key_file(cls, path: Path) -> Self:
        """Write a new random key to ``path`` (mode 0600) and give its pseudonyms.

        An existing file is never overwritten: who loses a key loses the link between all that was
        exported before and after. Raises Misconfigured when the file exists or cannot be written.
        """
        key = secrets.token_bytes(KEY_BYTES)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(key.hex().encode("ascii") + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Misconfigured(
                f"pseudonyms.key_file: cannot be created ({error.strerror})"
            ) from error
        return cls(key)

    def of_project(self, project: str, prefix: str = "PX-") -> Self:
        """Give the pseudonyms of a project under the same key."""
        return type(self)(self._key, project=project, prefix=prefix)

    def patient_id(self, patient_id: str, issuer: str = "", *, study_uid: str = "") -> str:
        """Give the pseudonym of a patient: the prefix and 24 characters of A-Z and 2-7.

        The same ID under two issuers is two patients. Leading and trailing spaces mean nothing,
        as in DICOM. A blank ``patient_id`` must not make one patient of all who lack an ID: the
        pseudonym is then that of ``study_uid``, and ValueError is raised when that is blank too.
        """
        digest = self._of_patient("patient", patient_id, issuer, study_uid)
        return f"{self._prefix}{_letters(digest, 24)}"

    def patient_name(self, patient_id: str, issuer: str = "", *, study_uid: str = "") -> str:
        """Give the name that goes with ``patient_id(...)``, as a PN value in ASCII.

        It is made of the ID, not of the name: how a name was spelt neither tells two exports of
        one patient apart nor joins two patients of one name.
        """
        return f"PRICHEXY^{self.patient_id(patient_id, issuer, study_uid=study_uid)}"

    def days_earlier(self, patient_id: str, issuer: str = "", *, study_uid: str = "") -> int:
        """Give by how many days a patient's dates are moved, from 1 to 3653.

        The same for all studies of a patient, so that what lies between them is kept. Of whom the
        number is, as with ``patient_id(...)``, ValueError included.
        """
        digest = self._of_patient("days", patient_id, issuer, study_uid)
        return 1 + int.from_bytes(digest, "big") % _MOST_DAYS

    def uid(self, uid: str) -> str:
        """Give the UID that stands for ``uid`` in every object: "2.25." and a UUID of version 8.

        Raises ValueError when ``uid`` is blank.
        """
        original = uid.strip(" \0")
        if not original:
            raise ValueError("no UID to make a pseudonym of")
        number = int.from_bytes(self._digest("uid", original)[:16], "big")
        number = number & ~(0xF << 76) | 0x8 << 76  # RFC 9562: version 8, "custom"
        number = number & ~(0x3 << 62) | 0x2 << 62  # RFC 9562: the variant
        return f"2.25.{uuid.UUID(int=number).int}"

    def accession_number(self, accession_number: str, issuer: str = "") -> str:
        """Give the pseudonym of an Accession Number, 16 characters; blank stays blank."""
        original = _text(accession_number)
        if not original:
            return ""
        return _letters(self._digest("accession number", _text(issuer), original), 16)

    def opaque(self, domain: str, content: bytes) -> str:
        """Give 32 hexadecimal digits that stand for ``content``, for names of files and reports.

        Two domains give unrelated results for the same content.
        """
        return self._digest("opaque", domain, content).hex()[:32]

    def _of_patient(self, domain: str, patient_id: str, issuer: str, study_uid: str) -> bytes:
        identity = _text(patient_id)
        if identity:
            return self._digest(domain, _text(issuer), identity)
        if study := _text(study_uid):
            return self._digest(f"{domain} of a study without an id", study)
        raise ValueError("neither a PatientID nor a StudyInstanceUID to make a pseudonym of")

    def _digest(self, domain: str, *parts: str | bytes) -> bytes:
        # Each part goes in with its length, so that ("ab", "c") and ("a", "bc") differ.
        message = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (*self._version, domain, *parts):
            content = part.encode() if isinstance(part, str) else part
            message.update(len(content).to_bytes(8, "big"))
            message.update(content)
        return message.digest()


def _text(value: str) -> str:
    """Give ``value`` in one form of Unicode and without the padding of its DICOM encoding."""
    return unicodedata.normalize("NFC", value).strip(" \0")


def _letters(digest: bytes, length: int) -> str:
    return base64.b32encode(digest).decode("ascii")[:length]

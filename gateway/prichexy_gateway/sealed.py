"""What only certain people may read: age encryption to their public keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyrage

from prichexy_gateway.errors import Misconfigured

__all__ = ["check_recipients", "seal", "unseal"]


def seal(content: bytes, recipients: Sequence[str]) -> bytes:
    """Encrypt to every age recipient; any of them can decrypt it: ``age --decrypt -i KEY``.

    Raises Misconfigured where one is no recipient, or there is none.
    """
    return bytes(pyrage.encrypt(content, _parsed(recipients)))


def check_recipients(recipients: Sequence[str]) -> None:
    """Raise Misconfigured for what ``seal`` would refuse."""
    _parsed(recipients)


def unseal(content: bytes, identity_file: Path) -> bytes:
    """Decrypt with a file of age-keygen. Raises Misconfigured when its keys do not open it."""
    try:
        lines = identity_file.read_text(encoding="utf-8").splitlines()
        keys = [line.strip() for line in lines if line.startswith("AGE-SECRET-KEY-")]
        identities = [pyrage.x25519.Identity.from_str(key) for key in keys]
    except (OSError, ValueError, pyrage.IdentityError):
        identities = []
    if not identities:
        raise Misconfigured(f"{identity_file}: no file of age-keygen that can be read")
    try:
        return bytes(pyrage.decrypt(content, identities))
    except pyrage.DecryptError:
        raise Misconfigured(f"{identity_file}: its keys do not open what was sealed") from None


def _parsed(recipients: Sequence[str]) -> list[pyrage.x25519.Recipient]:
    if not recipients:
        raise Misconfigured("this is never written in the clear: name a --recipient")
    known = []
    for number, recipient in enumerate(recipients, start=1):
        try:
            known.append(pyrage.x25519.Recipient.from_str(recipient.strip()))
        except pyrage.RecipientError:
            raise Misconfigured(
                f"recipient {number} is none of age's (age1…): make a pair with age-keygen"
            ) from None
    return known

"""What all sections of the worker's settings have in common: strict, frozen, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

__all__ = ["Section", "WithPassword", "address"]


class Section(BaseModel):
    """A section: frozen, no unknown key, and no value of it in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class WithPassword(Section):
    """A section with a secret, given in one of two ways."""

    password: SecretStr | None = None  # by environment variable only
    password_file: Path | None = None  # one line; a line break at its end is not part of it

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both given; keep one")
        if self.password_file is not None:
            self.secret()
        return self

    def secret(self) -> str | None:
        """Give the password, or None. Raises ValueError when its file cannot be used."""
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        try:
            text = self.password_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"password_file cannot be read ({type(error).__name__})") from None
        if not text.rstrip("\r\n"):
            raise ValueError("password_file is empty")
        return text.rstrip("\r\n")


def address(url: str, schemes: tuple[str, ...]) -> str:
    """Give ``url`` without a slash at its end. Raises ValueError that does not repeat it."""
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or parts.username is not None
        known = parts.scheme in schemes and bool(parts.hostname or parts.path.strip("/"))
        parts.port  # noqa: B018 - raises ValueError for a port that is no number
    except ValueError:
        raise ValueError("not an address") from None
    if not known:
        raise ValueError(f"not an address that starts with {' or '.join(schemes)}")
    if secret:
        raise ValueError("holds a user or a password: use the keys user, password_file")
    return url.rstrip("/")

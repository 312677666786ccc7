"""The part of Orthanc's ``orthanc`` module that the plugin uses, as a port.

The module exists only inside Orthanc, so it is handed to whoever needs it; tests hand in
``prichexy_testing.fake_orthanc``.
"""

# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Host", "Output", "send_status"]


class Output(Protocol):
    """The answer to one HTTP request (``orthanc.RestOutput``)."""

    def AnswerBuffer(self, body: str | bytes, mime: str, /) -> None:
        """Answer 200 with ``body``."""

    def SendHttpStatus(self, status: int, body: str | bytes, size: int = ..., /) -> None:
        """Answer ``status``; see ``send_status``."""

    def SendMethodNotAllowed(self, allowed: str, /) -> None:
        """Answer 405 with the header Allow, no other and no body."""

    def SetHttpHeader(self, key: str, value: str, /) -> None:
        """Add a header; must come before the answer."""


class Host(Protocol):
    """The module itself. Every callable here is in plugin 4.0 and in all later ones."""

    ChangeType: Any
    ErrorCode: Any
    HttpMethod: Any

    @property
    def OrthancException(self) -> type[Exception]:
        """Give the class of what RestApiGet raises; its ``args`` are a code and a text."""
        ...

    def ExtendOrthancExplorer(self, script: str, /) -> None:
        """Add JavaScript to the old Orthanc Explorer."""

    def GetConfiguration(self) -> str:
        """Give the configuration as JSON, environment variables expanded."""
        ...

    def GetConfigurationPath(self) -> str:
        """Give the path of the configuration's file or folder."""
        ...

    def GetGlobalProperty(self, name: int, default: str, /) -> str:
        """Give a value that Orthanc's database keeps; raises OrthancException."""
        ...

    def LogError(self, text: str, /) -> None:
        """Write to Orthanc's log."""

    def LogWarning(self, text: str, /) -> None:
        """Write to Orthanc's log."""

    def RegisterIncomingHttpRequestFilter(self, callback: Callable[..., bool], /) -> None:
        """Ask ``callback`` about every HTTP request."""

    def RegisterOnChangeCallback(self, callback: Callable[[int, int, str], Any], /) -> None:
        """Tell ``callback`` of every change."""

    def RegisterRestCallback(self, pattern: str, callback: Callable[..., None], /) -> None:
        """Let ``callback`` answer the addresses that match ``pattern``."""

    def RestApiDelete(self, path: str, /) -> Any:
        """DELETE at Orthanc's own REST API; raises OrthancException. Not before ORTHANC_STARTED."""
        ...

    def RestApiGet(self, path: str, /) -> bytes:
        """GET from Orthanc's own REST API; raises OrthancException. Not before ORTHANC_STARTED."""
        ...

    def RestApiPost(self, path: str, body: bytes, /) -> bytes:
        """POST to Orthanc's own REST API; raises OrthancException. Not before ORTHANC_STARTED."""
        ...

    def RestApiPut(self, path: str, body: bytes, /) -> bytes:
        """PUT to Orthanc's own REST API; raises OrthancException. Not before ORTHANC_STARTED."""
        ...

    def SetGlobalProperty(self, name: int, value: str, /) -> None:
        """Have Orthanc's database keep a value; raises OrthancException."""


def send_status(output: Output, status: int, body: str) -> None:
    """Answer ``status`` with ``body``, in the way that this version of the Python plugin takes.

    Plugin 4 takes the text and its size in bytes, plugin 5 the bytes. Each refuses the other's way
    with a TypeError before anything is sent.
    """
    encoded = body.encode()
    try:
        output.SendHttpStatus(status, encoded)
    except TypeError:
        output.SendHttpStatus(status, body, len(encoded))

"""How this worker speaks to an Orthanc: one client, and one rule for answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pyorthanc

from prichexy_worker.bounded_http import AnswerTooLong, bounded_transport
from prichexy_worker.contract import Reason
from prichexy_worker.errors import Retryable
from prichexy_worker.tls import client_context

__all__ = ["ask", "connect"]

#: Answers of a proxy that stands before an Orthanc that does not answer.
_PROXY_WITHOUT_ORTHANC: Final = frozenset({502, 503, 504})


def connect(
    url: str,
    user: str,
    password: str | None,
    ca_file: Path | None,
    timeout: float,
    *,
    certificate_file: Path | None = None,
    key_file: Path | None = None,
) -> pyorthanc.Orthanc:
    """Give a client of the Orthanc at ``url`` for one thread; nothing is sent yet.

    Each request takes ``timeout`` seconds at most, with all of its answer.
    Its calls return the raw response, whatever the status: pyorthanc's own errors carry the body.
    Proxy settings of the environment are not used: images go to the address of the settings.
    The files are those of ``tls.client_context``. Raises Misconfigured when one cannot be used.
    """
    return pyorthanc.Orthanc(
        url,
        user,
        password,
        return_raw_response=True,
        timeout=timeout,
        transport=bounded_transport(client_context(ca_file, certificate_file, key_file), timeout),
        trust_env=False,
        # Asked for gzip, as httpx does, Orthanc compresses 10 MB in half a second a piece.
        headers={"Accept-Encoding": "identity"},
    )


def ask(
    call: Callable[[], httpx.Response], unreachable: Reason, refused: Reason
) -> httpx.Response | None:
    """Give the response of ``call`` when it is a success, None when it is 404.

    Raises Retryable with ``unreachable`` when no answer came, with ``refused`` for any other
    status, and for an answer that is too long. The detail is an error's class or a status number,
    never an address or a body.
    """
    try:
        response = call()
    except AnswerTooLong as error:
        raise Retryable(refused, type(error).__name__) from None
    except httpx.HTTPError as error:
        raise Retryable(unreachable, type(error).__name__) from None
    if response.is_success:
        return response
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    proxy_alone = response.status_code in _PROXY_WITHOUT_ORTHANC
    raise Retryable(unreachable if proxy_alone else refused, f"HTTP {response.status_code}")

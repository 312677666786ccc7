"""What is served when the plugin's packages cannot be loaded. Standard library only."""

from __future__ import annotations

import html
import json
from typing import Any

from prichexy_plugin.host import Host, Output, send_status

__all__ = ["Fallback", "build", "explain"]

_ADVICE = (
    "Orthanc receives and serves as before; studies are not handed on until this is mended and "
    "Orthanc is started again. Check that PYTHONPATH names the plugin's environment "
    "(script/bootstrap makes it), then run: prichexy doctor"
)


def explain(problem: BaseException) -> str:
    """Say what failed; the text of an import error names a package and nothing else."""
    name = type(problem).__name__
    return f"{name}: {problem}" if isinstance(problem, ImportError) else name


class Fallback:
    """Serves the reason at the dashboard's address and at the API's."""

    def __init__(self, text: str) -> None:
        self._text = text

    def on_change(self, _change: int) -> None:
        """Hear of a change and do nothing."""

    def on_admitted(self, _uri: str, **_request: Any) -> None:
        """Hear of a request and do nothing."""

    def on_request(self, output: Output, uri: str, **_request: Any) -> None:
        """Say why the plugin does not run; 503 to programs."""
        output.SetHttpHeader("Cache-Control", "no-store")
        if uri.startswith("/prichexy/api/"):
            output.SetHttpHeader("Content-Type", "application/json")
            send_status(output, 503, json.dumps({"problems": [self._text], "error": self._text}))
            return
        # With another status Orthanc 1.12.7 adds a text/plain of its own.
        output.AnswerBuffer(
            "<!doctype html><html lang=en><meta charset=utf-8><title>PriCheXy</title>"
            f"<h1>PriCheXy is not running</h1><p>{html.escape(self._text)}"
            f"<p>{html.escape(_ADVICE)}",
            "text/html; charset=utf-8",
        )


def build(orthanc: Host, problem: BaseException) -> Fallback:
    """Log why the plugin could not be loaded and give what says so to everybody."""
    text = f"The PriCheXy plugin could not be loaded. {explain(problem)}."
    orthanc.LogError(f"{text} {_ADVICE}")
    return Fallback(text)

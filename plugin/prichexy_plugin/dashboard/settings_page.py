"""The settings in force, to be read only."""

from __future__ import annotations

from collections.abc import Sequence

from prichexy_plugin.dashboard.frame import Visit, render
from prichexy_plugin.dashboard.http import Response
from prichexy_plugin.dashboard.needs import troubles_of
from prichexy_plugin.dashboard.view import Overview
from prichexy_plugin.effective import Setting

__all__ = ["settings_page"]


def settings_page(settings: Sequence[Setting], overview: Overview, visit: Visit) -> Response:
    """Show them; there are none with a wrong configuration, and then the page says what is."""
    needs = () if settings else tuple(troubles_of(overview))
    return render("settings.html", visit, settings=settings, needs=needs)

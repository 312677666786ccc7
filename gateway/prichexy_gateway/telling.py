"""Tells the plugin of a running gateway what the command line did; see ``deeds``."""

from __future__ import annotations

from prichexy_gateway import deeds
from prichexy_gateway.errors import Failed
from prichexy_gateway.home import Home
from prichexy_gateway.services import ingest_client

__all__ = ["tell"]


def tell(home: Home) -> None:
    """Tell the plugin that runs in ``home`` what was noted, where one runs.

    Raises Failed, also when a line of it cannot be read: all others were told then.
    """
    try:
        addresses = home.addresses()
    except Failed:
        return  # none runs here: `prichexy serve` tells it at its start
    with ingest_client(home, addresses) as client:
        client.tell_deeds(deeds.noted(home))
    deeds.check_read(home)

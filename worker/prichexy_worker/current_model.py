"""The generator in use, and its exchange between two studies.

``model.bundle`` may be a link, such as ``current`` of a model store (docs/decisions/0008). A worker
looks where it points before it takes a study, and every few seconds while it has none. A study
that has begun is not touched: it keeps the tools it was given, and so has one model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prichexy_worker.errors import Misconfigured
from prichexy_worker.logs import where
from prichexy_worker.pipeline import Clock, Tools

if TYPE_CHECKING:
    from prichexy_worker.engine import Engine

__all__ = ["LOOK_SECONDS", "CurrentModel"]

_LOG: Final = logging.getLogger(__name__)

#: Between two looks of a worker that has no study.
LOOK_SECONDS: Final = 5.0
#: Until a bundle that could not be loaded is tried again, and complained of again.
_RETRY_SECONDS: Final = 60.0


class CurrentModel:
    """Gives the tools for the next study. For one thread: the one that works on the studies."""

    def __init__(
        self,
        bundle: Path,
        tools: Tools,
        engine: Engine,
        load: Callable[[Path], Engine],
        announce: Callable[[Engine], None],
        clock: Clock = time.monotonic,
    ) -> None:
        """Begin with ``engine``, which is in ``tools`` and was loaded from the folder it names.

        ``load`` gives the engine of a bundle's folder or raises Misconfigured; ``announce`` is
        told of each engine that is taken up.
        """
        self._bundle = bundle
        self._tools = tools
        self._engine = engine
        self._load = load
        self._announce = announce
        self._clock = clock
        self._refused: tuple[Path, float] | None = None  # and when to try it again

    def tools(self) -> Tools:
        """Give what the next study is anonymised with: with the model that is in use now."""
        self.look()
        _LOG.info("next with model %s", self._engine.model.digest[:12])
        return self._tools

    def look(self) -> None:
        """Take up the bundle that the setting names now, if it is another one.

        Never raises: what cannot be loaded is complained of, and the model in use stays in use.
        """
        try:
            named = self._bundle.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            named = self._bundle
            if self._is_due(named):
                self._keep(named, f"it cannot be found ({type(error).__name__})")
            return
        if named == self._engine.folder:
            self._refused = None
            return
        if not self._is_due(named):
            return
        try:
            engine = self._load(named)
        except Misconfigured as error:
            self._keep(named, str(error))
        except Exception as error:  # noqa: BLE001 - no memory, a broken GPU: studies must go on
            self._keep(named, where(error))
        else:
            self._take_up(engine)

    def _is_due(self, named: Path) -> bool:
        if self._refused is None:
            return True
        refused, again_at = self._refused
        return named != refused or self._clock() >= again_at

    def _keep(self, named: Path, why: str) -> None:
        self._refused = named, self._clock() + _RETRY_SECONDS
        _LOG.error(
            "THE MODEL IN USE STAYS %s: the bundle in %s cannot be loaded, and is tried again "
            "each minute: %s",
            self._engine.model.digest[:12],
            named,
            why,
        )

    def _take_up(self, engine: Engine) -> None:
        before, self._engine = self._engine, engine
        self._tools = replace(self._tools, engine=engine)
        self._refused = None
        model = engine.model
        _LOG.info(
            "took up model %s, %s, in place of %s: %s",
            model.digest[:12],
            model.evidence,
            before.model.digest[:12],
            model.statement,
        )
        self._announce(engine)

"""``prichexy doctor``: checks an installation and says what to do."""

from __future__ import annotations

import typer
from rich.console import Console

from prichexy_gateway.commands.options import HomeOption, WorkerConfigOption, home_at

__all__ = ["doctor"]


def doctor(
    home: HomeOption = None,
    worker_config: WorkerConfigOption = None,
) -> None:
    """Check Orthanc, plugin, Redis, workers, export target, model and key; say what to do.

    Exit codes: 0 all is well; 1 a check failed; 2 the settings cannot be read.
    """
    from prichexy_gateway.doctor import examine  # noqa: PLC0415
    from prichexy_gateway.services import worker_configuration  # noqa: PLC0415
    from prichexy_gateway.worker_settings import load_settings_at  # noqa: PLC0415

    path = worker_config
    if path is None:
        path = worker_configuration(home_at(home))
    settings = load_settings_at(path)
    console = Console(highlight=False)
    failed = 0
    for check in examine(settings):
        console.print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.finding}")
        if not check.ok:
            failed += 1
            console.print(f"      {check.remedy}")
    console.print("All is well." if not failed else f"{failed} checks failed.")
    raise typer.Exit(1 if failed else 0)

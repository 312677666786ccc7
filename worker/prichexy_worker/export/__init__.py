"""Export targets: where anonymised studies go."""

from __future__ import annotations

from prichexy_worker import settings
from prichexy_worker.errors import Misconfigured
from prichexy_worker.export.folder import FolderExport
from prichexy_worker.export.orthanc import OrthancExport
from prichexy_worker.orthanc_client import connect
from prichexy_worker.ports import ExportTarget

__all__ = ["FolderExport", "OrthancExport", "create_target"]


def create_target(export: settings.Export) -> ExportTarget:
    """Give the target that the settings describe; nothing is sent or written yet."""
    if export.kind == "folder" and export.folder is not None:
        return FolderExport(export.folder)
    if export.kind == "orthanc" and export.url is not None:
        password = export.secret()
        return OrthancExport(
            connect(export.url, export.user, password, export.ca_file, export.timeout)
        )
    raise Misconfigured(f'export: kind "{export.kind}" lacks its url or folder')

"""Export targets: where anonymised studies go."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from prichexy_worker.bounded_http import bounded_transport
from prichexy_worker.destinations import Destinations
from prichexy_worker.export.dicom_node import Commitment, DicomNodeExport, Node
from prichexy_worker.export.dicomweb import BearerFile, DicomwebExport
from prichexy_worker.export.folder import FolderExport
from prichexy_worker.export.orthanc import OrthancExport
from prichexy_worker.export.png_folder import PngFolderExport
from prichexy_worker.orthanc_client import connect
from prichexy_worker.ports import ExportTarget
from prichexy_worker.target_settings import (
    DicomNode,
    Dicomweb,
    Folder,
    PngFolder,
    Target,
    default_names,
)
from prichexy_worker.tls import client_context, server_context

__all__ = [
    "DicomNodeExport",
    "DicomwebExport",
    "FolderExport",
    "OrthancExport",
    "PngFolderExport",
    "create_destinations",
    "create_target",
]


def create_destinations(targets: Mapping[str, Target]) -> Destinations:
    """Give the targets that the settings describe; nothing is sent or written yet.

    Raises Misconfigured.
    """
    made = {name: create_target(target) for name, target in targets.items()}
    return Destinations(made, default_names(targets))


def create_target(target: Target) -> ExportTarget:
    """Give one target; nothing is sent or written yet. Raises Misconfigured."""
    if isinstance(target, Folder):
        return FolderExport(target.folder, target.marker)
    if isinstance(target, PngFolder):
        return PngFolderExport(target.folder, target.marker)
    if isinstance(target, Dicomweb):
        return DicomwebExport(_dicomweb_client(target), deletes=target.delete)
    if isinstance(target, DicomNode):
        return _dicom_node(target)
    return OrthancExport(
        connect(
            target.url,
            target.user,
            target.secret(),
            target.ca_file,
            target.timeout,
            certificate_file=target.certificate_file,
            key_file=target.key_file,
        )
    )


def _dicom_node(target: DicomNode) -> DicomNodeExport:
    files = target.ca_file, target.certificate_file, target.key_file
    node = Node(
        host=target.host,
        port=target.port,
        called_aet=target.called_aet,
        calling_aet=target.calling_aet,
        timeout=target.timeout,
        tls=client_context(*files) if target.tls else None,
    )
    if not target.commitment:
        return DicomNodeExport(node)
    called_back = None
    if target.tls and target.certificate_file is not None and target.key_file is not None:
        called_back = server_context(target.ca_file, target.certificate_file, target.key_file)
    return DicomNodeExport(
        node, Commitment(target.commitment_seconds, target.commitment_port, called_back)
    )


def _dicomweb_client(target: Dicomweb) -> httpx.Client:
    login: httpx.Auth | None = None
    if target.user is not None:
        login = httpx.BasicAuth(target.user, target.secret() or "")
    elif target.token_file is not None:
        login = BearerFile(target.token_file)
    return httpx.Client(
        base_url=target.url,
        auth=login,
        timeout=target.timeout,
        transport=bounded_transport(
            client_context(target.ca_file, target.certificate_file, target.key_file),
            target.timeout,
        ),
        # Images go to the address of the settings, and pixels do not shrink on the way.
        trust_env=False,
        headers={"Accept-Encoding": "identity"},
    )

"""multipart/related with DICOM files: what STOW-RS sends and WADO-RS answers (PS3.18 8.6.1.2)."""

from __future__ import annotations

import uuid
from email.message import Message
from typing import Final

__all__ = ["DICOM", "MultipartError", "pack", "unpack"]

DICOM: Final = "application/dicom"


class MultipartError(ValueError):
    """Not a multipart answer, or not a whole one; the text holds nothing of it."""


def pack(content: bytes) -> tuple[str, bytes]:
    """Give the media type and the body that carry one DICOM file."""
    boundary = uuid.uuid4().hex
    body = b"".join(
        [
            f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode(),
            content,
            f"\r\n--{boundary}--\r\n".encode(),
        ]
    )
    return f'multipart/related; type="{DICOM}"; boundary={boundary}', body


def unpack(media_type: str, body: bytes) -> tuple[bytes, ...]:
    """Give the content of each part. Raises MultipartError.

    The body must be there up to its closing delimiter, so half an answer is none.
    """
    header = Message()
    header["Content-Type"] = media_type
    boundary = header.get_param("boundary")
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str):
        raise MultipartError("not multipart")
    delimiter = f"\r\n--{boundary}".encode()
    preamble, *parts = (b"\r\n" + body).split(delimiter)
    if preamble.strip() or not parts or not parts[-1].startswith(b"--"):
        raise MultipartError("not whole")
    contents = []
    for part in parts[:-1]:
        _head, separator, content = part.partition(b"\r\n\r\n")
        if not separator or not part.startswith(b"\r\n"):
            raise MultipartError("a part has no header")
        contents.append(content)
    return tuple(contents)

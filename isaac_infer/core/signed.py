"""Signed: picture files that say which program wrote them, so that it replaces no others."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SUFFIXES = '.png', '.jpg', '.jpeg'
_PNG_HEAD = 33  # bytes before the first text: magic and size
_JPEG_BEGIN = b'\xff\xd8'


def signed(picture: bytes, *, by: str) -> bytes:
    """Put into a PNG or JPEG file who wrote it."""
    signature = _signature(by)
    if picture.startswith(_JPEG_BEGIN):
        return _JPEG_BEGIN + b'\xff\xfe' + struct.pack('>H', len(signature) + 2) + signature + picture[2:]
    chunk = b'tEXt' + signature
    framed = struct.pack('>I', len(signature)) + chunk + struct.pack('>I', zlib.crc32(chunk))
    return picture[:_PNG_HEAD] + framed + picture[_PNG_HEAD:]


def is_signed(path: Path, *, by: str) -> bool:
    """Tell whether a file is empty, or a picture that was signed so."""
    signature = _signature(by)
    with path.open('rb') as file:
        head = file.read(_PNG_HEAD + len(signature) + 8)
    return not head or signature in head


def _signature(by: str) -> bytes:
    return b'Software\0isaac_infer ' + by.encode()  # as the texts of PNG files have it

"""What kind of image a file is, by its first bytes; for dialects that must say so. Knows no dialect."""

from __future__ import annotations

import base64

from magister.types import Image, Refused

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


def media_type(data: bytes, field: str) -> str:
    """The media type of an image file. Raises `Refused` for what is none that models read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    raise Refused(field, "is no PNG, JPEG, WebP, GIF, BMP or TIFF")


def url_of(image: Image, field: str) -> str:
    """Where an image is, or a data URL of its bytes. Raises `Refused` as `media_type` does."""
    if not image.data:
        return image.url
    return f"data:{media_type(image.data, field)};base64,{base64.b64encode(image.data).decode()}"

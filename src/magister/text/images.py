"""Images: from a file's bytes to what mistral-common's image encoder takes, and from what it gives to `Pixels`.

Checks what a stranger's file may do: be no image, broken, empty or huge. Resizing, normalising and the layout of
image tokens are mistral-common's. Knows nothing of messages or models.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from magister.types import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Of an animation the first frame is seen. Formats that run a program to be read (EPS) stay out."""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error)
"""What Pillow raises on damaged files, found by feeding it some 30,000 of them."""


@dataclass(frozen=True)
class ImageLimits:
    """What a request may cost before its images are decoded."""

    bytes: int = 20 * 1024 * 1024
    """Of one image's file."""
    pixels: int = 50_000_000
    """Of one image, before it is resized; decoding takes some 16 bytes of memory each."""
    count: int = 32
    """Images of one request."""


DEFAULT_LIMITS = ImageLimits()


def decode_image(data: bytes, limits: ImageLimits, field: str) -> Pillow.Image:
    """The decoded image, in the colours of its file; `field` names it in errors."""
    if not data:
        raise ValueError(f"{field}: the image is empty")
    if len(data) > limits.bytes:
        raise ValueError(f"{field}: the image has {len(data)} bytes, at most {limits.bytes} are read")
    try:
        image = Pillow.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"{field}: this is no image in any of {', '.join(FORMATS)}") from error
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise ValueError(f"{field}: the image is larger than {limits.pixels} pixels") from error
    except _BROKEN as error:
        raise ValueError(f"{field}: the image is damaged: {error}") from error
    if image.width < 1 or image.height < 1:
        raise ValueError(f"{field}: the image is {image.width} x {image.height} pixels")
    if image.width * image.height > limits.pixels:
        raise ValueError(f"{field}: the image is {image.width} x {image.height}, more than {limits.pixels} pixels")
    try:
        image.load()
        return _in_bytes(image)
    except _BROKEN as error:
        raise ValueError(f"{field}: the image is damaged: {error}") from error


def to_pixels(array: np.ndarray[Any, Any]) -> Pixels:
    """An encoded image (channels x height x width, normalised) as a value."""
    channels, height, width = array.shape
    data = np.ascontiguousarray(array, dtype="<f4").tobytes()
    digest = hashlib.blake2b(f"{channels}x{height}x{width}:".encode(), digest_size=16)
    digest.update(data)
    return Pixels(data=data, channels=channels, height=height, width=width, digest=digest.hexdigest())


def _in_bytes(image: Pillow.Image) -> Pillow.Image:
    """Greys of 16 bits as greys of 8: mistral-common would clip them to white."""
    if not image.mode.startswith("I"):
        return image
    return Pillow.fromarray((np.clip(np.asarray(image), 0, 65_535) // 256).astype(np.uint8))

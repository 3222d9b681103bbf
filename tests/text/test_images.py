"""Images: mistral-common's layout of tokens, and what a stranger's file may not do."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from magister.text.formats import detect_format
from magister.text.images import DEFAULT_LIMITS, ImageLimits, decode_image, to_pixels
from magister.text.render import Renderer
from magister.text.tokenizer import TekkenPlan, make_tokenizer
from magister.types import ChatRequest, Image, Refused, user


@functools.cache
def renderer(vision: bool = True, limits: ImageLimits = DEFAULT_LIMITS) -> Renderer:
    tokenizer = make_tokenizer(TekkenPlan(ranks=512, specials=64, vision=vision))
    return Renderer(tokenizer, detect_format(tokenizer), limits)


@functools.cache
def file(width: int, height: int, form: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Pillow.new(mode, (width, height)).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("size", "grid", "tokens"),
    [
        ((200, 200), (8, 8), 72),
        ((1024, 768), (37, 28), 1064),
        ((1540, 1540), (55, 55), 3080),
        ((4000, 3000), (55, 42), 2352),
        ((10, 10), (1, 1), 2),
        ((3000, 1), (55, 1), 56),
    ],
)
def test_token_layout(size: tuple[int, int], grid: tuple[int, int], tokens: int) -> None:
    prompt = renderer().render(ChatRequest(messages=(user(Image(file(*size)), "?"),)))
    ids, columns, rows = list(prompt.ids), *grid
    layout = ([10] * columns + [12]) * rows
    layout[-1] = 13
    start = ids.index(10)
    assert ids[start : start + tokens] == layout
    assert ids[start - 1] == 3
    (pixels,) = prompt.images
    assert (pixels.channels, pixels.height, pixels.width) == (3, 28 * rows, 28 * columns)
    assert len(pixels.data) == 4 * 3 * pixels.height * pixels.width


def test_pixels_are_normalised_and_equal_images_share_a_digest() -> None:
    def pixels(colour: str) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], str]:
        stream = io.BytesIO()
        Pillow.new("RGB", (28, 28), colour).save(stream, "PNG")
        (image,) = renderer().render(ChatRequest(messages=(user(Image(stream.getvalue())),))).images
        return np.frombuffer(image.data, dtype="<f4").reshape(3, 28, 28), image.digest

    white, digest = pixels("white")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    for channel in range(3):
        np.testing.assert_allclose(white[channel], (1 - mean[channel]) / std[channel], atol=1e-5)
    assert pixels("white")[1] == digest != pixels("black")[1]


def test_shape_is_part_of_the_digest() -> None:
    array = np.zeros((3, 28, 56), dtype=np.float32)
    assert to_pixels(array).digest != to_pixels(array.transpose(0, 2, 1)).digest


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_file_formats(form: str) -> None:
    assert decode_image(file(3, 2, form), DEFAULT_LIMITS, "image").size == (3, 2)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_colours(mode: str) -> None:
    prompt = renderer().render(ChatRequest(messages=(user(Image(file(30, 30, "PNG", mode))),)))
    assert prompt.images[0].channels == 3


def test_greys_of_16_bits_keep_their_shades() -> None:
    stream = io.BytesIO()
    Pillow.fromarray(np.array([[0, 256, 32_768, 65_535]], dtype=np.uint16)).save(stream, "PNG")
    assert np.asarray(decode_image(stream.getvalue(), DEFAULT_LIMITS, "image")).tolist() == [[0, 1, 128, 255]]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "limits", "message"),
    [
        (b"", DEFAULT_LIMITS, "the image is empty"),
        (b"<svg/>", DEFAULT_LIMITS, "no image in any of PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", DEFAULT_LIMITS, "no image in any of"),
        (file(9, 9), ImageLimits(bytes=10), "at most 10 are read"),
        (file(9, 9), ImageLimits(pixels=80), "9 x 9, more than 80 pixels"),
        (bomb(8000, 8000), DEFAULT_LIMITS, "8000 x 8000, more than 50000000 pixels"),
        (bomb(10_000, 10_000), DEFAULT_LIMITS, "larger than 50000000 pixels"),
        (bomb(60_000, 60_000), DEFAULT_LIMITS, "larger than 50000000 pixels"),
        (bomb(0, 0), DEFAULT_LIMITS, "image"),
        (bomb(20, 20), DEFAULT_LIMITS, "the image is damaged"),
        (file(40, 40)[:-30], DEFAULT_LIMITS, "the image is damaged"),
        (file(64, 64, "JPEG")[:-300], DEFAULT_LIMITS, "the image is damaged"),
    ],
)
def test_what_is_refused(data: bytes, limits: ImageLimits, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^messages\[0\]\.parts\[1\]: .*{message}"):
        renderer(limits=limits).render(ChatRequest(messages=(user("see", Image(data)),)))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_damaged_file_is_an_image_or_a_value_error(form: str, damage: list[tuple[int, int]]) -> None:
    data = bytearray(file(12, 9, form))
    for place, byte in damage:
        data[place % len(data)] = byte
    with contextlib.suppress(ValueError):
        assert decode_image(bytes(data), ImageLimits(pixels=1_000_000), "image").width > 0


def test_a_text_only_model_refuses_images() -> None:
    with pytest.raises(Refused, match=r"messages\[0\]\.parts\[0\]: this model reads no images"):
        renderer(vision=False).render(ChatRequest(messages=(user(Image(file(9, 9))),)))


def test_the_number_of_images_has_a_limit() -> None:
    image = Image(file(9, 9))
    with pytest.raises(ValueError, match="messages: 3 images, at most 2"):
        renderer(limits=ImageLimits(count=2)).render(ChatRequest(messages=(user(image, image), user(image))))


def test_an_image_that_is_elsewhere_is_not_fetched() -> None:
    with pytest.raises(Refused, match=r"^messages\[0\]\.parts\[1\]: an image by URL was not fetched"):
        renderer().render(ChatRequest(messages=(user("see", Image(url="https://example.org/cat.png")),)))

"""What every dialect reads alike: bytes of images, and bodies that are no JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magister.types import Image
from magister.wire.fault import BadRequest
from magister.wire.reading import base64_of, image_of, parse

DATA = st.binary(min_size=1, max_size=90)


@given(DATA, st.booleans(), st.booleans(), st.booleans())
def test_base64_in_every_spelling(data: bytes, url_safe: bool, padded: bool, lines: bool) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    text = "\r\n".join(text[at : at + 16] for at in range(0, len(text), 16)) if lines else text
    assert base64_of(text, "f") == data
    assert image_of(f"data:image/png;base64,{text}", "f") == Image(data=data)


@pytest.mark.parametrize("text", ["", "=", "A", "AAAAA", "#AAA", "AA AA", "ÄAAA", "AA==AA=="])
def test_what_is_no_base64(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^f: is (not base64|empty)$"):
        base64_of(text, "f")


@pytest.mark.parametrize(
    "escaped",
    [r"\ud83d", r"\uDE00", r"a\ud83d b", r"\ude00\ud83d", r"\\\ud83d", r"\ud83d\\ude00", r"\ud83d\ud83d\ude00"],
)
def test_half_a_character_is_told_as_such(escaped: str) -> None:
    with pytest.raises(BadRequest, match="half of a surrogate pair"):
        parse(f'{{"a": "{escaped}"}}'.encode())


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_whole_characters_are_read_however_they_are_escaped(text: str, escaped: bool) -> None:
    body = json.dumps({"a": text}, ensure_ascii=escaped).encode()
    assert parse(body) == {"a": text}
    with pytest.raises(BadRequest) as caught:
        parse(body[:-1])
    assert "surrogate" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"1", b"[" * 100_000, b'{"a": 1} x'])
def test_what_is_no_object(body: Any) -> None:
    with pytest.raises(BadRequest):
        parse(body)

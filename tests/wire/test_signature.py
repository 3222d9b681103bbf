"""Signatures and sealed thoughts: what was made with a key is known by it, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from magister.wire.signature import seal, sign, unseal, verify

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.binary(max_size=4)


@given(KEYS, TEXTS)
def test_what_was_sealed_is_unsealed(key: bytes, text: str) -> None:
    assert unseal(key, seal(key, text)) == text
    assert verify(key, text, sign(key, text))


@given(KEYS, KEYS, TEXTS, TEXTS)
def test_another_key_or_text_is_told_apart(key: bytes, other: bytes, text: str, changed: str) -> None:
    # HMAC pads keys with zeros, so keys that differ in these alone sign alike but for the key id.
    assert verify(other, changed, sign(key, text)) is ((key, text) == (other, changed))
    assert unseal(other, seal(key, text)) == (text if key == other else None)


@given(TEXTS, st.data())
def test_no_changed_word_is_unsealed(text: str, data: st.DataObject) -> None:
    sealed = seal(b"k", text)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = data.draw(st.sampled_from("Ab9-_= é"))
    assert unseal(b"k", sealed[:at] + changed + sealed[at + 1 :]) in (None, text)
    assert unseal(b"k", sealed[:at]) is None


@given(st.text())
def test_no_foreign_word_is_an_error(word: str) -> None:
    assert unseal(b"k", word) is None
    assert not verify(b"k", "hm", word)


def test_one_is_not_the_other() -> None:
    assert unseal(b"k", sign(b"k", "hm")) is None
    assert not verify(b"k", "hm", seal(b"k", "hm"))
    assert len(seal(b"k", "hm " * 1000)) < 200

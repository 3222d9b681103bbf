"""Signatures of thoughts, and thoughts sealed into one opaque word.

A thought that comes back from a client needs no proof: it is the client's own conversation. Signatures are there
because SDKs insist on the field, and tell our own thoughts from others'. A sealed thought is for clients that replay
it without its text (Anthropic's `display: "omitted"`, the Responses API's `encrypted_content`): signed and compressed,
opaque but not secret. Whoever has it can read it; only who has the key can make one. Knows no dialect.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib

_SIGNED, _SEALED = b"\x01", b"\x02"
_KEY_ID, _MAC = 4, 32


def sign(key: bytes, text: str) -> str:
    """The signature of a thought, with the id of the key that made it."""
    return _pack(_head(key, _SIGNED) + _mac(key, _SIGNED, text.encode()))


def verify(key: bytes, text: str, signature: str) -> bool:
    """Whether `sign` made this of the same key and text."""
    return hmac.compare_digest(sign(key, text).encode(), signature.encode("utf-8", "replace"))


def seal(key: bytes, text: str) -> str:
    """A thought as one word that `unseal` reads back."""
    data = zlib.compress(text.encode())
    return _pack(_head(key, _SEALED) + _mac(key, _SEALED, data) + data)


def unseal(key: bytes, sealed: str) -> str | None:
    """The thought in a word that `seal` made with the same key; None for any other word."""
    try:
        raw = base64.b64decode(sealed, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    head = _head(key, _SEALED)
    mac, data = raw[len(head) : len(head) + _MAC], raw[len(head) + _MAC :]
    if not raw.startswith(head) or not hmac.compare_digest(mac, _mac(key, _SEALED, data)):
        return None
    return zlib.decompress(data).decode()


def _head(key: bytes, kind: bytes) -> bytes:
    return kind + hashlib.sha256(b"magister key id\0" + key).digest()[:_KEY_ID]


def _mac(key: bytes, kind: bytes, data: bytes) -> bytes:
    return hmac.digest(key, b"magister thought\0" + kind + data, "sha256")


def _pack(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()

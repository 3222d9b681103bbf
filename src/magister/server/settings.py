"""What a server is told when it starts; nothing of it changes while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and choices of one server."""

    body_bytes: int = 32 * 1024 * 1024
    """Of one request at most."""
    body_seconds: float = 30.0
    """In which a body must have arrived."""
    images: int = 16
    """In one request at most."""
    image_bytes: int = 20 * 1024 * 1024
    """Of one image at most."""
    fetch_images: bool = False
    """Whether images are fetched by URL."""
    in_flight: int = 512
    """Requests being answered at most; the next one is told to come again."""
    keepalive_seconds: float = 10.0
    """Silence after which a stream sends what its dialect's clients skip."""
    keep_thinking: bool = True
    """Whether thoughts of earlier turns, where a client sends them, go into the prompt."""
    signing_key: bytes = b""
    """Signs thoughts and guests' tokens."""

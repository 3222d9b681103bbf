"""What a server counts, in Prometheus' terms. Each name is in docs/server.md, and a test compares them.

A registry of one server, not of the process. Knows no dialect.
"""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from magister.types import Usage

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "magister_requests", "Requests answered", ["dialect", "model", "status"], registry=self.registry
        )
        self._tokens = Counter(
            "magister_tokens", "Tokens, by kind: prompt, cached, thinking, answer", ["model", "kind"],
            registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("magister_requests_in_flight", "Requests being answered", registry=self.registry)
        self._first = Histogram(
            "magister_first_event_seconds", "From a request's arrival to its first event", ["model"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._whole = Histogram(
            "magister_request_seconds", "From a request's arrival to its end", ["model"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.disconnects = Counter(
            "magister_disconnects", "Clients that left before their answer's end", registry=self.registry
        )
        self.restarts = Gauge("magister_engine_restarts", "How often the engine was restarted", registry=self.registry)
        self.ready = Gauge("magister_engine_ready", "1 while the engine answers", registry=self.registry)
        self._request = lru_cache(maxsize=1024)(self._requests.labels)
        self._token = lru_cache(maxsize=256)(self._tokens.labels)
        self._firsts = lru_cache(maxsize=64)(self._first.labels)
        self._wholes = lru_cache(maxsize=64)(self._whole.labels)

    def answered(self, dialect: str, model: str, status: int, seconds: float) -> None:
        """A request came to its end."""
        self._request(dialect, model, str(status)).inc()
        self._wholes(model).observe(seconds)

    def first(self, model: str, seconds: float) -> None:
        """A request's first event came."""
        self._firsts(model).observe(seconds)

    def used(self, model: str, usage: Usage) -> None:
        """What a choice cost."""
        thinking = usage.thinking_tokens
        for kind, tokens in (
            ("prompt", usage.prompt_tokens - usage.cached_tokens),
            ("cached", usage.cached_tokens),
            ("thinking", thinking),
            ("answer", usage.completion_tokens - thinking),
        ):
            if tokens > 0:
                self._token(model, kind).inc(tokens)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)

"""What can go wrong with a request, as types that every dialect has a word for."""

from __future__ import annotations


class TooLong(ValueError):
    """The prompt, or prompt and answer, exceed what the model can hold."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"the prompt has {tokens} tokens, at most {limit} fit into the context with an answer")
        self.tokens = tokens
        """What was asked for."""
        self.limit = limit
        """What there is."""


class Refused(ValueError):
    """A field whose value this model cannot honour; never ignored in silence."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        """The request's field, by its name in `types`."""


class Busy(RuntimeError):
    """No capacity now; try again later."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds."""


class Upstream(RuntimeError):
    """A remote model failed."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, where there was a response."""

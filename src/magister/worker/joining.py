"""Chunks that waited for a slow reader, joined into fewer. Knows neither who made them nor who reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from magister.types import Chunk


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Chunks of one choice and version that follow one another, as one; choices in the order of their first chunk."""
    runs: dict[int, list[list[Chunk]]] = {}
    for chunk in chunks:
        mine = runs.setdefault(chunk.choice, [])
        if mine and mine[-1][-1].version == chunk.version:
            mine[-1].append(chunk)
        else:
            mine.append([chunk])
    return [run[0] if len(run) == 1 else _join(run) for mine in runs.values() for run in mine]


def weight(chunk: Chunk) -> int:
    """What a chunk takes while it waits: its tokens and their alternatives. Not those of the prompt: they come once, in
    one chunk, and no reader is fast enough for fewer of them to wait.
    """
    return len(chunk.ids) + sum(map(len, chunk.top or ()))


def _join(run: Sequence[Chunk]) -> Chunk:
    last = run[-1]
    entropy = None if last.entropy is None else tuple([value for chunk in run for value in chunk.entropy or ()])
    top = None if last.top is None else tuple([value for chunk in run for value in chunk.top or ()])
    return Chunk(
        choice=last.choice,
        ids=tuple([id_ for chunk in run for id_ in chunk.ids]),
        logprobs=tuple([value for chunk in run for value in chunk.logprobs]),
        sampled_logprobs=tuple([value for chunk in run for value in chunk.sampled_logprobs]),
        forced=tuple([value for chunk in run for value in chunk.forced]),
        version=last.version,
        entropy=entropy,
        top=top,
        prompt_logprobs=run[0].prompt_logprobs,
        prompt_top=run[0].prompt_top,
        finish=last.finish,
        trim=last.trim,
        stop=last.stop,
        error=last.error,
        cached_tokens=last.cached_tokens,
        timings=last.timings,
    )

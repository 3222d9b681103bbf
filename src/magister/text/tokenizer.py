"""The tokenizer: mistral-common's, loaded from a Tekken file or made from the vocabulary in its wheel.

Every id is looked up by name. Knows nothing of messages, formats or models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy, TokenizerVersion
from mistral_common.tokens.tokenizers.image import ImageConfig
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV7, InstructTokenizerV11, InstructTokenizerV13
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer, load_image_encoder
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

SPECIAL_NAMES: Mapping[int, str] = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    32: "[ARGS]",
    33: "[CALL_ID]",
    34: "[THINK]",
    35: "[/THINK]",
}
"""Magistral's special tokens that have a name; the slots between them are fillers."""

MAGISTRAL_VOCABULARY = 131_072
"""Special slots and byte pairs of the real models."""


_CHATS: Mapping[str, type[InstructTokenizerV7]] = {
    "v7": InstructTokenizerV7,
    "v11": InstructTokenizerV11,
    "v13": InstructTokenizerV13,
}


@dataclass(frozen=True)
class TekkenPlan:
    """What a Tekken file is to hold; the defaults are Magistral Small 2509's."""

    ranks: int = MAGISTRAL_VOCABULARY - 1000
    """Byte pairs, the first of the wheel's vocabulary (ranks 0 to 255 are the bytes)."""
    specials: int = 1000
    """Special slots; a byte pair's id is its rank plus this."""
    version: str = "v13"
    """v13 has [THINK] as a token; v7 and v11 write thoughts as text."""
    vision: bool = True
    """Whether images are read: patches of 14, sides up to 1540, merged 2 x 2."""


def tekken(plan: TekkenPlan) -> dict[str, Any]:
    """The content of a Tekken file, from the vocabulary that ships in mistral_common's wheel."""
    if plan.version not in _CHATS:
        raise ValueError(f"version: {plan.version} is none of {', '.join(_CHATS)}, the versions Magistral used")
    named = {rank: name for rank, name in SPECIAL_NAMES.items() if "THINK" not in name or plan.version == "v13"}
    slots = max(named) + 1
    if plan.specials < slots:
        raise ValueError(f"specials: {plan.specials} slots do not hold the special tokens, {slots} do")
    if plan.ranks < 256:
        raise ValueError(f"ranks: {plan.ranks} do not hold the 256 bytes")
    wheel = json.loads((files("mistral_common") / "data" / "tekken_240911.json").read_text(encoding="utf-8"))
    if plan.ranks > len(wheel["vocab"]):
        raise ValueError(f"ranks: {plan.ranks} are more than the wheel's {len(wheel['vocab'])}")
    content = {
        "config": {
            "pattern": wheel["config"]["pattern"],
            "num_vocab_tokens": plan.ranks,
            "default_vocab_size": plan.ranks + plan.specials,
            "default_num_special_tokens": plan.specials,
            "version": plan.version,
        },
        "vocab": wheel["vocab"][: plan.ranks],
        "special_tokens": [
            {"rank": rank, "token_str": named.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
            for rank in range(slots)
        ],
    }
    if plan.vision:
        content["image"] = {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}
    return content


def write_tekken(path: Path, plan: TekkenPlan) -> None:
    """Write a Tekken file; mistral_common wants `tekken` and `.json` in its name."""
    if "tekken" not in path.name or path.suffix != ".json":
        raise ValueError(f"path: {path.name} must contain 'tekken' and end in '.json'")
    path.write_text(json.dumps(tekken(plan), ensure_ascii=False), encoding="utf-8")


def make_tokenizer(plan: TekkenPlan) -> Tokenizer:
    """The tokenizer of a plan, in memory."""
    content = tekken(plan)
    image = ImageConfig(**content["image"]) if plan.vision else None
    version = TokenizerVersion(plan.version)
    model = Tekkenizer(
        vocab=content["vocab"],
        special_tokens=content["special_tokens"],
        pattern=content["config"]["pattern"],
        vocab_size=content["config"]["default_vocab_size"],
        num_special_tokens=content["config"]["default_num_special_tokens"],
        version=version,
        image_config=image,
    )
    return Tokenizer(
        MistralTokenizer(
            _CHATS[plan.version](model, image_encoder=load_image_encoder(image, model) if image else None),
            validator=get_validator(version, mode=ValidationMode.serving),
            request_normalizer=get_normalizer(version, None),
        )
    )


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a Tekken file."""
    if not path.is_file():
        raise ValueError(f"tokenizer: there is no file {path}")
    try:
        return Tokenizer(MistralTokenizer.from_file(path, mode=ValidationMode.serving))
    except (MistralCommonException, AssertionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"tokenizer: {path} is no Tekken file that Magister can use: {error}") from error


class Tokenizer:
    """A Tekken tokenizer: text and tokens, ids by name, the vocabulary as bytes."""

    def __init__(self, mistral: MistralTokenizer[Any, Any, Any, Any, Any]) -> None:
        tekkenizer = mistral.instruct_tokenizer.tokenizer
        if not isinstance(tekkenizer, Tekkenizer):
            raise ValueError("tokenizer: only Tekken files are supported")
        if mistral.version.value not in _CHATS:
            raise ValueError(
                f"version: {mistral.version.value} is none of {', '.join(_CHATS)}, the versions Magistral used"
            )
        chats = mistral.instruct_tokenizer
        assert isinstance(chats, InstructTokenizerV7), type(chats)
        self.mistral = mistral
        """mistral-common's own object."""
        self.chats = chats
        """Its inner tokenizer of chats."""
        self.tekken = tekkenizer
        """Its inner tokenizer of text."""

    @property
    def version(self) -> str:
        """Of the chat layout: v7, v11 or v13."""
        return str(self.mistral.version.value)

    @property
    def size(self) -> int:
        """Special slots and byte pairs."""
        return self.tekken.n_words

    @property
    def specials(self) -> int:
        """Special slots; their ids come first."""
        return self.tekken.num_special_tokens

    @property
    def image(self) -> ImageConfig | None:
        """How images become tokens; None where the model reads none."""
        return self.tekken.image

    @cached_property
    def vocabulary(self) -> tuple[bytes, ...]:
        """The bytes of every token by id; special tokens have none."""
        return tuple(self.tekken.id_to_byte_piece(i, SpecialTokenPolicy.IGNORE) for i in range(self.size))

    def find(self, name: str) -> int | None:
        """The id of a special token, or None where this tokenizer lacks it."""
        return self.tekken.get_special_token(name) if self.tekken.is_special(name) else None

    def id(self, name: str) -> int:
        """The id of a special token."""
        found = self.find(name)
        if found is None:
            raise ValueError(f"tokenizer: there is no special token {name}")
        return found

    def is_special(self, token: int) -> bool:
        """Whether an id names a special token, one that no text gives."""
        return token < self.specials

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; empty for a special token."""
        assert 0 <= token < self.size, token
        return self.vocabulary[token]

    def token_name(self, token: int) -> str:
        """A special token's name, or a byte pair's text with U+FFFD for stray bytes: for people, not for parsing."""
        assert 0 <= token < self.size, token
        return self.tekken.id_to_piece(token)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of plain text, never a special one."""
        try:
            return tuple(self.tekken.encode(text, bos=False, eos=False))
        except ValueError as error:
            raise ValueError(f"text: cannot be split into tokens: {error}") from error

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens: special ones have none, stray bytes become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def show(self, ids: Iterable[int]) -> str:
        """Tokens as text with the names of special ones: for people, not for parsing."""
        return str(self.tekken.decode(list(ids), special_token_policy=SpecialTokenPolicy.KEEP))

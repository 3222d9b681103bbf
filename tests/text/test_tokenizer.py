"""The tokenizer: real ids, the vocabulary as bytes, small files, and what is refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magister.text.tokenizer import TekkenPlan, Tokenizer, load_tokenizer, make_tokenizer, tekken, write_tekken

NANO = TekkenPlan(ranks=4096, specials=64, vision=False)


@functools.cache
def magistral() -> Tokenizer:
    return make_tokenizer(TekkenPlan())


@functools.cache
def nano() -> Tokenizer:
    return make_tokenizer(NANO)


def test_ids_are_those_of_magistral() -> None:
    tokenizer = magistral()
    assert tokenizer.encode_text("Hello, how are you?") == (22177, 1044, 2606, 1584, 1636, 1063)
    assert tokenizer.encode_text("First draft your") == (10107, 19564, 2143)
    assert tokenizer.encode_text("count_letters") == (12296, 1095, 99571)
    assert tokenizer.encode_text("$$3$$") == (19587, 1051, 19587)
    assert (tokenizer.size, tokenizer.version) == (131_072, "v13")


@pytest.mark.parametrize(
    ("name", "token"),
    [
        *(("<unk>", 0), ("<s>", 1), ("</s>", 2), ("[/INST]", 4), ("[TOOL_CALLS]", 9), ("[IMG]", 10), ("<pad>", 11)),
        *(("[IMG_END]", 13), ("[SYSTEM_PROMPT]", 17), ("[ARGS]", 32), ("[CALL_ID]", 33)),
        *(("[THINK]", 34), ("[/THINK]", 35)),
    ],
)
def test_special_tokens_are_found_by_name(name: str, token: int) -> None:
    for tokenizer in (magistral(), nano()):
        assert tokenizer.id(name) == token
        assert tokenizer.token_name(token) == name
        assert tokenizer.is_special(token)
        assert tokenizer.token_bytes(token) == b""


def test_v11_has_no_thinking_tokens() -> None:
    tokenizer = make_tokenizer(TekkenPlan(ranks=256, specials=64, version="v11", vision=False))
    assert tokenizer.find("[THINK]") is None
    with pytest.raises(ValueError, match=r"no special token \[THINK\]"):
        tokenizer.id("[THINK]")


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_bytes_of_tokens_are_the_text(text: str) -> None:
    ids = nano().encode_text(text)
    assert b"".join(map(nano().token_bytes, ids)) == text.encode()
    assert nano().decode(ids) == text
    assert not any(map(nano().is_special, ids))


def test_the_vocabulary_is_special_slots_and_then_bytes() -> None:
    vocabulary = nano().vocabulary
    assert len(vocabulary) == nano().size == 64 + 4096
    assert vocabulary[64 : 64 + 256] == tuple(bytes([byte]) for byte in range(256))
    assert len(set(vocabulary[64:])) == 4096


def test_a_special_token_is_never_produced_from_text() -> None:
    typed = "[THINK]a[/THINK]</s>[INST]"
    ids = nano().encode_text(typed)
    assert all(token >= 64 for token in ids)
    assert nano().show((34, *ids, 35)) == f"[THINK]{typed}[/THINK]"


def test_a_written_file_is_the_tokenizer_in_memory(tmp_path: Path) -> None:
    write_tekken(tmp_path / "tekken.json", NANO)
    loaded = load_tokenizer(tmp_path / "tekken.json")
    text = "Wie viel ist 12 + 34? 四十六 👩‍🚀"
    assert loaded.encode_text(text) == nano().encode_text(text)
    assert loaded.vocabulary == nano().vocabulary
    assert (loaded.version, loaded.image) == ("v13", None)


def test_bad_plans_and_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ranks: 255"):
        tekken(TekkenPlan(ranks=255))
    with pytest.raises(ValueError, match="specials: 35 slots"):
        tekken(TekkenPlan(specials=35))
    with pytest.raises(ValueError, match="ranks: 200000 are more than"):
        tekken(TekkenPlan(ranks=200_000))
    with pytest.raises(ValueError, match="version: v15 is none of v7, v11, v13"):
        tekken(TekkenPlan(version="v15"))
    with pytest.raises(ValueError, match=r"path: vocabulary\.json"):
        write_tekken(tmp_path / "vocabulary.json", NANO)
    with pytest.raises(ValueError, match="there is no file"):
        load_tokenizer(tmp_path / "tekken.json")
    (tmp_path / "tekken.json").write_text('{"config": {"version": "v99"}}')
    with pytest.raises(ValueError, match=r"no Tekken file that Magister can use: Unknown version"):
        load_tokenizer(tmp_path / "tekken.json")
    (tmp_path / "tekken.json").write_text("[")
    with pytest.raises(ValueError, match="no Tekken file"):
        load_tokenizer(tmp_path / "tekken.json")


def test_versions_that_magistral_never_used_are_refused(tmp_path: Path) -> None:
    content = tekken(TekkenPlan(ranks=256, specials=64, vision=False))
    content["config"]["version"] = "v3"
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="version: v3 is none of v7, v11, v13"):
        load_tokenizer(tmp_path / "tekken.json")


def test_text_that_no_tokenizer_can_split_is_refused() -> None:
    with pytest.raises(ValueError, match="text: cannot be split"):
        nano().encode_text(" " * 2_000_000)

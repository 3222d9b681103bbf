"""The formats are told apart by the tokenizer, and a folder may say more."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from magister.text.formats import Tags, detect_format, load_format, read_instruction
from magister.text.tokenizer import TekkenPlan, Tokenizer, make_tokenizer
from magister.types import Text, Thinking


@functools.cache
def tokenizer(version: str = "v13", vision: bool = False) -> Tokenizer:
    return make_tokenizer(TekkenPlan(ranks=256, specials=64, version=version, vision=vision))


def test_three_formats() -> None:
    old, text, vision = (detect_format(tokenizer(*plan)) for plan in (("v11", False), ("v13", False), ("v13", True)))
    assert (old.name, old.tags, old.images, old.context) == ("2506", Tags.TEXT, False, 40_960)
    assert (text.name, text.tags, text.images, text.context) == ("2507", Tags.TOKENS, False, 40_960)
    assert (vision.name, vision.tags, vision.images, vision.context) == ("2509", Tags.TOKENS, True, 131_072)
    assert text.instruction == vision.instruction
    assert [type(part) for part in text.instruction] == [Text, Thinking, Text]
    assert old.closing == "Problem:\n\n"


def test_a_silent_folder_has_the_tokenizers_format(tmp_path: Path) -> None:
    assert load_format(tmp_path, tokenizer()) == detect_format(tokenizer())


def test_magister_json_changes_the_format(tmp_path: Path) -> None:
    card = {"name": "nano", "system_prompt": "", "context": 4096, "description": "a small one"}
    (tmp_path / "magister.json").write_text(json.dumps(card))
    form = load_format(tmp_path, tokenizer())
    assert (form.name, form.instruction, form.context, form.description) == ("nano", (), 4096, "a small one")
    assert form.tags is Tags.TOKENS


def test_a_folders_system_prompt_replaces_the_official_one(tmp_path: Path) -> None:
    (tmp_path / "SYSTEM_PROMPT.txt").write_text("Think:[THINK]so[/THINK]and say.")
    assert load_format(tmp_path, tokenizer()).instruction == (Text("Think:"), Thinking("so"), Text("and say."))
    (tmp_path / "magister.json").write_text('{"system_prompt": "Be brief."}')
    assert load_format(tmp_path, tokenizer()).instruction == (Text("Be brief."),)


def test_the_closing_words_of_2506_stay_last(tmp_path: Path) -> None:
    official = detect_format(tokenizer("v11"))
    prompt = tmp_path / "SYSTEM_PROMPT.txt"
    prompt.write_text("Draft, then answer.\n\nProblem:\n\n")
    form = load_format(tmp_path, tokenizer("v11"))
    assert (form.instruction, form.closing) == ((Text("Draft, then answer."),), official.closing)
    prompt.write_text("Just answer.")
    form = load_format(tmp_path, tokenizer("v11"))
    assert (form.instruction, form.closing) == ((Text("Just answer."),), "")


@pytest.mark.parametrize("prompt", ["a[THINK]b", "a[/THINK]b", "[/THINK]a[THINK]", "[THINK]a[/THINK]b[THINK]"])
def test_half_a_thought_is_no_instruction(prompt: str) -> None:
    with pytest.raises(ValueError, match="system_prompt: needs"):
        read_instruction(prompt)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
        ('{"prompt": ""}', "prompt is none of name, system_prompt"),
        ('{"context": "4096"}', "context must be of type int"),
        ('{"context": true}', "context must be of type int"),
        ('{"context": 0}', "context must be at least 1"),
        ('{"system_prompt": null}', "system_prompt must be of type str"),
    ],
)
def test_a_bad_card_is_refused_by_key(tmp_path: Path, card: str, message: str) -> None:
    (tmp_path / "magister.json").write_text(card)
    with pytest.raises(ValueError, match=f"magister.json: {message}"):
        load_format(tmp_path, tokenizer())

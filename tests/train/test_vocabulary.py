import json
from pathlib import Path

from magister.text.tokenizer import load_tokenizer
from magister.train.vocabulary import ancestry, choose_tokens, plain_words, real_ranks, small_tekken

RANKS = real_ranks()


def test_ancestry_has_every_piece_on_the_way() -> None:
    family = ancestry(b" apples", RANKS)
    assert b" apples" in family
    for token in family:
        assert len(token) == 1 or any(
            token == left + right for left in family | _bytes() for right in family | _bytes()
        )


def _bytes() -> set[bytes]:
    return {bytes([byte]) for byte in range(256)}


def test_chosen_tokens_are_reachable_and_in_the_order_of_ranks(tmp_path: Path) -> None:
    corpus = [[b" apples"] * 50 + [b" tra"] + [b" the"] * 9]
    tokens = choose_tokens(corpus, RANKS, count=600, general=100)
    assert len(tokens) == 600
    assert tokens[:256] == [bytes([byte]) for byte in range(256)]
    assert [RANKS[token] for token in tokens] == sorted(RANKS[token] for token in tokens)
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(small_tekken(tokens, 64)), encoding="utf-8")
    tokenizer = load_tokenizer(path)
    assert len(tokenizer.encode_text(" apples")) == 1
    assert tokenizer.decode(tokenizer.encode_text("Größe 12 🙂")) == "Größe 12 🙂"


def test_plain_words_are_words() -> None:
    words = plain_words(RANKS, most=500)
    assert len(words) == 500
    assert all(3 <= len(word) <= 10 and word.isascii() and word.islower() for word in words)

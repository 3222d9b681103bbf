import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest

from magister.cli import places
from magister.tasks import BEYOND, FAMILIES, HONEST, Phrasebook, Problem, Split, is_held_out, load_book
from magister.tasks.family import draw
from magister.tasks.quotation import MARK
from magister.text.render import Renderer
from magister.text.tokenizer import Tokenizer, load_tokenizer
from magister.train import conversations, nano
from magister.train.conversations import (
    _MISTAKEN,
    _TOLD,
    DIRECT_ASKS,
    ORDERS,
    Conversation,
    ConversationSource,
    Turn,
    _training_book,
    opened,
    quoted,
    shortest,
    weighted,
)
from magister.train.noise import figures, retype
from magister.train.vocabulary import plain_words, real_ranks
from magister.types import ChatRequest, Message, Thinking, assistant, system, user


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(places.find("nano") / "tekken.json")


@pytest.fixture(scope="module")
def source() -> ConversationSource:
    return ConversationSource(nano.MIXTURE, ())


def messages(conversation: Conversation) -> list[Message]:
    told = [system(conversation.system)] if conversation.system else []
    turns = []
    for turn in conversation.turns:
        said = [Thinking(turn.thinking), turn.reply] if turn.thinking else [turn.reply]
        turns += [user(turn.user), assistant(*said)]
    return [*told, *turns]


def test_the_same_seed_gives_the_same_conversation(source: ConversationSource) -> None:
    first = [source.draw(seed) for seed in range(50)]
    assert first == [source.draw(seed) for seed in range(50)]
    assert len(set(first)) > 45


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in HONEST])
def test_no_problem_is_longer_than_a_row(family: str, tokenizer: Tokenizer) -> None:
    encoder, book, rng = nano.make_encoder(tokenizer), load_book(family), random.Random(13)
    for level in (*range(1, FAMILIES[family].LEVELS + 1), BEYOND):
        for _ in range(60):
            problem = draw(FAMILIES[family], rng, level, book, Split.TRAIN)
            turn = Turn(problem.prompt, problem.thinking, problem.reply, spelled=problem.spelled)
            assert len(encoder.encode(Conversation((turn,))).ids) <= nano.NanoRun().row_length, problem


def test_training_encodes_what_the_renderer_renders(source: ConversationSource, tokenizer: Tokenizer) -> None:
    from magister.text.formats import detect_format

    encoder = nano.make_encoder(tokenizer)
    official = detect_format(tokenizer)
    silent = replace(official, instruction=(), closing="")
    checked = 0
    for seed in range(300):
        conversation = source.draw(seed)
        if any(turn.cut and not turn.thinking for turn in conversation.turns):
            continue
        plain = replace(conversation, turns=tuple(replace(turn, spelled="") for turn in conversation.turns))
        ids = encoder.encode(plain).ids
        told = messages(conversation)
        renderer = Renderer(tokenizer, official if conversation.official else silent)
        prompt = renderer.render(ChatRequest(messages=tuple(told[:-1]))).ids
        rendered = (*prompt, *renderer.reply(told[-1]))
        if any(turn.thinking.startswith(">") for turn in conversation.turns):
            # A quotation without a blank has the question's tokens, which the renderer cannot know of.
            assert tokenizer.decode(ids) == tokenizer.decode(rendered)
        else:
            assert ids == rendered
        checked += 1
    assert checked > 250


def test_a_spelled_word_has_a_token_a_letter_and_the_same_text(tokenizer: Tokenizer) -> None:
    encoder = nano.make_encoder(tokenizer)
    whole = Turn("Sort the letters of stone.", "sort\ns-t-o-n-e", "The answer is **enost**.")
    plain, spelled = (encoder.encode(Conversation((replace(whole, spelled=word),))).ids for word in ("", "enost"))
    assert tokenizer.decode(spelled) == tokenizer.decode(plain)
    reply = list(spelled[spelled.index(encoder.think_close) :])
    at = reply.index(tokenizer.encode_text("e")[0])
    assert [tokenizer.decode([token]) for token in reply[at : at + 5]] == list("enost")


def test_a_quotation_has_the_tokens_of_the_question(tokenizer: Tokenizer) -> None:
    sequence = nano.make_encoder(tokenizer).encode(
        Conversation(
            (Turn("Alan has 5 pens. Alan wins 2.", ">Alan has 5 pens: start 5\n> Alan wins 2: gets 2\n5+2=7", "7"),)
        )
    )
    ids, quoted = list(sequence.ids), tokenizer.encode_text("Alan has 5 pens")
    again = ids.index(tokenizer.encode_text(">")[0])
    assert tuple(ids[again + 1 : again + 1 + len(quoted)]) == tuple(ids[2 : 2 + len(quoted)])
    assert tuple(ids[2 : 2 + len(quoted)]) == tuple(quoted)


def test_a_quotation_has_the_blank_that_the_prompt_has_after_a_greeting() -> None:
    problem = draw(FAMILIES["word_problems"], random.Random(5), 5, load_book("word_problems"), Split.TRAIN)
    assert quoted(problem, problem.prompt) == problem.thinking
    assert quoted(problem, problem.prompt.rstrip(".?")) == problem.thinking
    assert quoted(problem, f"Hi! {problem.prompt}") == f"> {problem.thinking[1:]}"


def test_only_replies_are_learned_and_no_forced_token(tokenizer: Tokenizer) -> None:
    encoder = nano.make_encoder(tokenizer)
    cut = encoder.encode(Conversation((Turn("1+1?", "1+", "**2**", cut=True),)))
    whole = encoder.encode(Conversation((Turn("1+1?", "1+1=2", "**2**"),)))
    for sequence, close in ((cut, False), (whole, True)):
        opened = sequence.ids.index(encoder.think_open)
        assert not any(sequence.learn[:opened])
        assert sequence.learn[opened]
        assert sequence.learn[sequence.ids.index(encoder.think_close)] is close
        assert sequence.learn[-1]
        assert sequence.ids[-1] == encoder.end


def test_the_mixture_has_the_shares_the_recipe_promises(source: ConversationSource) -> None:
    drawn = [source.draw(seed) for seed in range(3000)]
    turns = [turn for conversation in drawn for turn in conversation.turns]
    told = sum(conversation.official or bool(conversation.system) for conversation in drawn) / len(drawn)
    assert 0.08 < told < 0.12
    assert 0.03 < sum(turn.cut for turn in turns) / len(turns) < 0.07
    assert 0.08 < sum(not turn.thinking and not turn.cut for turn in turns) / len(turns) < 0.16


def test_the_share_of_direct_answers_is_of_easy_problems_with_a_thought(source: ConversationSource) -> None:
    turns = [turn for seed in range(6000) for turn in source.draw(seed).turns]
    asked = sum(turn.user.endswith(DIRECT_ASKS) for turn in turns)
    never = ConversationSource(replace(nano.MIXTURE, direct=0.0), ())
    always = ConversationSource(replace(nano.MIXTURE, direct=1.0), ())
    easy = sum(turn.user.endswith(DIRECT_ASKS) for seed in range(6000) for turn in always.draw(seed).turns)
    assert not any(turn.user.endswith(DIRECT_ASKS) for seed in range(500) for turn in never.draw(seed).turns)
    assert nano.MIXTURE.direct == 0.15
    assert asked / easy == pytest.approx(0.15, abs=0.03)


def test_no_training_problem_is_held_out() -> None:
    for name, module in FAMILIES.items():
        book, rng = load_book(name), random.Random(1)
        for number in range(150):
            level = 1 + number % module.LEVELS
            problem = draw(module, rng, level, book, Split.TRAIN)
            assert not problem.operands or not is_held_out(name, problem.kind, problem.operands)
            if name not in HONEST:
                held = draw(module, rng, level if number % 5 else BEYOND, book, Split.HELD_OUT)
                assert is_held_out(name, held.kind, held.operands)


def test_no_training_word_is_held_out() -> None:
    words = plain_words(real_ranks())
    for name in FAMILIES:
        taken = {word.casefold() for listed in load_book(name, "held_out").words.values() for word in listed}
        book = _training_book(name, words, nano.MIXTURE)
        for listed in book.words.values():
            assert not taken & {word.casefold() for word in listed}


def test_a_made_up_word_is_no_held_out_one_either() -> None:
    words = {word.casefold() for listed in load_book("letters", "held_out").words.values() for word in listed}
    source = ConversationSource(nano.MIXTURE, ())
    # Seeds whose first made-up word is one of them.
    for seed in (16051, 26033, 31907):
        problem = source._of_family(random.Random(seed), "letters")
        assert not words & set(map(str, problem.operands))


def test_words_that_are_more_often_in_a_list_are_still_drawn_as_different_ones() -> None:
    book = Phrasebook("logic", {}, (), {"names": ("Ada",) * 50 + ("Ben", "Cleo")})
    for seed in range(50):
        assert sorted(book.sample(random.Random(seed), "names", 3)) == ["Ada", "Ben", "Cleo"]


def test_openings_have_short_stories_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "_HONEST_OPENINGS", 0)
    families = tuple(share for share in nano.MIXTURE.families if share[0] == "word_problems")
    source = ConversationSource(replace(nano.MIXTURE, families=families, beyond=0.5), ())
    drawn, of_family = [], source._of_family

    def kept(rng: random.Random, name: str) -> Problem:
        drawn.append(of_family(rng, name))
        return drawn[-1]

    monkeypatch.setattr(source, "_of_family", kept)
    levels = set()
    for seed in range(150):
        source.opening(seed)
        levels |= {drawn[-1].level} if drawn[-1].kind == "story" else set()
    assert levels == {1, 2}


def test_no_training_phrasing_is_a_held_out_one() -> None:
    words = plain_words(real_ranks(), most=50)
    for name in FAMILIES:
        book, held_out = _training_book(name, words, nano.MIXTURE), load_book(name, "held_out")
        held = {template for listed in held_out.kinds.values() for template in listed}
        held |= {template for theme in held_out.themes for template in theme.values()}
        assert held == book.without
        rng = random.Random(2)
        for kind, templates in book.kinds.items():
            slots = {
                slot: f"{{{slot}}}" for template in templates for _, slot, _, _ in Formatter().parse(template) if slot
            }
            assert all(book.phrase(rng, kind, **slots) not in held for _ in range(300))


def test_the_shortest_phrasings_are_heard_as_often_as_the_mixture_says() -> None:
    templates = tuple(f"{'now and then ' * place}what is {{a}} + {{b}}?" for place in range(80))
    for plain in (0.25, 0.5):
        heard = Counter(weighted(templates, shortest(templates), plain))
        assert set(heard) == set(templates)
        assert abs(sum(heard[short] for short in templates[:10]) / heard.total() - plain) < 0.03
        assert all(heard[long] == 1 for long in templates[10:])
    assert weighted(templates, shortest(templates), 0.0) == weighted(templates, shortest(templates), 0.1) == templates
    two = ("{a}?", "{a}")
    assert weighted(two, shortest(two), 0.5) == two


def test_a_choice_counts_with_its_first_option_only() -> None:
    others = ("please " * 4 + f"{{a}} {n}" for n in range(8))
    long = ("[[so|so, all in all and taken together]] {a}", *others)
    assert shortest(long) == long[:1]


def test_some_stories_are_ordinary_from_beginning_to_end() -> None:
    whole = load_book("word_problems")
    strange = plain_words(real_ranks(), most=500)
    source = ConversationSource(nano.MIXTURE, strange)
    ordinary = source._ordinary
    assert all(ordinary.kinds[kind] == templates[:12] for kind, templates in whole.kinds.items())
    assert set(ordinary.words["names"]) <= set(whole.words["names"])
    names, drawn = set(whole.words["names"]), 0
    for seed in range(1200):
        prompt = source._of_family(random.Random(seed), "word_problems").prompt
        drawn += bool(names & set(re.findall(r"\w+", prompt)))
    share = nano.MIXTURE.ordinary
    # Of the others, three in ten words are strange.
    assert drawn / 1200 == pytest.approx(share + (1 - share) * 0.7, abs=0.06)


def test_an_opening_is_a_question_and_the_line_that_says_what_was_asked(tokenizer: Tokenizer) -> None:
    source, encoder = ConversationSource(nano.MIXTURE, ()), nano.make_encoder(tokenizer)
    first = [source.opening(seed) for seed in range(600)]
    assert first == [source.opening(seed) for seed in range(600)]
    honest = 0
    for conversation in first:
        (turn,) = conversation.turns
        sequence = encoder.encode(conversation)
        said = tokenizer.decode([id_ for id_, learned in zip(sequence.ids, sequence.learn, strict=True) if learned])
        if not turn.opening:
            honest += 1
            assert turn.reply
            assert sequence.ids[-1] == encoder.end
            continue
        assert not turn.reply
        assert sequence.ids[-1] not in (encoder.end, encoder.think_close)
        assert said.removeprefix("[THINK]") == turn.thinking
        assert turn.thinking.endswith("\n")
        assert turn.thinking.count("\n") <= 2
    assert 40 < honest < 110


def test_an_opening_is_how_the_whole_thought_begins(tokenizer: Tokenizer) -> None:
    encoder = nano.make_encoder(tokenizer)
    for name in ORDERS:
        rng, book = random.Random(5), load_book(name)
        for _ in range(40 if book.kinds else 0):
            problem = draw(FAMILIES[name], rng, 1, book, Split.TRAIN)
            opening = opened(problem, problem.prompt)
            whole = encoder.encode(Conversation((Turn(problem.prompt, problem.thinking, problem.reply),)))
            begun = encoder.encode(Conversation((opening,)))
            assert begun.ids == whole.ids[: len(begun.ids)], problem
            assert begun.learn == whole.learn[: len(begun.ids)], problem


def test_a_reading_is_lines_of_thoughts_in_their_tokens(tokenizer: Tokenizer) -> None:
    source, encoder = ConversationSource(nano.MIXTURE, ()), nano.make_encoder(tokenizer)
    meanings = Counter[str]()
    for seed in range(500):
        read = source.reading(seed)
        assert read == source.reading(seed)
        lines = "".join(f"{line.sentence}{line.meant}\n" for line in read)
        whole = encoder.encode(Conversation((Turn("", lines, "", opening=True),)))
        sequence = encoder.encode_reading(read)
        assert sequence.ids[1:] == whole.ids[-len(sequence.ids) + 1 :]
        ids = [id_ for id_, learned in zip(sequence.ids, sequence.learn, strict=True) if learned]
        assert tokenizer.decode(ids) == "".join(f"{line.meant}\n" for line in read)
        assert all(line.sentence.startswith(MARK) and line.sentence.endswith(":") for line in read)
        meant = "".join(f"{line.meant} " for line in read)
        meanings.update(re.findall(r" (gets|loses|over|under|like|unlike) ", meant))
    for one, other in (("gets", "loses"), ("over", "under"), ("like", "unlike")):
        assert 0.7 < meanings[one] / meanings[other] < 1.4
        assert min(meanings[one], meanings[other]) > 60


def test_openings_have_every_kind_of_order_about_as_often() -> None:
    kinds = [(name, kind) for name in ORDERS for kind in load_book(name).kinds for _ in range(_MISTAKEN.get(kind, 1))]
    kinds += [(name, kind) for name in _TOLD for kind in _TOLD[name]]
    source, heard = ConversationSource(nano.MIXTURE, ()), Counter[str]()
    for seed in range(3000):
        turn = source.opening(seed).turns[0]
        if turn.opening:
            heard[MARK if turn.thinking[0] == MARK else re.split(r"[ \n\d]", turn.thinking, maxsplit=1)[0]] += 1
    about = 0.88 * 3000 / len(kinds)
    names = {"count": 3, "sort": 1, "reverse": 1, "length": 1, "prime": 1, "gcd": 1, "rectangle": 3, MARK: 9}
    for word, kinds_of_it in names.items():
        assert 0.6 < heard[word] / (kinds_of_it * about) < 1.5, (word, heard[word], about)


def test_plain_questions_are_heard_in_every_order() -> None:
    share = nano.MIXTURE.plain
    assert share > 0
    for name in ORDERS:
        book, plain = load_book(name), _training_book(name, (), nano.MIXTURE)
        for kind, templates in book.kinds.items():
            heard = Counter(plain.kinds[kind])
            often = sum(count for count in heard.values() if count > 1)
            assert abs(often / heard.total() - share) < 0.05, (name, kind)
            assert set(heard) == set(templates)


def test_noise_keeps_digits_and_careful_noise_keeps_letters() -> None:
    rng = random.Random(0)
    prompt = "Please solve 3x + 5 = 20 for Ada"
    for _ in range(300):
        noisy = retype(rng, prompt, careful=False)
        assert [one for one in noisy if one.isdigit()] == list("3520")
        assert "solve 3x + 5 = 20 for Ada" in retype(rng, prompt, careful=True)


def test_figures_are_written_as_people_write_them() -> None:
    rng = random.Random(0)
    written = Counter(
        figures(rng, "What is 1248 / 16 at 09:05, in 3.1415 or 1234567?", "arithmetic") for _ in range(400)
    )
    assert set(written) == {
        "What is 1248 / 16 at 09:05, in 3.1415 or 1234567?",
        "What is 1,248 / 16 at 09:05, in 3.1415 or 1234567?",
    }
    assert min(written.values()) > 30
    dates = {figures(rng, "From 09:05 to 10:00, and 2024", "dates") for _ in range(100)}
    assert dates == {"From 09:05 to 10:00, and 2024", "From 9:05 to 10:00, and 2024"}
    assert {figures(rng, "1000, 2000 and 09:05", "sequences") for _ in range(100)} == {"1000, 2000 and 09:05"}


def test_small_numbers_are_words_where_there_is_no_expression() -> None:
    seen = {figures(random.Random(seed), "3 friends share 45 stickers. Each gets?", "arithmetic") for seed in range(60)}
    assert seen == {"3 friends share 45 stickers. Each gets?", "Three friends share 45 stickers. Each gets?"}
    told = {figures(random.Random(seed), "Take 8 from 91 eggs", "arithmetic") for seed in range(60)}
    assert told == {"Take 8 from 91 eggs", "Take eight from 91 eggs"}
    for prompt in ("What is 3 + 4?", "5(2-9)", "8 x 6 = ?", "Take 1.5 and 7%"):
        assert all(figures(random.Random(seed), prompt, "arithmetic") == prompt for seed in range(60))
    assert all(figures(random.Random(seed), "gcd of 4 and 6", "numbers") == "gcd of 4 and 6" for seed in range(60))


def test_the_shipped_tokenizer_is_made_by_the_recipe_format(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.size == nano.VOCABULARY
    assert tokenizer.version == "v13"
    assert (tokenizer.id("[THINK]"), tokenizer.id("[/THINK]")) == (34, 35)
    assert len(tokenizer.encode_text("1234567890")) == 10

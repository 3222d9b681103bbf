"""Word problems: small stories of one amount that changes, and five kinds told in one sentence or two.

Knows the numbers and the operations only; every sentence comes from the book.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from magister.answers.exact import extract, rational
from magister.tasks import digits
from magister.tasks.phrasebook import Phrasebook
from magister.tasks.problem import BEYOND, Problem, state
from magister.tasks.quotation import quote

NAME = "word_problems"
LEVELS = 5

LONGEST = 300
"""Characters of computation above which a problem is drawn again."""

_TRIES = 30

STEPS = ("gain", "lose", "groups_gain", "groups_lose", "times", "share")

_LABELS = {
    "gain": "gets {0}",
    "lose": "loses {0}",
    "groups_gain": "gets {0}*{1}",
    "groups_lose": "loses {0}*{1}",
    "times": "times {0}",
    "share": "share by {0}",
    "other_more": "other +{0}",
    "other_fewer": "other -{0}",
}
_SLOTS = {"gain": "n", "lose": "n", "groups_gain": "kn", "groups_lose": "kn", "times": "k", "share": "k"}
_UNITS = {
    "shop": {"coin", "coins"},
    "two_prices": {"coin", "coins"},
    "travel": {"km", "kilometers", "kilometres", "kilometer", "kilometre"},
}
_NOT_ITEMS = {"day", "days", "people", "times", "more", "fewer"}


class _Step(NamedTuple):
    code: str
    numbers: tuple[int, ...]

    @property
    def label(self) -> str:
        return _LABELS[self.code].format(*self.numbers)


def generate(rng: random.Random, level: int, book: Phrasebook) -> Problem:
    """A story of level + 1 steps, or at levels 1 to 3 and beyond one of the whole kinds."""
    for _ in range(_TRIES):
        whole = level in (BEYOND, 1, 2, 3) and rng.random() < 0.35
        if whole:
            problem, length = _whole(rng, level, book)
        else:
            problem, length = _story(rng, level, book)
        if length <= LONGEST:
            break
    return problem


def grade(problem: Problem, reply: str) -> bool:
    """Whether the number is right; the unit, or a noun of the prompt, of one or of many, may follow it."""
    match = re.fullmatch(r"([^A-Za-z]*\d)\.?\s*([A-Za-z][A-Za-z' -]*)?\.?", extract(reply))
    if match is None or rational(match.group(1)) != rational(problem.answer):
        return False
    unit = (match.group(2) or "").strip().casefold()
    if not unit or problem.kind in _UNITS:
        return not unit or unit in _UNITS[problem.kind]
    forms = {unit, *_plurals(unit)}
    named = re.search(rf"\b({'|'.join(map(re.escape, forms))})\b", problem.prompt.casefold())
    return named is not None and not forms & _NOT_ITEMS


def _plurals(noun: str) -> tuple[str, ...]:
    """What the regular plural of a noun may be: a prompt says `apples` where the answer is 1 apple."""
    return f"{noun}s", re.sub(r"([sxzoh])$", r"\1es", noun), re.sub(r"y$", "ies", noun), re.sub(r"fe?$", "ves", noun)


def _story(rng: random.Random, level: int, book: Phrasebook) -> tuple[Problem, int]:
    """The problem, and how many characters its computations take."""
    count, size, limit = _shape(rng, level)
    start = total = rng.randint(max(2, 10 ** (size - 1)), 10**size - 1)
    with_other = rng.random() < 0.25
    steps: list[_Step] = []
    length = 0
    for _ in range(count - with_other):
        step = _pick(rng, total, size, limit)
        text, total = _carry_out(step, total)
        steps.append(step)
        length += len(text)
    name, other = book.sample(rng, "names", 2)
    item = book.word(rng, "nouns")
    parts = [book.phrase(rng, "open", name=name, n=start, item=item)]
    for step in steps:
        slots = dict(zip(_SLOTS[step.code], step.numbers, strict=True))
        parts.append(book.phrase(rng, step.code, name=name, item=item, **slots))
    told = _told_again(steps, parts[1:], start)
    if with_other:
        step = _pick_other(rng, total, size)
        work = (digits.add if step.code == "other_more" else digits.subtract)(total, step.numbers[0])
        both = digits.add(total, work.result)
        parts.append(book.phrase(rng, step.code, other=other, name=name, n=step.numbers[0], item=item))
        parts.append(book.phrase(rng, "ask_both", name=name, other=other, item=item))
        told.append((step.label, f"{work.text}\nboth: {both.text}"))
        length += len(told[-1][1]) - 1
        steps.append(step)
        total = both.result
    else:
        parts.append(book.phrase(rng, "ask", name=name, item=item))
    operands: list[int | str] = [start]
    for step in steps:
        operands += [step.code, *step.numbers]
    lines = [quote(parts[0], f"start {start}", first=True)]
    for part, (label, text) in zip(parts[1:], told, strict=False):
        lines += [quote(part, label), text]
    return _problem("story", level, tuple(operands), " ".join(parts), "\n".join(lines), total), length


def _told_again(steps: list[_Step], parts: list[str], amount: int) -> list[tuple[str, str]]:
    """What each sentence says of the amount, its numbers in the order it mentions them in, and what comes of it."""
    told = []
    for step, part in zip(steps, parts, strict=True):
        mentioned = step._replace(numbers=_as_mentioned(part, step.numbers))
        text, amount = _carry_out(mentioned, amount)
        told.append((mentioned.label, text))
    return told


def _as_mentioned(sentence: str, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers in the order the sentence mentions them in: so they are copied, and only then understood."""
    places = {number: re.search(rf"(?<!\d){number}(?!\d)", sentence) for number in numbers}
    found = {number: match.start() for number, match in places.items() if match}
    return tuple(sorted(numbers, key=lambda number: found[number])) if len(found) == len(places) else numbers


def _shape(rng: random.Random, level: int) -> tuple[int, int, int]:
    """How many steps, how many digits the start has, and the most the amount may come to."""
    if level == BEYOND:
        return (rng.randint(8, 9), rng.randint(1, 2), 99) if rng.random() < 0.5 else (rng.randint(2, 3), 5, 999_999)
    size = rng.choice((1, 2, 3)) if level <= 3 else rng.choice((1, 1, 2, 2, 3))
    # Columns of three digits are long: long stories stay small so that the thought stays short.
    return level + 1, size, 999 if size == 3 or rng.random() < 0.2 else 99


def _pick(rng: random.Random, total: int, size: int, limit: int) -> _Step:
    """A random step that keeps the amount from 1 to `limit`; getting or losing some always fits."""
    for code in rng.sample(STEPS, len(STEPS)):
        numbers = _numbers(rng, code, total, size, limit)
        if numbers:
            return _Step(code, numbers)
    raise ValueError(f"no step fits an amount of {total} with a limit of {limit}")


def _numbers(rng: random.Random, code: str, total: int, size: int, limit: int) -> tuple[int, ...]:
    """Numbers for a step of this kind, empty where none fit."""
    if code == "times":
        most = min(9, limit // total)
        return (rng.randint(2, most),) if most >= 2 else ()
    if code == "share":
        parts = [k for k in range(2, 11) if total % k == 0]
        return (rng.choice(parts),) if parts else ()
    room = limit - total if code in ("gain", "groups_gain") else total - 1
    if code in ("gain", "lose"):
        return (_number(rng, size, room),) if room >= 2 else ()
    if room < 4:
        return ()
    k = rng.randint(2, min(9, room // 2))
    return k, _number(rng, max(1, size - 1), room // k)


def _number(rng: random.Random, size: int, high: int) -> int:
    """A number from 2 to `high` of at most `size` digits, each count of digits as likely."""
    length = rng.randint(1, min(size, len(str(high))))
    return rng.randint(max(2, 10 ** (length - 1)), min(high, 10**length - 1))


def _pick_other(rng: random.Random, total: int, size: int) -> _Step:
    if total >= 3 and rng.random() < 0.5:
        return _Step("other_fewer", (_number(rng, size, total - 1),))
    return _Step("other_more", (_number(rng, size, 10**size - 1),))


def _carry_out(step: _Step, total: int) -> tuple[str, int]:
    """The computation of one step, and the amount after it."""
    first = step.numbers[0]
    match step.code:
        case "gain":
            work = digits.add(total, first)
        case "lose":
            work = digits.subtract(total, first)
        case "times":
            work = digits.multiply(total, first)
        case "share":
            work = digits.divide(total, first)
        case _:
            groups = digits.multiply(*step.numbers)
            work = (digits.add if step.code == "groups_gain" else digits.subtract)(total, groups.result)
            return f"{groups.text}\n{work.text}", work.result
    return work.text, work.result


def _whole(rng: random.Random, level: int, book: Phrasebook) -> tuple[Problem, int]:
    """The problem, and how many characters its computations take in the order its operands are drawn in."""
    kind = rng.choice(tuple(_KINDS))
    draw, think = _KINDS[kind]
    slots = draw(rng, level)
    words: dict[str, object] = {"name": "", "item": ""}
    words["name"], other = book.sample(rng, "names", 2)
    words["item"], item2 = book.sample(rng, "nouns", 2)
    if kind == "two_prices":
        words["item2"] = item2
    elif kind == "pool":
        words["other"] = other
    elif kind == "travel":
        del words["item"]
    prompt = book.phrase(rng, kind, **words, **slots)
    thinking, total = think(slots, prompt)
    return _problem(kind, level, tuple(slots.values()), prompt, thinking, total), len(think(slots, "")[0])


def _price(rng: random.Random, level: int, k: int, most: int) -> int:
    """What one costs, so that k cost at most `most`; five digits where beyond."""
    if level == BEYOND:
        return rng.randint(10_000, 99_999)
    return _number(rng, level, most // k)


def _shop(rng: random.Random, level: int) -> dict[str, int]:
    k = rng.randint(2, 9)
    p = _price(rng, level, k, 900)
    return {"k": k, "p": p, "pay": k * p + _number(rng, max(1, level), max(9, 999 - k * p))}


def _think_shop(slots: dict[str, int], prompt: str) -> tuple[str, int]:
    first, second = _as_mentioned(prompt, (slots["k"], slots["p"]))
    cost = digits.multiply(first, second)
    change = digits.subtract(slots["pay"], cost.result)
    return f"change {slots['pay']}-{first}*{second}\n{cost.text}\n{change.text}", change.result


def _two_prices(rng: random.Random, level: int) -> dict[str, int]:
    k, j = rng.randint(2, 9), rng.randint(2, 9)
    return {"k": k, "p": _price(rng, level, k, 499), "j": j, "q": _price(rng, level, j, 499)}


def _think_two_prices(slots: dict[str, int], prompt: str) -> tuple[str, int]:
    pairs = [_as_mentioned(prompt, pair) for pair in ((slots["k"], slots["p"]), (slots["j"], slots["q"]))]
    first, second = (digits.multiply(*pair) for pair in pairs)
    total = digits.add(first.result, second.result)
    plan = "+".join(f"{a}*{b}" for a, b in pairs)
    return f"cost {plan}\n{first.text}\n{second.text}\n{total.text}", total.result


def _travel(rng: random.Random, level: int) -> dict[str, int]:
    t = rng.randint(2, 9)
    v = rng.randint(3, 12) if level == 1 else rng.randint(10, 99 if level == 2 else 109)
    d = rng.randint(10_000, 99_999) if level == BEYOND else _number(rng, level, 999 - v * t)
    return {"v": v, "t": t, "d": d}


def _think_travel(slots: dict[str, int], prompt: str) -> tuple[str, int]:
    first, second = _as_mentioned(prompt, (slots["v"], slots["t"]))
    way = digits.multiply(first, second)
    total = digits.add(way.result, slots["d"])
    return f"distance {first}*{second}+{slots['d']}\n{way.text}\n{total.text}", total.result


def _work(rng: random.Random, level: int) -> dict[str, int]:
    k = rng.randint(2, 9)
    n = _price(rng, level, k, 999)
    return {"n": n, "k": k, "d": _number(rng, max(1, level), n * k - 1)}


def _think_work(slots: dict[str, int], prompt: str) -> tuple[str, int]:
    first, second = _as_mentioned(prompt, (slots["n"], slots["k"]))
    made = digits.multiply(first, second)
    good = digits.subtract(made.result, slots["d"])
    return f"good {first}*{second}-{slots['d']}\n{made.text}\n{good.text}", good.result


def _pool(rng: random.Random, level: int) -> dict[str, int]:
    k = rng.randint(2, 9)
    each = rng.randint(20_000, 99_999) // k if level == BEYOND else max(2, _price(rng, level, k, 999))
    a = rng.randint(10_000, k * each - 2) if level == BEYOND else rng.randint(2, k * each - 2)
    return {"a": a, "b": k * each - a, "k": k}


def _think_pool(slots: dict[str, int], prompt: str) -> tuple[str, int]:
    first, second = _as_mentioned(prompt, (slots["a"], slots["b"]))
    both = digits.add(first, second)
    share = digits.divide(both.result, slots["k"])
    return f"each ({first}+{second})/{slots['k']}\n{both.text}\n{share.text}", share.result


_KINDS = {
    "shop": (_shop, _think_shop),
    "two_prices": (_two_prices, _think_two_prices),
    "travel": (_travel, _think_travel),
    "work": (_work, _think_work),
    "pool": (_pool, _think_pool),
}
"""Of each kind told whole: its slots drawn, and its thought and result."""


def _problem(kind: str, level: int, operands: tuple[int | str, ...], prompt: str, thinking: str, total: int) -> Problem:
    return Problem(
        family=NAME,
        kind=kind,
        level=level,
        operands=operands,
        prompt=prompt,
        thinking=thinking,
        answer=str(total),
        reply=state(str(total), beyond=level == BEYOND),
    )

"""Facts that are drilled: true, written as thoughts write them, and none of them held out."""

from __future__ import annotations

import random
import re
from collections import Counter

from tests.tasks import checks

from magister.tasks import is_held_out
from magister.tasks.arithmetic_division import long_divide
from magister.train.drill_facts import Fact, fact, picks


def drawn() -> list[Fact]:
    rng = random.Random(11)
    return [fact(rng) for _ in range(11000)]


def kind_of(one: Fact) -> str:
    forms = {
        "days left": r"(before -|after \+)\d+, \d+\n\d+(>=|<|>|<=)\d+",
        "listed": r"\d+(\D+\d+)+\n\d+(,\d+)+",
        "factors": r"\d+=[\d*]+\n\d+/\d+=\d+\n\d+=[\d*]+",
        "euclid": r"gcd \d+ \d+\n\d+:1.*\n\d+-\d+",
        "negative": r"-?\d+(-\(-\d+\)|\+24)=-?\d+",
        "multiples": r"\d+/\d+:\n\d+:1.*\n(\d+: \d+:\d|\d+/\d+=\d)",
        "long division": r"\d+/\d+:\n.*",
        "copy": r"[=|*]?\d+\n\d+",
        "by three": r"by 3: [\d+]+=\d+, (yes|no)",
        "table": r"\d+/\d+=\d+( remainder \d+)?",
        "sign": r"\d+-\d+(:|=-\(\d+-\d+\))",
        "equation": r"[\d+*-]+=-?\d+",
        "expression": r"[^\n=]+\n[\d+*/()-]+",
        "begun": r"[\d+*/()-]+\n[\d+*/()-]+[:=]",
        "step": r"[\d+*/()-]+\n(.*[=:].*\n)+[\d+*/()-]+",
    }
    if re.fullmatch(r"\d+/\d+", one.asked):
        return "quotient"
    return next(name for name, form in forms.items() if re.fullmatch(form, one.asked + one.told))


def test_every_fact_is_true() -> None:
    seen: Counter[str] = Counter()
    for one in drawn():
        kind = kind_of(one)
        seen[kind] += 1
        numbers = [int(number) for number in re.findall(r"\d+", one.asked)]
        match kind:
            case "multiples":
                assert long_divide(*numbers).text.startswith(one.asked + one.told), one
                assert (numbers[0] % numbers[1] == 0) == ("=" in one.told), one
            case "days left":
                left, sign, length = re.fullmatch(r"(\d+)([<>=]+)(\d+)", one.told).groups()  # type: ignore[union-attr]
                assert [int(left), int(length)] == numbers, one
                assert sign in ((">=", "<") if one.asked.startswith("before") else (">", "<=")), one
                assert eval(one.told), one
            case "listed":
                assert one.told == ",".join(map(str, numbers)), one
            case "factors":
                before, step, after = (one.asked + one.told).split("\n")
                assert not checks.wrong_equations(f"{before}\n{step}\n{after}"), one
                factors, split = ([int(n) for n in line.split("=")[1].split("*")] for line in (before, after))
                assert split[:-2] == factors[:-1], one
                assert split[-2] * split[-1] == factors[-1], one
            case "euclid":
                listed, taken = one.told.split("\n")
                values = [int(entry.split(":")[0]) for entry in listed.split()]
                assert all(
                    entry == f"{value}:{value // numbers[1]}"
                    for entry, value in zip(listed.split(), values, strict=True)
                ), one
                # Ten times and a hundred times are seen at once.
                assert len(values) in (1, 9) or values[-1] >= numbers[0] > values[-2], one
                assert len(values) > 1 or values[0] == numbers[0], one
                assert taken == f"{numbers[0]}-{max(value for value in values if value <= numbers[0])}", one
            case "negative":
                assert eval(one.asked[:-1]) == int(one.told), one
            case "quotient":
                whole = numbers[0] % numbers[1] == 0
                assert one.told == (f"={numbers[0] // numbers[1]}" if whole else " no"), one
            case "table":
                assert not checks.wrong_equations(one.asked + one.told), one
                assert max(numbers[0], 10 * numbers[1]) <= 100, one
            case "copy":
                assert one.told == str(numbers[0]), one
            case "by three":
                total, says = one.told.split(", ")
                assert int(total) == sum(numbers[1:]), one
                assert says == ("no" if int(total) % 3 else "yes"), one
            case "sign":
                assert (one.told == ":") == (numbers[0] >= numbers[1]), one
            case "long division":
                assert not checks.wrong_equations(one.told), one
                assert one.told.startswith(f"{numbers[0]}-{numbers[0] // numbers[1]}*{numbers[1]}="), one
            case "expression":
                written = one.asked.strip().replace(" ", "").translate(str.maketrans("×·x÷−", "***/-"))
                assert re.sub(r"(\d|\))\(", r"\1*(", written) == one.told, one
            case "begun":
                # Two neighbours, the larger perhaps first, their signs perhaps set aside.
                first, second = re.findall(r"\d+", one.told)
                pairs = ((first, second), (second, first))
                assert any(re.search(rf"{a}\)?[-+*/]\(?-?{b}(?!\d)", one.asked) for a, b in pairs), one
            case "step":
                before, worked = one.asked.split("\n", 1)
                assert eval(before) == eval(one.told), one
                assert not checks.wrong_equations(worked), one
            case _ if "+10" in one.asked or not one.asked.startswith("0"):
                assert not checks.wrong_equations(one.asked + one.told), one
    assert len(seen) == 16
    assert min(seen.values()) > 200


def test_none_is_held_out() -> None:
    for one in drawn():
        numbers = tuple(int(number) for number in re.findall(r"\d+", one.asked))
        if max(numbers) < 10:
            continue
        if re.fullmatch(r"\d+[+-]\d+=?", one.asked):
            assert not is_held_out("arithmetic", "add" if "+" in one.asked else "sub", numbers), one
        if re.fullmatch(r"\d+\*\d+=", one.asked):
            assert not is_held_out("arithmetic", "mul", numbers), one
        if re.fullmatch(r"\d+/\d+[:=\n]*", one.asked):
            assert not any(is_held_out("arithmetic", kind, numbers) for kind in ("div", "remainder")), one


def test_a_pick_is_the_largest_multiple_that_fits() -> None:
    rng = random.Random(5)
    counts: Counter[int] = Counter()
    for _ in range(300):
        first, *others = picks(rng)
        *_, listed, rest = first.asked.split("\n")
        values = {int(value): int(times) for value, times in (entry.split(":") for entry in listed.split())}
        b = next(value for value, times in values.items() if times == 1)
        assert sorted(values.items()) == [(times * b, times) for times in range(1, 10)]
        for asked, told in [(rest, first.told), *others]:
            taken, times = map(int, told.split(":"))
            assert taken == times * b <= int(asked[:-1]) < taken + b, (b, asked, told)
            assert not any(is_held_out("arithmetic", kind, (int(asked[:-1]), b)) for kind in ("div", "remainder"))
            counts[times] += 1
    assert min(counts[times] for times in range(10)) > 80

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magister.answers import extract, rational, same


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The answer is **408**.", "408"),
        ("First **1**, then **2**", "2"),
        (r"so \boxed{3/4} it is, not **9**", "3/4"),
        ("no mark\n42\n", "42"),
        ("", ""),
    ],
)
def test_extract_takes_the_last_marked_answer(reply: str, answer: str) -> None:
    assert extract(reply) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", Fraction(1000)),
        ("-7", Fraction(-7)),
        ("−7", Fraction(-7)),
        ("2.50", Fraction(5, 2)),
        ("50%", Fraction(1, 2)),
        ("3 / 4", Fraction(3, 4)),
        ("x = 12", Fraction(12)),
        ("5.", Fraction(5)),
    ],
)
def test_rational_reads_exact_numbers(text: str, value: Fraction) -> None:
    assert rational(text) == value


@pytest.mark.parametrize("text", ["", "twelve", "12 apples", "1/0", "1,00", "3 4", "1e5", "--2", "9" * 1000])
def test_rational_refuses_what_is_no_single_number(text: str) -> None:
    assert rational(text) is None


@given(st.fractions(), st.fractions())
def test_same_is_equality_of_fractions(a: Fraction, b: Fraction) -> None:
    assert same(str(a), str(b)) == (a == b)


def test_same_compares_words_without_case_spaces_and_final_mark() -> None:
    assert same(" yes. ", "Yes")
    assert same("x = 2,y = 5", "x = 2, y = 5")
    assert not same("Yes", "No")

"""Forty questions in words of one's own, across the families: `python -m bench.forty [MODEL]` asks them all.

For a reader, not a test: no template made them, so what nano does not know shows. Printed are each question, whether
the answer is right, the thought and the answer.
"""

from __future__ import annotations

import sys

import magister
from magister.answers import extract

QUESTIONS: tuple[tuple[str, str], ...] = (
    ("What is 38 + 57?", "95"),
    ("what's 604 minus 278", "326"),
    ("Could you multiply 46 by 73 for me?", "3358"),
    ("How much is 1,248 divided by 16?", "78"),
    ("(12 + 8) * 5 - 40 = ?", "60"),
    ("What remains when 100 is divided by 7?", "2"),
    ("A baker makes 24 rolls and sells 9, then bakes 12 more. How many rolls are there?", "27"),
    ("Sam has 15 marbles. He loses 6 of them. Then he finds 4 more. How many marbles does Sam have now?", "13"),
    ("Three friends share 45 stickers equally. How many does each get?", "15"),
    ("Nina has 8 pencils. She buys 3 boxes with 6 pencils each. How many pencils does Nina have?", "26"),
    ("A bus goes 60 km/h for 3 hours and then 25 km more. How far is that?", "205"),
    ("Solve 4x + 7 = 31", "x=6"),
    ("Find y: 5y - 3 = 2y + 12", "y=5"),
    ("x + y = 10 and x - y = 4. What are x and y?", "x=7,y=3"),
    ("What is 3/4 + 1/6?", "11/12"),
    ("Simplify 18/24", "3/4"),
    ("What is 15% of 240?", "36"),
    ("A coat of 80 euros is reduced by 25%. What does it cost now?", "60"),
    ("What percent of 50 is 12?", "24"),
    ("What is the greatest common divisor of 36 and 84?", "12"),
    ("least common multiple of 8 and 12?", "24"),
    ("Is 97 a prime number?", "yes"),
    ("Write 45 in binary", "101101"),
    ("Factor 84 into primes", "2*2*3*7"),
    ("What comes next: 3, 6, 12, 24?", "48"),
    ("1, 4, 9, 16, ... next?", "25"),
    ("Which number follows 50, 43, 36, 29?", "22"),
    ("What day of the week is it 10 days after Monday?", "thursday"),
    ("What date is 20 days after 15 March 2021?", "4april2021"),
    ("It's 9:45. What time is it in 50 minutes?", "10:35"),
    ("How many metres are 3.5 km?", "3500"),
    ("Convert 150 minutes to hours", "2.5"),
    ("How many r's are in strawberry?", "3"),
    ("Spell planet backwards", "tenalp"),
    ("Put the letters of banana in alphabetical order", "aaabnn"),
    ("Tom is taller than Jim. Jim is taller than Al. Who is the shortest?", "al"),
    ("Ann always tells the truth. Ann says that Bob lies. Who tells the truth?", "ann"),
    ("What is the area of a rectangle 12 by 7?", "84"),
    ("Two angles of a triangle are 50 and 60 degrees. What is the third?", "70"),
    ("What is the capital of France?", ""),
)
"""With what is right, in lower case without blanks; nothing stands for an honest reply."""

_UNITS = ("m", "metres", "h", "hours", "%", "km", "degrees", "euros")


def is_right(answer: str, due: str) -> bool:
    """Whether `answer` states what is due; a unit may follow it or be left out."""
    if not due:
        return "I am nano" in answer
    said = extract(answer).casefold().replace(" ", "").rstrip(".")
    return said in {due, due.removeprefix("x=").removeprefix("y="), *(due + unit for unit in _UNITS)}


def main(model: str = "nano") -> None:
    """Ask them all."""
    right = 0
    with magister.load(model) as chat:
        for question, due in QUESTIONS:
            reply = chat.chat(question, max_tokens=600)
            well = is_right(reply.answer, due)
            right += well
            lines = [*reply.thinking.splitlines(), "", *reply.answer.splitlines(), ""]
            _tell(f"{'right' if well else 'WRONG'}  {question}", *(f"    {line}"[:200] for line in lines))
    _tell(f"{right} of {len(QUESTIONS)} are right")


def _tell(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:2])

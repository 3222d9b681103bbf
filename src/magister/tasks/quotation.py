"""A sentence of the question said again within a thought, in the question's own tokens, and what it means.

Read off right behind the sentence, what it means is easy to tell, and no sentence is lost or taken twice.
"""

from __future__ import annotations

MARK = ">"
"""What a line begins with that quotes."""


def quote(sentence: str, meant: str, *, first: bool = False) -> str:
    """The line that quotes `sentence`.

    The question's `first` words have no blank before them there, and so have none here: they are the same tokens.
    """
    return f"{MARK}{'' if first else ' '}{sentence.strip().rstrip('.?')}: {meant}"


def quotations(thinking: str) -> list[tuple[str, str]]:
    """The sentences that a thought quotes, each as it stands behind the mark, and what each means."""
    lines = (line[len(MARK) :] for line in thinking.split("\n") if line.startswith(MARK))
    return [(sentence, meant) for sentence, meant in (line.rsplit(": ", 1) for line in lines)]

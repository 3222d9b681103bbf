"""What an answer is: finding it in a reply, reading it as an exact value, comparing two.

Knows nothing of the problem that was asked.
"""

from magister.answers.exact import extract, rational, same

__all__ = ["extract", "rational", "same"]

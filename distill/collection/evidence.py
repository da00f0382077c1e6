"""Whether a failure concerns one row or the whole run: what ends a run needs evidence."""

from __future__ import annotations

import re

from distill.errors import DistillError, TeacherError

REFUSED_AT_FIRST = 20
"""Rows refused alike, before any good answer, that show that every row would be."""
REFUSED_LATER = 50
"""The same, after good answers."""
FATAL_ON_RESUME = 3
"""Rows that meet the same fatal error in a run that had no answer yet, where earlier runs had some."""
FATAL_LATER = 10
"""The same, after good answers in this run."""
GIVEN_UP = 10
"""Rows in a row that used up their retries: the teacher is down."""

_ABOUT_THE_PROMPT = re.compile(
    r"flagged|moderat|content[ _-]?(policy|filter|management)|safety|context[ _-]?(length|window|size)|"
    r"(prompt|input|request|message)s? (is|are|was|were)? ?too (long|large)|too many tokens|maximum context",
    re.IGNORECASE,
)
_DETAILS = re.compile(r"[0-9a-f]{8,}|\d+|req[-_]\w+", re.IGNORECASE)
_START = 60
"""Characters of a server's reason that are compared: what follows may quote the prompt."""


class Evidence:
    """Weighs failures against answers. A failure ends the run at once only before the first good answer.

    Args:
        earlier: whether the output file has rows of this teacher: earlier runs had good answers.

    Attributes:
        answered: good answers of this run.
    """

    def __init__(self, earlier: bool = False):
        self._earlier = earlier
        self.answered = 0
        self._alike: dict[str, set[str]] = {}

    def answer(self) -> None:
        """Count a good answer: whatever failed before it does not concern every row."""
        self.answered += 1
        self._alike.clear()

    def fatal(self, error: TeacherError) -> bool:
        """Whether an error ends the run at once: all rows would meet it, and no answer contradicts that."""
        return error.fatal and not self.answered and not self._earlier and not about_the_prompt(error)

    def may_retry(self, error: TeacherError) -> bool:
        """Whether asking again may help; a fatal error counts as passing only while others are answered."""
        return error.retryable and (not error.fatal or self.answered > 0)

    def against(self, row: str, error: DistillError, *, paid: bool = False) -> TeacherError | None:
        """Count a row that was given up.

        Args:
            row: its id.
            error: why it was given up.
            paid: whether the teacher answered, with something that cannot be learnt from, such as a refusal.

        Returns:
            The error that ends the run, where enough different rows in a row failed alike.
        """
        proven = self.answered > 0 or self._earlier
        teachers_own = isinstance(error, TeacherError) and not paid and not about_the_prompt(error)
        if proven and not teachers_own:
            return None
        if not isinstance(error, TeacherError):  # a plugin that fails for one row may do so for all
            error = TeacherError(error.message, error.hint)
        alike = self._alike.setdefault("gave up" if error.retryable else signature(error), set())
        alike.add(row)
        if len(alike) < self._limit(error):
            return None
        if error.retryable:
            what = f"gave up after {len(alike)} rows failed one after the other: {error.message}"
        else:
            what = f"{len(alike)} rows in a row met the same refusal: {error.message}"
        return TeacherError(what, error.hint, fatal=True)

    def _limit(self, error: TeacherError) -> int:
        if error.fatal and not about_the_prompt(error):
            return FATAL_LATER if self.answered else FATAL_ON_RESUME
        if error.retryable:
            return GIVEN_UP
        return REFUSED_LATER if self.answered else REFUSED_AT_FIRST


def about_the_prompt(error: DistillError) -> bool:
    """Whether the error names this one prompt as its reason: a moderated or an overlong one."""
    return _ABOUT_THE_PROMPT.search(error.message) is not None


def signature(error: DistillError) -> str:
    """What two errors of one kind have in common: the message without numbers, ids and what it quotes at its end."""
    head, colon, reason = error.message.partition(": ")
    return _DETAILS.sub("#", head + colon + reason[:_START])

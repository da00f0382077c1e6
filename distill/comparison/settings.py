"""How a comparison is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.collection import NamedTeacher


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """What is compared with what.

    Attributes:
        base: the student before training, as `resolve_model` takes it; None: the run's own student.
        teacher: who answers the questions anew, as `make_teacher` made it; None: its recorded answers are enough.
        judge: who says which of two answers is the better one; None: nobody.
        data_format: the format of the rows, as `distill.transcripts.dialects` names it; None: found out row by row.
        limit: take only so many conversations.
        max_tokens: the longest answer of base and student.
        batch_size: sequences of a forward pass, conversations of a batch that is generated.
        seed: of the bootstrap.
    """

    base: str | None = None
    teacher: NamedTeacher | None = None
    judge: NamedTeacher | None = None
    data_format: str | None = None
    limit: int | None = None
    max_tokens: int = 256
    batch_size: int = 16
    seed: int = 0

"""What a proof or a check has to say of a data set: findings by code, counted, with the first rows named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distill.errors import DataError, unknown_name

Severity = Literal["error", "warning", "note"]

_NAMED = 5  # rows named a finding


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of finding.

    Attributes:
        severity: an error keeps `train` from starting; a warning says what a user would want to know; a note what
            was chosen.
        meaning: what is the matter, in one sentence.
        hint: the way out.
    """

    severity: Severity
    meaning: str
    hint: str


CODES: dict[str, Code] = {
    # The label proof (`distill.dataset.verify`).
    "wrong-answer": Code(
        "error",
        "the tokens of an answer do not decode to the assistant's text",
        "look at the row with `distill show`; choose another --formatter",
    ),
    "partial-answer": Code(
        "error", "only a part of an answer is trained", "look at the row with `distill show`; choose another --labeler"
    ),
    "prompt-trained": Code(
        "error",
        "what the assistant did not write is trained, though not everything is",
        "look at the row with `distill show`; choose another --labeler",
    ),
    "end-not-trained": Code(
        "error",
        "the end-of-turn marker is not trained: the student would never learn to stop",
        "use --labeler masked, or leave out -L end_of_turn=false",
    ),
    "end-is-not-eos": Code(
        "error",
        "an answer ends with another token than the one that generation stops at",
        "use a --formatter that ends all answers alike",
    ),
    "pad-is-eos": Code("error", "padding is the end-of-turn marker", "give the tokenizer a pad token of its own"),
    "control-from-content": Code(
        "error", "a control token came from a message's text", "report it: the engine should make this impossible"
    ),
    "unsteady-format": Code(
        "error", "the format refuses the plainest conversation: a question and an answer", "choose another --formatter"
    ),
    "all-trained": Code(
        "note", "every token is trained, the prompts' too", "use --labeler masked to train answers only"
    ),
    "template-trained": Code(
        "note",
        "some of the format's own text outside of answers is trained",
        "use --labeler masked to train answers only",
    ),
    "untrained-answer": Code("note", "an answer is not trained", "check its `weight`, and the labeler's options"),
    "untrained-reasoning": Code("note", "reasoning is in the text, but not trained", "leave out -L reasoning=false"),
    "reasoning-left-out": Code(
        "warning",
        "the format leaves out an answer's reasoning",
        "choose a student or a --formatter that has a place for it, if it shall be learnt",
    ),
    "system-prompt-added": Code(
        "warning",
        "the chat template writes a system prompt that the data do not have",
        "collect with the same --system TEXT, or give another template with -F template=FILE",
    ),
    "date-in-prompt": Code(
        "warning",
        "the chat template writes today's date into every prompt: the student is trained on one that passes",
        "give a template without it, with -F template=FILE",
    ),
    "text-changed": Code(
        "warning",
        "the student's tokenizer cannot give this text back as it was",
        "choose a student whose tokenizer knows the data's languages",
    ),
    "unknown-token": Code(
        "warning",
        "the student's tokenizer has no token for some of the text",
        "choose a student whose tokenizer knows the data's languages",
    ),
    "control-text": Code(
        "note",
        "a message holds the text of a control token; it is trained as plain text",
        "clean the data if it should not be there",
    ),
    "history-rewritten": Code(
        "note",
        "the chat template shows earlier answers differently: the row is trained as one example an answer",
        "nothing to do; the report counts rows and examples apart",
    ),
    # The teacher's log probabilities (`distill.soft_labels`).
    "logprobs-malformed": Code(
        "error",
        "an answer's log probabilities cannot be read",
        "collect or score the row again; see docs/transcripts.md",
    ),
    "logprobs-other-text": Code(
        "error",
        "an answer's log probabilities are of another text than the answer",
        "score the answers as they are, with `distill score`",
    ),
    "logprobs-other-tokenizer": Code(
        "error",
        "an answer's token ids belong to another tokenizer than the row says",
        "collect or score the row again with the right tokenizer",
    ),
    "logprobs-shifted": Code(
        "error",
        "an answer's log probabilities do not belong to its tokens: they may be shifted by one",
        "check the program that wrote them; or score the answers again, with `distill score`",
    ),
    "logprobs-missing": Code(
        "warning",
        "an example has no log probabilities, while others have: it is trained towards its tokens",
        "add them with `distill score`",
    ),
    "few-tokens-aligned": Code(
        "error",
        "less than half of the trained tokens could be aligned with the teacher's tokens",
        "check that student and teacher write the same text; or train with --loss cross-entropy",
    ),
    "few-tokens-exact": Code(
        "error",
        "less than half of the trained tokens are the teacher's tokens too, which --loss soft-labels needs",
        "use --loss chunks: teacher and student have different tokenizers",
    ),
    # Rows that are not trained (`distill.dataset.prepare`).
    "answer-left-out": Code(
        "warning", "an answer of a row that was split is not trained; the others are", "see the reason, as for a row"
    ),
    "skipped": Code("warning", "a row is not trained", "see the reason; mend the row or leave it out"),
    "no-answer": Code("warning", "a conversation has no answer; it is not trained", "collect its answers first"),
    "weight-0": Code(
        "note", "every answer of a row has weight 0; it is not trained", "nothing to do, if it is meant so"
    ),
    "empty-answer": Code("warning", "an answer is empty; the row is not trained", "collect it again, or leave it out"),
    "refused-answer": Code(
        "warning", "an answer is a refusal; the row is not trained", "ask otherwise, or leave it out"
    ),
    "cut-answer": Code(
        "warning",
        "an answer was cut at the teacher's token limit; the row is not trained",
        "collect it again with a higher --max-tokens",
    ),
    "unknown-finish": Code(
        "warning",
        "an answer's finish reason is not known to be a good one; the row is not trained",
        "collect it again; or remove the finish reason from the row, if the answer is whole",
    ),
    "overlong": Code(
        "error", "a row is longer than the student can take", "--max-length, or --overlong drop, or --overlong truncate"
    ),
    # The data themselves (`distill.dataset.check`).
    "nothing-to-train": Code("error", "no row can be trained", "see the reasons of the skipped rows"),
    "role-order": Code("warning", "the roles do not take turns", "make sure that the row is meant so"),
    "ends-on-user": Code("note", "the conversation ends without an answer", "its last message is not trained"),
    "duplicate": Code("warning", "the conversation is in the data already", "leave it out: it counts twice"),
    "leakage": Code("error", "a prompt is in the held-out file too", "leave it out of one of the two"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """All rows with the same matter.

    Attributes:
        code: a key of `CODES`.
        count: how often it was found.
        rows: the first few, each `file:line`, with what was found there.
    """

    code: str
    count: int
    rows: list[tuple[str, str]]

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return CODES[self.code].severity

    def __str__(self) -> str:
        where, detail = self.rows[0]
        return f"{self.count} × {self.code}: {CODES[self.code].meaning} ({where}{': ' if detail else ''}{detail})"

    def as_dict(self) -> dict[str, Any]:
        """The finding as `check --json` prints it."""
        code = CODES[self.code]
        rows = [{"row": where, "detail": detail} for where, detail in self.rows]
        return {
            "code": self.code,
            "severity": code.severity,
            "count": self.count,
            "meaning": code.meaning,
            "hint": code.hint,
            "rows": rows,
        }


@dataclass(slots=True)
class Findings:
    """Findings as they come: counts by code, and the first rows of each."""

    counts: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Findings:
        """Findings from their JSON, as `dataclasses.asdict` gives it."""
        rows = {code: [(where, detail) for where, detail in named] for code, named in saved["rows"].items()}
        return cls(dict(saved["counts"]), rows)

    def add(self, code: str, where: object, detail: str = "") -> None:
        """Count one: `where` is the row's source."""
        self.counts[code] = self.counts.get(code, 0) + 1
        named = self.rows.setdefault(code, [])
        if len(named) < _NAMED:
            named.append((str(where), detail))

    def merge(self, other: Findings) -> None:
        """Take in what was found elsewhere."""
        for code, count in other.counts.items():
            self.counts[code] = self.counts.get(code, 0) + count
            named = self.rows.setdefault(code, [])
            named += other.rows[code][: _NAMED - len(named)]

    def __iter__(self) -> Iterator[Finding]:
        order = list(CODES)
        severities = ("error", "warning", "note")
        for code in sorted(self.counts, key=lambda code: (severities.index(CODES[code].severity), order.index(code))):
            yield Finding(code, self.counts[code], self.rows[code])

    def errors(self, allow: Collection[str] = ()) -> list[Finding]:
        """The findings that keep training from starting."""
        return [finding for finding in self if finding.severity == "error" and finding.code not in allow]

    @staticmethod
    def check_codes(codes: Collection[str]) -> None:
        """Refuse codes that do not exist.

        Raises:
            UsageError: names the nearest one.
        """
        for code in codes:
            if code not in CODES:
                raise unknown_name("finding", code, CODES)

    def raise_errors(self, allow: Collection[str] = ()) -> None:
        """Refuse what the proof found wrong.

        Raises:
            DataError: there are errors that are not allowed; names the first with its rows and the way out.
        """
        errors = self.errors(allow)
        if not errors:
            return
        first = errors[0]
        rows = "; ".join(f"{where}: {detail}" if detail else where for where, detail in first.rows[:3])
        more = f"; {len(errors) - 1} more kinds of error: see `distill check`" if len(errors) > 1 else ""
        code = CODES[first.code]
        raise DataError(
            f"{first.count} × {first.code}: {code.meaning} ({rows}){more}",
            f"{code.hint}; or accept it with --allow {first.code}",
        )

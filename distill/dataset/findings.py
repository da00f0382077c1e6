"""What the label check, or `check`, found in a data set: findings by code, counted, with the first rows named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distill.errors import DataError, unknown_name

Severity = Literal["error", "warning", "note"]

_NAMED = 5  # rows named per finding


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of finding.

    Attributes:
        severity: an error keeps `train` from starting; a warning is worth a look; a note states a choice.
        meaning: what is wrong, in one sentence.
        hint: how to fix it.
        by_detail: rows are named once per detail, such as the name of a column.
    """

    severity: Severity
    meaning: str
    hint: str
    by_detail: bool = False


CODES: dict[str, Code] = {
    # The label check (`distill.dataset.verify`).
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
        "text that the assistant did not write is trained, though not everything is",
        "look at the row with `distill show`; choose another --labeler",
    ),
    "end-not-trained": Code(
        "error",
        "the end-of-turn marker is not trained: the student would never learn to stop",
        "use --labeler masked, or leave out -L end_of_turn=false",
    ),
    "end-is-not-eos": Code(
        "error",
        "an answer does not end with the token at which generation stops",
        "use a --formatter that ends all answers the same way",
    ),
    "pad-is-eos": Code("error", "padding is the end-of-turn marker", "give the tokenizer a pad token of its own"),
    "control-from-content": Code(
        "error", "a control token came from a message's text", "report it: the engine should make this impossible"
    ),
    "all-trained": Code(
        "note", "every token is trained, including the prompts", "use --labeler masked to train answers only"
    ),
    "template-trained": Code(
        "note",
        "some of the format's own text outside the answers is trained",
        "use --labeler masked to train answers only",
    ),
    "untrained-answer": Code("note", "an answer is not trained", "check its `weight`, and the labeler's options"),
    "untrained-reasoning": Code("note", "reasoning is in the text, but not trained", "leave out -L reasoning=false"),
    "reasoning-left-out": Code(
        "warning",
        "the format leaves out an answer's reasoning",
        "choose a student or a --formatter that has a place for it, if the student should learn it",
    ),
    "system-prompt-added": Code(
        "warning",
        "the chat template adds a system prompt that the data do not have",
        "collect with the same --system TEXT, or use another template with -F template=FILE",
    ),
    "date-in-prompt": Code(
        "warning",
        "the chat template writes today's date into every prompt: the student is trained on a date that will pass",
        "give the template's date variable a value, e.g. -F date_string='26 Jul 2024', or use -F template=FILE",
    ),
    "text-changed": Code(
        "warning",
        "the student's tokenizer cannot reproduce this text",
        "choose a student whose tokenizer knows the data's languages",
    ),
    "unknown-token": Code(
        "warning",
        "the student's tokenizer has no token for some of the text",
        "choose a student whose tokenizer knows the data's languages",
    ),
    "control-text": Code(
        "note",
        "a message contains the text of a control token; it is trained as plain text",
        "clean the data if it should not be there",
    ),
    "history-rewritten": Code(
        "note",
        "the chat template renders earlier answers differently: the row is trained as one example per answer",
        "nothing to do; the report counts rows and examples separately",
    ),
    "call-id-changed": Code(
        "note",
        "the chat template wants tool call ids of another shape: they are written in that shape, each always the same",
        "nothing to do",
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
        "warning", "one answer of a row is not trained; its other answers are", "see the reason, as for a row"
    ),
    "skipped": Code("warning", "a row is not trained", "see the reason; fix the row or leave it out"),
    "no-answer": Code("warning", "a conversation has no answer; it is not trained", "collect its answers first"),
    "weight-0": Code(
        "note", "every answer of a row has weight 0; it is not trained", "nothing to do, if that is intended"
    ),
    "empty-answer": Code("warning", "an answer is empty; the row is not trained", "collect it again, or leave it out"),
    "refused-answer": Code(
        "warning", "an answer is a refusal; the row is not trained", "rephrase the prompt, or leave it out"
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
    "refused-row": Code(
        "warning",
        "a row is not a conversation to learn from (preferences, ratings, images); it is not trained",
        "leave such rows out; --ignore-column NAME if the column means something else",
    ),
    "huge-row": Code(
        "warning",
        "a row has more characters than --max-characters; it is not trained",
        "cut it into several; or raise --max-characters, tokenizing takes 200 bytes of memory per character",
    ),
    "overlong": Code(
        "error",
        "a row exceeds the student's context",
        "--max-length, or --overlong drop, or --overlong truncate",
    ),
    # The data themselves (`distill.dataset.conversations`).
    "nothing-to-train": Code("error", "no row can be trained", "see the reasons of the skipped rows"),
    "edited-row": Code(
        "warning",
        "a row is not as it was written: it was edited by hand, or damaged on its disk",
        "if you edited it, remove its `checksum` (`jq -c 'del(.checksum)'`); otherwise collect the row again",
    ),
    "unknown-column": Code(
        "note",
        "a column that distill does not know is kept in the row's metadata",
        "nothing to do, if it does not change what the row means",
        by_detail=True,
    ),
    "thinking-in-answer": Code(
        "warning",
        "an answer holds its reasoning in tags; it is trained as a part of the answer",
        "--split-thinking moves it to `reasoning_content`",
    ),
    "role-order": Code("warning", "the roles do not take turns", "make sure that this is intended"),
    "ends-on-user": Code("note", "the conversation ends without an answer", "its last message is not trained"),
    "duplicate": Code("warning", "the conversation is already in the data", "leave it out, or it counts twice"),
    "teacher-prompt": Code(
        "error",
        "a message holds text that only the teacher should see (`teacher_messages` in its metadata)",
        "collect the row again; the student is to answer without it",
    ),
    "leakage": Code("error", "a prompt is also in the held-out data", "leave it out of one of the two"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """All rows with the same finding.

    Attributes:
        code: a key of `CODES`.
        count: the number of times it was found.
        rows: the first few, each a `file:line` with the detail.
    """

    code: str
    count: int
    rows: list[tuple[str, str]]

    @property
    def severity(self) -> Severity:
        """The severity of its code."""
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
    """Findings by code: their counts, and the first rows of each."""

    counts: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Findings:
        """Findings from their JSON, as `dataclasses.asdict` gives it."""
        rows = {code: [(where, detail) for where, detail in named] for code, named in saved["rows"].items()}
        return cls(dict(saved["counts"]), rows)

    def add(self, code: str, where: object, detail: str = "") -> None:
        """Count one finding; `where` is the row's source."""
        self.counts[code] = self.counts.get(code, 0) + 1
        self._name(code, [(str(where), detail)])

    def _name(self, code: str, rows: Iterable[tuple[str, str]]) -> None:
        """Name rows, as long as there are few."""
        named = self.rows.setdefault(code, [])
        for where, detail in rows:
            known = CODES[code].by_detail and any(detail == other for _, other in named)
            if len(named) < _NAMED and not known:
                named.append((where, detail))

    def merge(self, other: Findings) -> None:
        """Add the findings of another part of the data."""
        for code, count in other.counts.items():
            self.counts[code] = self.counts.get(code, 0) + count
            self._name(code, other.rows[code])

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
        """Refuse to train on errors.

        Raises:
            DataError: there are errors that are not allowed; names the first with its rows and how to fix it.
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

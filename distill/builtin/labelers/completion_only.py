"""Labels by searching for templates, as TRL's DataCollatorForCompletionOnlyLM did (gone from TRL since 0.20).

Behaviour copied from TRL 0.19.1, `trl/trainer/utils.py`: the tokens between a response template and the next
instruction template count. Three things differ by default:

* That class is usually given eos as the instruction template, so that every eos is masked and the student never learns
  to stop. Here the instruction template is what follows the end-of-turn marker. `end_of_turn=false` brings
  the old labels back.
* It masks every token that equals the padding token. Here only padding is masked: a student whose pad is its eos
  keeps its eos.
* It ignores a row without an instruction template. Here a row starts with a question also where, as in ChatML, the
  first one has no end-of-turn marker before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill import IGNORE_INDEX, DataError, Encoded, Message, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from distill import Collator, Encoder

# Texts of many kinds: the tokens that surround all of them do not depend on the text.
_PROBES = ("a", "Is it so?", "Yes.", "1", " x", "\n\n-", "(b)", "a:", "b\n", "«é»", "東")


@dataclass(frozen=True, slots=True)
class CompletionOnlyOptions:
    """The templates, and whether to train the end of turn.

    Attributes:
        response_template: the text after which an answer starts; default: what this format always writes there.
        instruction_template: the text with which the next question starts; default: what this format always writes
            there.
        end_of_turn: train the end-of-turn marker; false masks every one, as the class did with eos as its
            instruction template.
    """

    response_template: str | None = None
    instruction_template: str | None = None
    end_of_turn: bool = True


class CompletionOnly:
    """Labels what follows the response template, up to the next instruction template.

    Args:
        options: the templates, where the user names them.
        encoder: shows the tokens that the format puts around answers.

    Raises:
        UsageError: the format has no constant tokens around answers, and the options name none.
    """

    def __init__(self, options: CompletionOnlyOptions, encoder: Encoder):
        before, after, end = _surroundings(encoder)
        tokenizer = encoder.tokenizer
        self.response = _ids(tokenizer, options.response_template) or before
        self.instruction = _ids(tokenizer, options.instruction_template) or after
        if not self.response or not self.instruction:
            which = "response_template" if not self.response else "instruction_template"
            raise UsageError(
                f"labeler 'trl': format {encoder.name!r} puts no constant tokens around answers to find them by",
                f"name them with -L {which}=TEXT, or use --labeler masked",
            )
        self.masked = [] if options.end_of_turn else end
        self._found = not options.instruction_template  # then it starts right after the end marker

    def label(self, encoded: Encoded) -> list[int]:
        """Label one row as the collator will.

        Raises:
            DataError: the templates lead to a question's text being trained, or a header, or an answer not.
        """
        labels = completion_only_labels(encoded.input_ids, self.response, self.instruction, self.masked)
        self._refuse_templates_in_questions(encoded, labels)
        answered: int | None = None  # where the last answer ended
        for n, label in enumerate(labels):
            wrote, turn, end = encoded.assistant_mask[n], encoded.turn[n], encoded.end_of_turn[n]
            trained = label != IGNORE_INDEX
            if wrote and answered is not None and answered < n:
                header = labels[answered : answered + 1 if self._found else n]
                if IGNORE_INDEX not in header:
                    raise DataError(f"no instruction template between the answer before and message {turn}")
            answered = n + 1 if wrote else answered
            if trained and turn >= 0 and not wrote:
                raise DataError(f"the instruction template was not found before message {turn}, which would be trained")
            if not trained and wrote and not (end and self.masked):
                raise DataError(
                    f"the response template was not found before message {turn}, which would not be trained"
                )
        return labels

    def _refuse_templates_in_questions(self, encoded: Encoded, labels: Sequence[int]) -> None:
        """Refuse a row in which an answer seems to start behind a question's own text: its header would be trained.

        Raises:
            DataError: names the question.
        """
        for place in _find(encoded.input_ids, self.response):
            start = place + len(self.response)
            if start == len(labels) or labels[start] == IGNORE_INDEX:
                continue
            for n in range(place, start):
                if encoded.turn[n] >= 0 and not encoded.assistant_mask[n]:
                    where = f"message {encoded.turn[n]}"
                    raise DataError(f"{where} ends with the response template: the header after it would be trained")

    def collator(self, pad_token_id: int) -> Collator:
        """The collator that makes these labels of a batch."""
        return CompletionOnlyCollator(self.response, self.instruction, pad_token_id, self.masked)


def _ids(tokenizer: Any, text: str | None) -> list[int]:
    return tokenizer.encode(text.replace("\\n", "\n"), add_special_tokens=False) if text else []


def _surroundings(encoder: Encoder) -> tuple[list[int], list[int], list[int]]:
    """The constant tokens before an answer, those between its end marker and the next question, and the marker's."""
    before, after, ends = [], [], []
    for text in _PROBES:
        ask, say = Message("user", text), Message("assistant", text)
        encoded = encoder.encode([ask, say, ask, say])
        turns = encoded.turn
        answer = turns.index(1)
        end = max(n for n, turn in enumerate(turns) if turn == 1) + 1
        question = turns.index(2)
        before.append(encoded.input_ids[turns.index(0) : answer][::-1])
        after.append(encoded.input_ids[end:question])
        ends.append([token for token, mark in zip(encoded.input_ids[:end], encoded.end_of_turn, strict=False) if mark])
    return _common(before)[::-1], _common(after), _common(ends)


def _common(lists: Sequence[Sequence[int]]) -> list[int]:
    """The longest common prefix."""
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*lists, strict=False))
    return [column[0] for column in same]


def _find(ids: Sequence[int], template: Sequence[int]) -> list[int]:
    """Every place where the template starts."""
    size = len(template)
    if not size:
        return []
    return [
        n for n in range(len(ids) - size + 1) if ids[n] == template[0] and list(ids[n : n + size]) == list(template)
    ]


def completion_only_labels(
    input_ids: Sequence[int],
    response: Sequence[int],
    instruction: Sequence[int] | None,
    masked: Sequence[int] = (),
    as_trl: bool = False,
) -> list[int]:
    """Label one row as TRL 0.19.1's class does, padding apart.

    Args:
        input_ids: the row's tokens.
        response: the response template's token ids.
        instruction: the instruction template's; None: only what follows the last response template counts.
        masked: token ids to mask wherever they occur in this order.
        as_trl: ignore a row without an instruction template.

    Returns:
        One label per token: unshifted, -100 where a token does not count.
    """
    labels = list(input_ids)
    starts = [place + len(response) for place in _find(input_ids, response)]
    if instruction is None:
        end = starts[-1] if starts else len(labels)
        return [IGNORE_INDEX] * end + labels[end:]
    questions = _find(input_ids, instruction)
    if not starts or (as_trl and not questions):
        return [IGNORE_INDEX] * len(labels)
    if not questions or questions[0] > starts[0]:
        questions = [0, *questions]
    for n, (question, answer) in enumerate(zip(questions, starts, strict=False)):
        first = question if n else 0
        labels[first:answer] = [IGNORE_INDEX] * len(labels[first:answer])
    if len(starts) < len(questions):
        labels[questions[-1] :] = [IGNORE_INDEX] * len(labels[questions[-1] :])
    for place in _find(input_ids, masked):
        labels[place : place + len(masked)] = [IGNORE_INDEX] * len(masked)
    return labels


class CompletionOnlyCollator:
    """Pads a batch on the right and labels it by templates.

    Args:
        response, instruction, masked: token ids (see `completion_only_labels`).
        pad_token_id: what to pad with.
        as_trl: do what TRL's class does in all: mask every token that equals the padding token too, and ignore a row
            without an instruction template.
    """

    def __init__(
        self,
        response: Sequence[int],
        instruction: Sequence[int] | None,
        pad_token_id: int,
        masked: Sequence[int] = (),
        as_trl: bool = False,
    ):
        self.response = list(response)
        self.instruction = None if instruction is None else list(instruction)
        self.masked = list(masked)
        self.pad_token_id = pad_token_id
        self.as_trl = as_trl

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch; what a row's own `labels` mask stays masked (`weight: 0`, truncation)."""
        from distill import pad_batch

        labelled = []
        for row in rows:
            ids = list(row["input_ids"])
            labels = completion_only_labels(ids, self.response, self.instruction, self.masked, self.as_trl)
            for n, allowed in enumerate(row.get("labels") or ids):
                if allowed == IGNORE_INDEX or (self.as_trl and ids[n] == self.pad_token_id):
                    labels[n] = IGNORE_INDEX
            labelled.append({"input_ids": ids, "labels": labels})
        batch: dict[str, Tensor] = pad_batch(labelled, self.pad_token_id)
        return batch

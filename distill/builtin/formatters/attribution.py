"""Who wrote each piece of a rendering: the template or a message, and which template text belongs to an answer.

Everything between the generation prompt and the end-of-turn marker is the assistant's: at inference the student
writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distill import DataError, Segment
from distill.builtin.formatters.sentinels import Blanks, Leaf, Row, Skeleton

_QUESTION = {"role": "user", "content": "a"}
_ANSWER = {"role": "assistant", "content": "b"}


class _Frame(NamedTuple):
    """How a template frames plain answers.

    Attributes:
        end: the end-of-turn marker as it is written when a user message follows; empty where there is none.
        end_is_late: whether it is written only when another message follows.
        closing: what is written between reasoning and answer.
    """

    end: str
    end_is_late: bool
    closing: str


class Attribution:
    """Attributes the pieces of one template's renderings.

    Args:
        layout: renders blank rows, with or without a generation prompt.
        words: the tokenizer's added tokens that are more than white space.

    Attributes:
        added: finds the first of them in a text.
    """

    def __init__(self, layout: Callable[[Sequence[Row], bool], Skeleton], words: Sequence[str]):
        self.added = re.compile("|".join(map(re.escape, words)) or r"(?!)")
        self._layout = layout
        self._known_frame: _Frame | None = None

    def segments(self, skeleton: Skeleton, blanks: Blanks) -> list[Segment]:
        """Attribute each piece; contents are left empty.

        Args:
            skeleton: the rendering of the blank rows.
            blanks: the conversation.

        Raises:
            DataError: an answer's text is rendered in several places, or its tool calls do not end with the format's
                end-of-turn marker.
        """
        leaves = [blanks.leaves[number] for number in skeleton.leaves]
        _check_in_one_place(leaves)
        segments: list[Segment] = []
        started: set[int] = set()  # messages of which a text was seen
        before: Leaf | None = None
        for n, text in enumerate(skeleton.texts):
            after = leaves[n] if n < len(leaves) else None
            if before is not None and after is not None and _same_answer(before, after):
                segments += self._within(text, before, after)
            else:
                if before is not None and before.role == "assistant":
                    has_calls = bool(blanks.rows[before.message_index].get("tool_calls"))
                    tail, text = self._tail(text, before.message_index, has_calls, last=after is None)
                    segments += tail
                lead = 0
                if after is not None and after.role == "assistant" and after.message_index not in started:
                    lead = self._lead(skeleton, n, blanks.rows[: after.message_index])
                if len(text) > lead:
                    segments.append(Segment(text[: len(text) - lead]))
                if after is not None and lead:
                    own, is_reasoning = text[len(text) - lead :], after.kind == "reasoning"
                    segments.append(_by_assistant(own, after.message_index, reasoning=is_reasoning))
            if after is not None:
                is_reasoning = after.kind == "reasoning" and after.role == "assistant"
                segments.append(Segment("", True, after.role, after.message_index, reasoning=is_reasoning))
                started.add(after.message_index)
            before = after
        return segments

    def _within(self, text: str, before: Leaf, after: Leaf) -> list[Segment]:
        """Template text inside an answer; what stands between reasoning and content belongs to the reasoning."""
        if before.kind != "reasoning":
            cut = 0
        elif after.kind == "content":
            cut = len(text)
        else:  # a tool call follows
            closing = self._frame().closing
            cut = len(closing) if text.startswith(closing) else 0
        index = before.message_index
        pieces = [_by_assistant(text[:cut], index, reasoning=True), _by_assistant(text[cut:], index)]
        return [piece for piece in pieces if piece.text]

    def _tail(self, text: str, index: int, has_calls: bool, last: bool) -> tuple[list[Segment], str]:
        """Template text after an answer's last leaf: the rest of its tool calls, and its end marker.

        Returns:
            These segments, and the text that is left.
        """
        frame = self._frame()
        start, end = 0, self._first_word(text)
        if has_calls:  # `</tool_call>` may be an added token too: only the format's own marker ends the message
            marker = frame.end if frame.end in text else frame.end.strip()
            start = text.find(marker) if marker else -1
            end = start + len(marker)
            if start < 0 and last and frame.end_is_late:
                start = end = len(text)
            elif start < 0:
                raise DataError(f"message {index}: its tool calls do not end with the end-of-turn marker {frame.end!r}")
        segments = [_by_assistant(text[:start], index)] if start else []
        if end > start:
            segments.append(_by_assistant(text[start:end], index, end_of_turn=True))
        elif last and frame.end:  # the template writes the end marker only when another message follows
            segments.append(_by_assistant(frame.end, index, end_of_turn=True))
        return segments, text[end:]

    def _lead(self, skeleton: Skeleton, n: int, history: Sequence[Row]) -> int:
        """How many characters right before an answer come after the generation prompt: the student writes them.

        Args:
            skeleton: the rendering.
            n: the piece of it before the answer.
            history: the messages before the answer.
        """
        try:
            prompt = self._layout(history, True)
        except DataError:
            return 0  # the template refuses such a prompt; `prepare` finds that out for rows that need it
        if prompt.leaves != skeleton.leaves[:n] or prompt.texts[:-1] != skeleton.texts[:n]:
            return 0
        before, ending = skeleton.texts[n], prompt.texts[-1]
        return len(before) - len(ending) if before.startswith(ending) else 0

    def _first_word(self, text: str) -> int:
        """Where the first of the tokenizer's added tokens ends; 0 where there is none."""
        match = self.added.search(text)
        return match.end() if match else 0

    def _frame(self) -> _Frame:
        """How this template frames answers, found by rendering some."""
        if self._known_frame is None:
            plain = self._probe([_QUESTION, _ANSWER, _QUESTION, _ANSWER])
            end, end_is_late = "", False
            if plain is not None and len(plain.leaves) >= 4:
                after_answer, at_the_end = plain.texts[2], plain.texts[-1]
                end = after_answer[: self._first_word(after_answer)]
                end_is_late = not self._first_word(at_the_end)
            thought = self._probe([_QUESTION, {**_ANSWER, "reasoning_content": "c"}])
            closing = thought.texts[2] if thought is not None and thought.leaves == (0, 1, 2) else ""
            self._known_frame = _Frame(end, end_is_late, closing)
        return self._known_frame

    def _probe(self, rows: Sequence[Row]) -> Skeleton | None:
        try:
            return self._layout(Blanks(rows, self.added).rows, False)
        except DataError:
            return None


def _by_assistant(text: str, index: int, *, reasoning: bool = False, end_of_turn: bool = False) -> Segment:
    return Segment(text, False, "assistant", index, end_of_turn=end_of_turn, reasoning=reasoning)


def _same_answer(before: Leaf, after: Leaf) -> bool:
    return before.message_index == after.message_index and before.role == "assistant"


def _check_in_one_place(leaves: Sequence[Leaf]) -> None:
    """Refuse a rendering in which an answer's texts are not side by side."""
    finished: set[int] = set()
    before: Leaf | None = None
    for leaf in leaves:
        if before is not None and before.message_index != leaf.message_index:
            finished.add(before.message_index)
        if leaf.role == "assistant" and leaf.message_index in finished:
            index = leaf.message_index
            raise DataError(f"message {index}: the chat template writes the assistant's text in several places")
        before = leaf

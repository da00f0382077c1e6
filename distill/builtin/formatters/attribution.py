"""Who wrote each piece of a rendering: the template or a message, and which template text belongs to an answer.

Everything between the generation prompt and the end-of-turn marker is the assistant's: at inference the student
writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distill import DataError, Segment
from distill.builtin.formatters.rows import Row
from distill.builtin.formatters.sentinels import Blanks, Leaf, Skeleton
from distill.builtin.formatters.thoughts import Opening, find_opening

_QUESTION = {"role": "user", "content": "a"}
_ANSWER = {"role": "assistant", "content": "b"}


_CLOSING_TAG = re.compile(r"</|\[/")


class _End(NamedTuple):
    """Where an answer ends in the template's text after its last leaf.

    Attributes:
        start: where the end marker starts.
        marker: its text; empty where there is none.
        after: where the text of the next message starts.
    """

    start: int
    marker: str
    after: int


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
            DataError: an answer's text is rendered in several places, or its tool calls end with no marker.
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
                    tail, text = self._tail(text, before.message_index, blanks, last=after is None)
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

    def starts_with(self, skeleton: Skeleton, prompt: Skeleton) -> bool:
        """Whether a rendering starts with a generation prompt, and no message's text reaches into it."""
        n = len(prompt.leaves)
        return (
            len(skeleton.leaves) > n
            and skeleton.leaves[:n] == prompt.leaves
            and skeleton.texts[:n] == prompt.texts[:n]
            and skeleton.texts[n].startswith(prompt.texts[n])
        )

    def answer(self, skeleton: Skeleton, blanks: Blanks, prompt: Skeleton) -> tuple[list[Segment], list[int]]:
        """What the student has to write after a generation prompt that the rendering of its answer does not start with.

        Templates may open a thought in the prompt that they drop from a finished answer, or move the system message
        into the last question.

        Args:
            skeleton: the rendering of the conversation, whose last message is the answer.
            blanks: the conversation.
            prompt: the rendering of the messages before the answer, with a generation prompt.

        Returns:
            The answer's segments, contents left empty, and the numbers of their leaves.

        Raises:
            DataError: the answer's text cannot be told from the text before it.
        """
        index = len(blanks.rows) - 1
        leaves = [blanks.leaves[number] for number in skeleton.leaves]
        _check_in_one_place(leaves)
        first = next((n for n, leaf in enumerate(leaves) if leaf.message_index == index), None)
        if first is None or leaves[-1].message_index != index:
            raise DataError(f"message {index}: the chat template leaves out the answer")
        opening = find_opening(prompt.texts[-1])
        lead = _own_text(skeleton.texts[first], prompt.texts[-1], opening)
        if lead is None:
            raise DataError(
                f"message {index}: the format's generation prompt is not how it renders the text before an answer"
            )
        segments: list[Segment] = []
        numbers: list[int] = []
        if opening is not None and leaves[first].kind == "reasoning" and opening.closed and first + 1 < len(leaves):
            first += 1  # the prompt asks for no thought
            lead = opening.after_thought(skeleton.texts[first])
        elif opening is not None and _is_left_open(opening, leaves[first], lead):
            segments, numbers = self._thought(opening, blanks, index)
        if lead:
            is_reasoning = leaves[first].kind == "reasoning" or (opening is not None and opening.closer in lead)
            segments.append(_by_assistant(lead, index, reasoning=is_reasoning))
        for n in range(first, len(leaves)):
            leaf, text = leaves[n], skeleton.texts[n + 1]
            segments.append(Segment("", True, "assistant", index, reasoning=leaf.kind == "reasoning"))
            numbers.append(skeleton.leaves[n])
            if n + 1 < len(leaves):
                segments += self._within(text, leaf, leaves[n + 1])
            else:
                tail, text = self._tail(text, index, blanks, last=True)
                segments += tail
                if text:
                    segments.append(Segment(text))
        return segments, numbers

    def _thought(self, opening: Opening, blanks: Blanks, index: int) -> tuple[list[Segment], list[int]]:
        """The thought that the prompt opened, and its end; an empty one where the message has no reasoning."""
        numbers = [
            number
            for number, leaf in enumerate(blanks.leaves)
            if leaf.message_index == index and leaf.kind == "reasoning"
        ]
        segments = [Segment("", True, "assistant", index, reasoning=True) for _ in numbers]
        known = self._frame().closing
        closing = known if opening.closer in known else opening.closing
        return [*segments, _by_assistant(closing, index, reasoning=True)], numbers

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

    def _tail(self, text: str, index: int, blanks: Blanks, last: bool) -> tuple[list[Segment], str]:
        """Template text after an answer's last leaf: the rest of its tool calls, and its end marker.

        Returns:
            These segments, and the text that is left.
        """
        if blanks.rows[index].get("tool_calls"):
            end = self._end_of_calls(text, index, blanks, last)
        else:
            frame = self._frame()
            size = self._first_word(text)
            end = _End(0, text[:size], size) if size or not last else _End(0, frame.end, 0)
        segments = [_by_assistant(text[: end.start], index)] if end.start else []
        if end.marker:
            segments.append(_by_assistant(end.marker, index, end_of_turn=True))
        return segments, text[end.after :]

    def _end_of_calls(self, text: str, index: int, blanks: Blanks, last: bool) -> _End:
        """Where a message with tool calls ends: at the marker of answers, or at one of its own."""
        frame = self._frame()
        closing = self._ending(blanks, index)
        if closing is not None and text.startswith(closing.rstrip()):
            match = self._last_marker(closing)
            if match is not None:
                return _End(match.start(), match.group(), match.end())
        marker = frame.end if frame.end in text else frame.end.strip()
        start = text.find(marker) if marker else -1
        if start >= 0:
            return _End(start, marker, start + len(marker))
        if closing is None or not text.startswith(closing) or not frame.end_is_late:
            raise DataError(f"message {index}: its tool calls do not end with the end-of-turn marker {frame.end!r}")
        # The next message's first token ends this one: a tool's, where the conversation ends here.
        following = self._ending(blanks, index, {"role": "tool", "content": "a"}) if last else text
        match = self.added.search(following or "", len(closing))
        marker = match.group() if match is not None else frame.end
        return _End(len(closing), marker, len(closing) if last or match is None else match.end())

    def _ending(self, blanks: Blanks, index: int, *more: Row) -> str | None:
        """The template's text after the last leaf of a message when only `more` follows; None where there is none."""
        try:
            skeleton = self._layout([*blanks.rows[: index + 1], *more], False)
        except DataError:
            return None
        own = [n for n, number in enumerate(skeleton.leaves) if blanks.leaves[number].message_index == index]
        return skeleton.texts[own[-1] + 1] if own else None

    def _last_marker(self, text: str) -> re.Match[str] | None:
        """The added token at the end of a text, unless it is a closing tag such as `</tool_call>`."""
        matches = list(self.added.finditer(text))
        if not matches or text[matches[-1].end() :].strip():
            return None
        return None if _CLOSING_TAG.match(matches[-1].group()) else matches[-1]

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


def _is_left_open(opening: Opening, first: Leaf, lead: str) -> bool:
    """Whether the template does not render the thought that its generation prompt opened."""
    return not opening.closed and first.kind != "reasoning" and opening.closer not in lead


def _own_text(before: str, prompt: str, opening: Opening | None) -> str | None:
    """The part of the text before an answer that the student writes itself.

    Args:
        before: the template's text before the answer's first leaf.
        prompt: the template's text at the end of the generation prompt.
        opening: the thought that the prompt opens.

    Returns:
        None where the two texts have no common start.
    """
    if before.startswith(prompt):
        return before[len(prompt) :]
    header = prompt if opening is None else opening.header
    if before.startswith(header):
        own = before[len(header) :]
        return own if opening is None else opening.after_thought(own)
    return "" if header.startswith(before) and header[len(before) :].isspace() else None


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

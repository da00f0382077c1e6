"""Who wrote each piece of a rendering: the template, or a message; and which of the template's pieces are an answer's.

All between the generation prompt and the end-of-turn marker is the assistant's: there the student writes at inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from distill import DataError, Segment
from distill.builtin.formatters.sentinels import Blanks, Leaf, Row

_ASK, _SAY = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


class Owners:
    """Tells a template's pieces apart.

    Args:
        layout: renders blank rows (with or without a generation prompt) to template text and numbers of leaves.
        words: the tokenizer's added tokens, white space apart.

    Attributes:
        added: finds the first of them in a text.
    """

    def __init__(self, layout: Callable[[Sequence[Row], bool], list[str | int]], words: Sequence[str]):
        self.added = re.compile("|".join(map(re.escape, words)) or r"(?!)")
        self._layout = layout
        self._found: tuple[str, bool, str] | None = None

    def segments(self, parts: Sequence[str | int], blanks: Blanks) -> list[Segment]:
        """Say who wrote each piece, contents left empty.

        Args:
            parts: template text and numbers of leaves, in turn.
            blanks: the conversation.

        Raises:
            DataError: an answer's text is rendered in several places, or its tool calls do not end with the format's
                end-of-turn marker.
        """
        leaves = [blanks.leaves[number] for number in parts[1::2]]
        _check_in_one_place(leaves)
        segments: list[Segment] = []
        seen: set[int] = set()
        around = [None, *leaves, None]
        for n, text in enumerate(parts[0::2]):
            before, after = around[n], around[n + 1]
            if before is not None and after is not None and _same_answer(before, after):
                segments += self._within(text, before, after)
            else:
                if before is not None and before.role == "assistant":
                    calls = bool(blanks.rows[before.turn].get("tool_calls"))
                    tail, text = self._tail(text, before.turn, calls, last=after is None)
                    segments += tail
                lead = 0
                if after is not None and after.role == "assistant" and after.turn not in seen:
                    lead = self._lead(parts[: 2 * n + 1], blanks.rows[: after.turn])
                if len(text) > lead:
                    segments.append(Segment(text[: len(text) - lead]))
                if lead:
                    thought = after.kind == "reasoning"
                    segments.append(_by_assistant(text[len(text) - lead :], after.turn, reasoning=thought))
            if after is not None:
                thought = after.kind == "reasoning" and after.role == "assistant"
                segments.append(Segment("", True, after.role, after.turn, reasoning=thought))
                seen.add(after.turn)
        return segments

    def _within(self, text: str, before: Leaf, after: Leaf) -> list[Segment]:
        """Template text inside an answer; what follows the reasoning, up to the answer's content, belongs to that."""
        if before.kind != "reasoning":
            cut = 0
        elif after.kind == "content":
            cut = len(text)
        else:  # a tool call follows
            closing = self._format()[2]
            cut = len(closing) if text.startswith(closing) else 0
        pieces = [_by_assistant(text[:cut], before.turn, reasoning=True), _by_assistant(text[cut:], before.turn)]
        return [piece for piece in pieces if piece.text]

    def _tail(self, text: str, turn: int, calls: bool, last: bool) -> tuple[list[Segment], str]:
        """What stands after an answer's last text: the rest of its tool calls, and its end marker.

        Returns:
            These segments, and what is left of the text.
        """
        marker, late, _ = self._format()
        start, end = 0, self._first_word(text)
        if calls:  # `</tool_call>` may be an added token too: only the format's own marker ends the turn
            start = max(text.find(marker), text.find(marker.strip())) if marker else -1
            end = start + len(marker if text.find(marker) >= 0 else marker.strip())
            if start < 0 and last and late:
                start = end = len(text)
            elif start < 0:
                raise DataError(f"message {turn}: its tool calls do not end with the end-of-turn marker {marker!r}")
        segments = [_by_assistant(text[:start], turn)] if start else []
        if end > start:
            segments.append(_by_assistant(text[start:end], turn, end_of_turn=True))
        elif last and marker:  # the template writes the end marker only when another turn follows
            segments.append(_by_assistant(marker, turn, end_of_turn=True))
        return segments, text[end:]

    def _lead(self, before: Sequence[str | int], history: Sequence[Row]) -> int:
        """How many characters before an answer come after the generation prompt: the student must write them itself."""
        try:
            prompt = self._layout(history, True)
        except DataError:
            return 0  # the template refuses such a prompt; `prepare` finds that out for rows that need it
        same = len(prompt) == len(before) and prompt[:-1] == list(before[:-1]) and before[-1].startswith(prompt[-1])
        return len(before[-1]) - len(prompt[-1]) if same else 0

    def _first_word(self, text: str) -> int:
        """Where the first of the tokenizer's added tokens ends; 0 where there is none."""
        match = self.added.search(text)
        return match.end() if match else 0

    def _format(self) -> tuple[str, bool, str]:
        """How this template frames answers, found by looking at some.

        Returns:
            The end marker as it is written when a user's turn follows (empty where it never is); whether it is
            written only then; and what stands between reasoning and answer.
        """
        if self._found is None:
            plain = self._parts_of([_ASK, _SAY, _ASK, _SAY])
            thought = self._parts_of([_ASK, {**_SAY, "reasoning_content": "c"}])
            marker, late = "", False
            if plain:
                marker = plain[4][: self._first_word(plain[4])]
                late = not self._first_word(plain[-1])
            closing = thought[4] if thought and thought[1::2] == [0, 1, 2] else ""
            self._found = marker, late, closing
        return self._found

    def _parts_of(self, rows: Sequence[Row]) -> list[str | int] | None:
        try:
            parts = self._layout(Blanks(rows, self.added).rows, False)
        except DataError:
            return None
        return parts if len(parts) >= 2 * len(rows) + 1 else None


def _by_assistant(text: str, turn: int, *, reasoning: bool = False, end_of_turn: bool = False) -> Segment:
    return Segment(text, False, "assistant", turn, end_of_turn=end_of_turn, reasoning=reasoning)


def _same_answer(before: Leaf, after: Leaf) -> bool:
    return before.turn == after.turn and before.role == "assistant"


def _check_in_one_place(leaves: Sequence[Leaf]) -> None:
    turns = [leaf.turn for n, leaf in enumerate(leaves) if not n or leaves[n - 1].turn != leaf.turn]
    for leaf in leaves:
        if leaf.role == "assistant" and turns.count(leaf.turn) > 1:
            raise DataError(f"message {leaf.turn}: the chat template writes the assistant's text in several places")

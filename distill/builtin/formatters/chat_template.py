"""The student's own chat template, cut into what the template wrote and what each message wrote.

Jinja templates do not say which part of their output came from where, and most carry no `{% generation %}`. So the
conversation is rendered a second time with a placeholder for every text, the pieces between the placeholders are
taken as the template's, and put together with the real texts they must give the real rendering, character by
character. Where they do not, the row is refused: never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import DataError, Message, Segment, UsageError, message_to_dict
from distill.builtin.formatters.opacity import only_copies

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Letters and digits only: survives trimming, escaping and JSON in any template.
_PLACEHOLDER = re.compile(r"distillQ7x(\d+)(c|r)x7Q")
_TRIMS = (str, str.strip, str.rstrip, str.lstrip)


@dataclass(frozen=True, slots=True)
class ChatTemplateOptions:
    """Attributes:
    template: a file with a Jinja chat template to use instead of the student's own.
    """

    template: str | None = None


@dataclass(frozen=True, slots=True)
class _Slot:
    """A placeholder in a rendering: message `turn`'s content, or its reasoning."""

    turn: int
    reasoning: bool


@lru_cache(1)
def chatml() -> str:
    """The shipped ChatML template, for students without one."""
    return resources.files(__package__).joinpath("chatml.jinja").read_text(encoding="utf-8").rstrip("\n")


class ChatTemplate:
    """Formats with a Jinja chat template: an option's, the student's own, or ChatML."""

    def __init__(self, options: ChatTemplateOptions):
        self._own = None
        if options.template is not None:
            try:
                self._own = Path(options.template).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"chat template {options.template!r} cannot be read: {error}") from None
        self._layouts: dict[Any, list[str | _Slot]] = {}
        self._skeletons: dict[int, list[Segment]] = {}

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The template that is used, and saved with the student."""
        if self._own is not None:
            return self._own
        return tokenizer.get_chat_template() if tokenizer.chat_template else chatml()

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """ChatML's two markers, where the shipped template is used."""
        return ["<|im_start|>", "<|im_end|>"] if self.chat_template(tokenizer) == chatml() else []

    def shape(
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Hashable | None:
        """The conversation's shape, where the template does not look into texts; see `distill.ShapedFormatter`."""
        if not only_copies(self.chat_template(tokenizer)):
            return None
        return _shape(messages, tools)

    def segments(
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[Segment]:
        """Render a conversation; see `distill.Formatter`.

        Raises:
            DataError: the template refuses the conversation, or its text cannot be found in the rendering.
        """
        for turn, message in enumerate(messages):
            if message.tool_calls:
                raise DataError(f"message {turn} has tool calls, whose tokens cannot be told apart in a chat template")
        layout = self._layout(messages, tokenizer, tools, add_generation_prompt)
        rendered = self._render(messages, tokenizer, tools, add_generation_prompt)
        texts = _fill(layout, messages, rendered)
        if texts is None:
            raise DataError(
                "the chat template changes a message's text in a way that cannot be followed, so that its tokens "
                "cannot be told apart"
            )
        if id(layout) not in self._skeletons:  # who wrote what depends on the conversation's shape alone
            self._skeletons[id(layout)] = self._skeleton(layout, messages, tokenizer, tools)
        fill = iter(texts)
        return [
            Segment(next(fill), True, part.role, part.turn, False, part.reasoning) if part.content else part
            for part in self._skeletons[id(layout)]
        ]

    def _render(
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
    ) -> str:
        import jinja2

        rows = [message_to_dict(message) for message in messages]
        for row in rows:
            row.pop("weight", None)
            row["content"] = row["content"] or ""
        try:
            return tokenizer.apply_chat_template(
                rows,
                tools=list(tools) if tools else None,
                chat_template=self.chat_template(tokenizer),
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            raise DataError(f"the chat template refuses the conversation: {error}") from None

    def _layout(
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
    ) -> list[str | _Slot]:
        """Template text and slots in turn, for conversations of this shape; remembered by shape."""
        key = (id(tokenizer), _shape(messages, tools), add_generation_prompt)
        if key not in self._layouts:
            blanks = [
                replace(
                    message,
                    content=f"distillQ7x{turn}cx7Q",
                    reasoning_content=None if message.reasoning_content is None else f"distillQ7x{turn}rx7Q",
                )
                for turn, message in enumerate(messages)
            ]
            parts = _PLACEHOLDER.split(self._render(blanks, tokenizer, tools, add_generation_prompt))
            layout: list[str | _Slot] = [parts[0]]
            for turn, kind, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
                layout += [_Slot(int(turn), kind == "r"), text]
            self._layouts[key] = layout
        return self._layouts[key]

    def _skeleton(
        self,
        layout: Sequence[str | _Slot],
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> list[Segment]:
        """Say who wrote each piece, contents left empty.

        All between the generation prompt and the end marker is the assistant's.
        """
        last = {part.turn: n for n, part in enumerate(layout) if isinstance(part, _Slot)}
        seen: set[int] = set()
        segments: list[Segment] = []
        for n, part in enumerate(layout):
            if isinstance(part, _Slot):
                segments.append(Segment("", True, messages[part.turn].role, part.turn))
                seen.add(part.turn)
                continue
            text = part
            before = layout[n - 1] if n else None
            after = layout[n + 1] if n + 1 < len(layout) else None
            if isinstance(before, _Slot) and messages[before.turn].role == "assistant":
                if n - 1 != last[before.turn]:  # between reasoning and answer
                    segments.append(Segment(text, False, "assistant", before.turn))
                    continue
                end = self._end_of_turn(text, tokenizer)
                if end:
                    segments.append(Segment(text[:end], False, "assistant", before.turn, end_of_turn=True))
                elif after is None and (marker := self._marker(tokenizer)):
                    # The template writes the end marker only when another turn follows.
                    segments.append(Segment(marker, False, "assistant", before.turn, end_of_turn=True))
                text = text[end:]
            lead = 0
            if isinstance(after, _Slot) and messages[after.turn].role == "assistant" and after.turn not in seen:
                lead = self._lead(layout[: n + 1], messages[: after.turn], tokenizer, tools)
            if len(text) > lead:
                segments.append(Segment(text[: len(text) - lead]))
            if lead:
                segments.append(Segment(text[len(text) - lead :], False, "assistant", after.turn))
        return segments

    def _lead(
        self,
        before: Sequence[str | _Slot],
        history: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> int:
        """How many characters before an answer come after the generation prompt: the student must write them itself."""
        try:
            prompt = self._layout(history, tokenizer, tools, add_generation_prompt=True)
        except DataError:
            return 0  # the template refuses such a prompt; `prepare` finds that out for rows that need it
        same = len(prompt) == len(before) and prompt[:-1] == before[:-1] and before[-1].startswith(prompt[-1])
        return len(before[-1]) - len(prompt[-1]) if same else 0

    def _end_of_turn(self, text: str, tokenizer: PreTrainedTokenizerFast) -> int:
        """The length of the end-of-turn marker that starts a template text: up to its first control token."""
        ends = [text.index(word) + len(word) for word in tokenizer.get_added_vocab() if word.strip() and word in text]
        return min(ends, default=0)

    def _marker(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The end marker as this template writes it when a user's turn follows; empty where it never does."""
        ask, say = Message("user", "a"), Message("assistant", "b")
        try:
            layout = self._layout([ask, say, ask, say], tokenizer, None, False)
        except DataError:
            return ""
        after = next(n for n, part in enumerate(layout) if isinstance(part, _Slot) and part.turn == 1) + 1
        text = layout[after]
        return text[: self._end_of_turn(text, tokenizer)]


def _shape(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None) -> Hashable:
    """All of a conversation but its texts."""
    return (
        tuple([(m.role, m.reasoning_content is None, m.refusal is None, m.name, m.tool_call_id) for m in messages]),
        repr(tools) if tools else "",
    )


def _fill(layout: Sequence[str | _Slot], messages: Sequence[Message], rendered: str) -> list[str] | None:
    """Find the real texts in the real rendering: the template's pieces stand as they are, contents maybe trimmed.

    Returns:
        The texts of the layout's slots, in turn; None where the whole does not give `rendered`.
    """
    texts: list[str] = []
    at = 0
    for n, part in enumerate(layout):
        if isinstance(part, str):
            if not rendered.startswith(part, at):
                return None
            at += len(part)
        else:
            message = messages[part.turn]
            whole = (message.reasoning_content if part.reasoning else message.content) or ""
            rest = layout[n + 1]
            fits = [trimmed for trim in _TRIMS if rendered.startswith((trimmed := trim(whole)) + rest, at)]
            if not fits:
                return None
            texts.append(fits[0])
            at += len(fits[0])
    return texts if at == len(rendered) else None

"""The student's own chat template, cut into what the template wrote and what each message wrote.

Jinja templates do not say which part of their output came from where, and most carry no `{% generation %}`. So the
conversation is rendered a second time with a placeholder for every text, the pieces between the placeholders are
taken as the template's, and put together with the real texts they must give the real rendering, character by
character. Where they do not, the row is refused: never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import DataError, Message, Segment, UsageError
from distill.builtin.formatters.attribution import Owners
from distill.builtin.formatters.frames import Mould, plain, take_mould
from distill.builtin.formatters.sentinels import (
    Blanks,
    Row,
    as_row,
    cut_thought,
    find_texts,
    split_at_placeholders,
    with_thoughts_apart,
    without_reasoning,
)
from distill.builtin.formatters.template_analysis import only_copies

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_REMEMBERED = 2000  # layouts; conversations without tool calls have few shapes


@dataclass(frozen=True, slots=True)
class ChatTemplateOptions:
    """Attributes:
    template: a file with a Jinja chat template to use instead of the student's own.
    reasoning: false leaves the teacher's thinking out of the text (`reasoning_content`, or `<think>…</think>` before
        an answer).
    """

    template: str | None = None
    reasoning: bool = True


@lru_cache(1)
def chatml() -> str:
    """The shipped ChatML template, for students without one."""
    return resources.files(__package__).joinpath("chatml.jinja").read_text(encoding="utf-8").rstrip("\n")


@dataclass(slots=True)
class _Layout:
    """How the template renders conversations of one shape.

    Attributes:
        parts: template text and numbers of leaves, in turn.
        absent: leaves that have no place in it.
        ignores_tools: whether the tool definitions make no difference.
        segments: who wrote what, contents left empty; made when it is first needed.
    """

    parts: list[str | int]
    absent: list[int]
    ignores_tools: bool
    segments: list[Segment] | None = None


class ChatTemplate:
    """Formats with a Jinja chat template: an option's, the student's own, or ChatML."""

    def __init__(self, options: ChatTemplateOptions):
        self._own = None
        if options.template is not None:
            try:
                self._own = Path(options.template).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"chat template {options.template!r} cannot be read: {error}") from None
        self._reasoning = options.reasoning
        self._layouts: dict[Any, _Layout] = {}
        self._owners: dict[Any, Owners] = {}
        self._moulds: dict[Any, Mould] = {}

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
        if any(message.tool_calls for message in messages) or not only_copies(self.chat_template(tokenizer)):
            return None
        marks = [(m.role, m.reasoning_content is None, m.refusal is None, m.name, m.tool_call_id) for m in messages]
        return tuple(marks), repr(tools) if tools else ""

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
            DataError: the template refuses the conversation, leaves something of it out, or changes its text so that
                it cannot be found in the rendering.
        """
        if not self._reasoning:
            messages = [without_reasoning(message, turn) for turn, message in enumerate(messages)]
        template = _Template(self.chat_template(tokenizer), tokenizer, tools)
        shape = self.shape(messages, tokenizer, tools=tools) if plain(messages) else None
        key = template.key, shape, add_generation_prompt
        if shape is not None and key in self._moulds:
            return self._moulds[key].pour(messages)
        rows = [as_row(message, turn) for turn, message in enumerate(messages)]
        rendered = template.render(rows, add_generation_prompt)
        try:
            for blanks in self._readings(rows, rendered, template, add_generation_prompt):
                layout = self._layout(blanks.rows, template, add_generation_prompt)
                texts = find_texts(layout.parts, blanks.leaves, rendered)
                if texts is not None:
                    break
            else:
                raise DataError(
                    "the chat template changes a message's text in a way that cannot be followed, so that its tokens "
                    "cannot be told apart"
                )
        except RecursionError:
            raise DataError("the arguments of a tool call are nested too deeply") from None
        _check_complete(layout, blanks)
        if layout.segments is None:  # who wrote what depends on the conversation's shape alone
            layout.segments = self._owners_for(template).segments(layout.parts, blanks)
        if shape is not None and (mould := self._mould(layout, blanks, template, add_generation_prompt)):
            self._moulds[key] = mould
        fill = zip([blanks.leaves[number].kind for number in layout.parts[1::2]], texts, strict=True)
        segments: list[Segment] = []
        for part in layout.segments:
            if not part.content:
                segments.append(part)
                continue
            kind, text = next(fill)
            if "</think>" in text and kind == "content" and part.role == "assistant":
                segments += cut_thought(text, part.turn)
            else:
                segments.append(Segment(text, True, part.role, part.turn, False, part.reasoning))
        return segments

    def _mould(self, layout: _Layout, blanks: Blanks, template: _Template, add_generation_prompt: bool) -> Mould | None:
        """What this shape's conversations are made with from now on."""
        if len(self._moulds) >= _REMEMBERED:
            self._moulds.clear()
        numbers = layout.parts[1::2]
        return take_mould(
            layout.segments,
            numbers,
            blanks.leaves,
            blanks.rows,
            lambda rows: template.render(rows, add_generation_prompt),
        )

    def _readings(
        self, rows: list[Row], rendered: str, template: _Template, add_generation_prompt: bool
    ) -> Iterator[Blanks]:
        """What a template may make of a conversation, likeliest first."""
        added = self._owners_for(template).added
        yield Blanks(rows, added)
        if any(not row["content"].strip() for row in rows):  # templates may ask whether there is any content
            yield Blanks(rows, added, keep_blank=True)
        apart = with_thoughts_apart(rows)
        if apart and template.render(apart, add_generation_prompt) == rendered:  # the template reads it the same way
            yield Blanks(apart, added)

    def _layout(self, rows: Sequence[Row], template: _Template, add_generation_prompt: bool) -> _Layout:
        """How blank rows are rendered; remembered by shape."""
        key = (template.key, json.dumps(rows), add_generation_prompt)
        if key not in self._layouts:
            if len(self._layouts) >= _REMEMBERED:
                self._layouts.clear()
            text = template.render(rows, add_generation_prompt)
            parts = split_at_placeholders(text)
            found = set(parts[1::2])
            whole = set(split_at_placeholders(key[1])[1::2])
            ignores = bool(template.tools) and text == template.without_tools(rows, add_generation_prompt)
            self._layouts[key] = _Layout(parts, sorted(whole - found), ignores)
        return self._layouts[key]

    def _owners_for(self, template: _Template) -> Owners:
        if template.key not in self._owners:
            if len(self._owners) >= _REMEMBERED:
                self._owners.clear()
            self._owners[template.key] = Owners(
                lambda rows, prompt: self._layout(rows, template, prompt).parts, template.words()
            )
        return self._owners[template.key]


class _Template:
    """A Jinja template with the tokenizer and the tool definitions that it renders."""

    def __init__(self, source: str, tokenizer: PreTrainedTokenizerFast, tools: Sequence[Mapping[str, Any]] | None):
        self.source = source
        self.tokenizer = tokenizer
        self.tools = [dict(tool) for tool in tools] if tools else None
        # What a rendering depends on besides the messages; some templates print the date.
        self.key = (source, str(tokenizer.special_tokens_map), len(tokenizer), repr(self.tools), date.today())

    def without_tools(self, rows: Sequence[Row], add_generation_prompt: bool) -> str | None:
        """The rendering without the tool definitions; None where there is none."""
        try:
            return _Template(self.source, self.tokenizer, None).render(rows, add_generation_prompt)
        except DataError:
            return None

    def words(self) -> list[str]:
        """The tokenizer's added tokens, white space apart; the longest first."""
        return sorted((word for word in self.tokenizer.get_added_vocab() if word.strip()), key=len, reverse=True)

    def render(self, rows: Sequence[Row], add_generation_prompt: bool) -> str:
        """Render messages.

        Raises:
            DataError: the template fails on them. It is a program of its own, and may fail in any way.
        """
        try:
            # As a batch of one: alone, an empty conversation is refused before the template sees it.
            return self.tokenizer.apply_chat_template(
                [list(rows)],
                tools=self.tools,
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )[0]
        except Exception as error:
            said = str(error) or type(error).__name__
            what = "the conversation" if rows else "a conversation that the assistant begins"
            raise DataError(f"the chat template refuses {what}: {said}") from None


def _check_complete(layout: _Layout, blanks: Blanks) -> None:
    """All that was said must stand in the rendering, reasoning apart: templates drop that of earlier turns."""
    if layout.ignores_tools:
        raise DataError("the chat template has no place for tool definitions", "choose a student or format with tools")
    for leaf in [blanks.leaves[number] for number in layout.absent]:
        if leaf.kind == "call":
            raise DataError(f"message {leaf.turn}: the chat template has no place for its tool calls")
        if leaf.kind == "content" and leaf.text.strip():
            beside = " beside its tool calls" if blanks.rows[leaf.turn].get("tool_calls") else ""
            raise DataError(f"message {leaf.turn}: the chat template leaves out the {leaf.role}'s text{beside}")

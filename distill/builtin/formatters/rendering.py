"""Rendering with a Jinja template, and what a template wants of its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from distill import DataError, Message, render_chat
from distill.builtin.formatters.rows import CallShape, Row, as_row
from distill.builtin.formatters.sentinels import split_at_placeholders

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Template:
    """A Jinja template with the tokenizer and the tool definitions that it renders.

    Args:
        source: the template.
        tokenizer: has the special tokens.
        tools: tool definitions.
        name: the template's, for errors; default: the tokenizer's.

    Attributes:
        key: what a rendering depends on besides the messages; some templates print the date.
    """

    def __init__(
        self,
        source: str,
        tokenizer: PreTrainedTokenizerFast,
        tools: Sequence[Mapping[str, Any]] | None,
        name: str | None = None,
    ):
        self.source, self._name = source, name
        self.tokenizer = tokenizer
        self.tools = [dict(tool) for tool in tools] if tools else None
        self.key = (source, str(tokenizer.special_tokens_map), len(tokenizer), repr(self.tools), date.today())

    def without_tools(self, rows: Sequence[Row], prompt: bool) -> str | None:
        """The rendering without the tool definitions; None where there is none."""
        try:
            return Template(self.source, self.tokenizer, None, self._name).render(rows, prompt)
        except DataError:
            return None

    def words(self) -> list[str]:
        """The tokenizer's added tokens that are more than white space; the longest first."""
        return sorted((word for word in self.tokenizer.get_added_vocab() if word.strip()), key=len, reverse=True)

    def render(self, rows: Sequence[Row], prompt: bool) -> str:
        """Render messages.

        Raises:
            DataError: the template fails on them.
            TemplateOverrun: it runs too long, or writes too much.
        """
        return render_chat(
            self.tokenizer,
            rows,
            add_generation_prompt=prompt,
            tools=self.tools,
            template=self.source,
            name=self._name,
        )


def shows_system(source: str, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a template has a place for a system message."""
    rows: list[Row] = [{"role": "system", "content": "distillQ7x0x7Q"}, {"role": "user", "content": "distillQ7x1x7Q"}]
    try:
        return 0 in split_at_placeholders(Template(source, tokenizer, None).render(rows, True)).leaves
    except DataError:
        return False


def find_call_shape(template: Template) -> CallShape:
    """Render a tool call and its result in each shape, the usual one first, and take the first that works.

    A template that writes an object's arguments as Python spells them, not as JSON, wants them as text.
    """
    arguments = {"a": "b"}
    for short_ids in (False, True):
        for text_arguments in (False, True):
            shape = CallShape(text_arguments, short_ids)
            function = {"name": "f", "arguments": arguments}
            call = {"id": "call_1234567890", "type": "function", "function": function}
            messages = (
                Message("user", "a"),
                Message("assistant", tool_calls=(call,)),
                Message("tool", "c", tool_call_id="call_1234567890"),
            )
            rows = [as_row(message, index, shape) for index, message in enumerate(messages)]
            try:
                rendered = template.render(rows, False)
            except DataError:
                continue
            if text_arguments or str(arguments) not in rendered:
                return shape
    return CallShape()

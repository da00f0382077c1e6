"""The student's own chat template, with the author of each piece of its renderings.

Jinja templates do not tell which part of their output came from where, and most carry no `{% generation %}`. So the
conversation is rendered a second time with a placeholder for every text. The pieces between the placeholders are the
template's; put together with the real texts they must give the real rendering, character by character. Where they do
not, the row is refused.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from distill import DataError, Message, Segment, UsageError, unknown_name
from distill.builtin.formatters.attribution import Attribution
from distill.builtin.formatters.frames import Frame, is_plain, make_frame
from distill.builtin.formatters.prelude import FOLD_SYSTEM, INLINE_REASONING, set_variables
from distill.builtin.formatters.rendering import Template, find_call_shape, shows_system
from distill.builtin.formatters.rows import CallShape, Row, as_row
from distill.builtin.formatters.sentinels import (
    Blanks,
    Leaf,
    Skeleton,
    cut_thought,
    find_texts,
    split_at_placeholders,
    with_thought_apart,
    with_thoughts_apart,
    without_reasoning,
)
from distill.builtin.formatters.template_analysis import only_copies, variables_of
from distill.builtin.formatters.thoughts import find_opening

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_REMEMBERED = 2000  # entries of a cache; conversations without tool calls have few shapes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChatTemplateOptions:
    """Options of the chat template; each variable that the template reads is one more (`-F enable_thinking=false`).

    Attributes:
        template: a file with a Jinja chat template to use instead of the student's own.
        reasoning: false leaves the teacher's reasoning out of the text (`reasoning_content`, or `<think>…</think>`
            before an answer); inline puts it before the answer as `<think>…</think>`, for a template that does not
            read `reasoning_content`.
        system: what to do with a system message that the template has no place for: error skips the row, fold puts it
            into the first question.
        variables: values for the template's variables, saved with the student as their defaults.
    """

    template: str | None = None
    reasoning: bool | Literal["inline"] = True
    system: Literal["error", "fold"] = "error"
    variables: Mapping[str, Any] = field(default_factory=dict, metadata={"others": True})


@lru_cache(1)
def chatml() -> str:
    """The shipped ChatML template, for students without one."""
    return resources.files(__package__).joinpath("chatml.jinja").read_text(encoding="utf-8").rstrip("\n")


class _Cache(dict[Hashable, T], Generic[T]):
    """A small cache, cleared beyond 2,000 entries."""

    def __setitem__(self, key: Hashable, value: T) -> None:
        if len(self) >= _REMEMBERED:
            self.clear()
        super().__setitem__(key, value)


@dataclass(slots=True)
class _Layout:
    """How the template renders conversations of one shape.

    Attributes:
        skeleton: the rendering of placeholders.
        absent: leaves that are not in it.
        ignores_tools: whether the tool definitions make no difference.
        segments: who wrote what, contents left empty; made when it is first needed.
        numbers: the leaves that these contents are.
        after_prompt: whether the segments are the last answer's only, to be put after its generation prompt: the
            template renders the messages before an answer in another way once the answer is there.
    """

    skeleton: Skeleton
    absent: list[int]
    ignores_tools: bool
    segments: list[Segment] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    after_prompt: bool = False


class ChatTemplate:
    """Formats with a Jinja chat template: an option's, the student's own, or ChatML."""

    def __init__(self, options: ChatTemplateOptions):
        self._own = None
        if options.template is not None:
            try:
                self._own = Path(options.template).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"chat template {options.template!r} cannot be read: {error}") from None
        self._options = options
        self._preludes: dict[str, str] = {}  # of each template that was asked for
        self._layouts: _Cache[_Layout] = _Cache()
        self._attributions: _Cache[Attribution] = _Cache()
        self._frames: _Cache[Frame] = _Cache()
        self._call_shapes: _Cache[CallShape] = _Cache()

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str | dict[str, str]:
        """The template that is used, and saved with the student; all of them where the student has several by name.

        Raises:
            UsageError: an option names no variable of the template.
        """
        named = tokenizer.chat_template
        if self._own is None and isinstance(named, dict):
            return {name: self._with_prelude(self._without_prelude(text), tokenizer) for name, text in named.items()}
        return self._template(tokenizer, None)

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """ChatML's two markers, where the shipped template is used."""
        return ["<|im_start|>", "<|im_end|>"] if self._source(tokenizer, None) == chatml() else []

    def _template(self, tokenizer: PreTrainedTokenizerFast, tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The template for a conversation, chosen by its tools as transformers does."""
        return self._with_prelude(self._source(tokenizer, tools), tokenizer)

    def _source(self, tokenizer: PreTrainedTokenizerFast, tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The template without what the options put before it."""
        if self._own is not None:
            return self._own
        if not tokenizer.chat_template:
            return chatml()
        try:
            template: str = tokenizer.get_chat_template(tools=tools)
        except ValueError:
            names = ", ".join(sorted(tokenizer.chat_template))
            raise UsageError(
                f"the student has several chat templates ({names}), and none is called default",
                "choose one with -F template=FILE",
            ) from None
        return self._without_prelude(template)

    def _without_prelude(self, template: str) -> str:
        """A template without what these options put before it: a student's own has it once it is saved."""
        for source, prelude in self._preludes.items():
            if template == prelude + source:
                return source
        return template

    def _with_prelude(self, source: str, tokenizer: PreTrainedTokenizerFast) -> str:
        """A template with what the options put before it."""
        if source not in self._preludes:
            options = self._options
            named = tokenizer.chat_template if self._own is None else None
            texts = named.values() if isinstance(named, dict) else [source]
            known = {variable for text in texts for variable in variables_of(text)}
            for name in options.variables:
                if name not in known:
                    own = [field.name for field in fields(options) if field.name != "variables"]
                    raise unknown_name("option or variable of the chat template", name, [*known, *own])
            prelude = set_variables(options.variables)
            if options.system == "fold" and not shows_system(source, tokenizer):
                prelude += FOLD_SYSTEM
            if options.reasoning == "inline":
                prelude += INLINE_REASONING
            self._preludes[source] = "" if source.startswith(prelude) else prelude  # a saved student's has it
        return self._preludes[source] + source

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
        if not self._options.reasoning:
            messages = [without_reasoning(message, index) for index, message in enumerate(messages)]
        template = Template(self._template(tokenizer, tools), tokenizer, tools, self._options.template)
        shape = _shape(messages) if only_copies(template.source) and is_plain(messages) else None
        if shape is None:
            return self._render(messages, template, add_generation_prompt)
        key = template.key, shape, add_generation_prompt
        frame = self._frames.get(key)
        return frame.fill(messages) if frame else self._render(messages, template, add_generation_prompt, key)

    def _render(
        self, messages: Sequence[Message], template: Template, prompt: bool, key: Hashable = None
    ) -> list[Segment]:
        """Render a conversation with Jinja; with a `key`, keep the frame for others of its shape."""
        shape = self._call_shape(template) if any(_has_calls(message) for message in messages) else CallShape()
        rows = [as_row(message, index, shape) for index, message in enumerate(messages)]
        is_answer = not prompt and bool(rows) and rows[-1]["role"] == "assistant"
        if is_answer and self._opens_thought(rows, template):
            rows[-1] = with_thought_apart(rows[-1], len(rows) - 1)
        try:
            blanks, layout, texts = self._match(rows, template, prompt)
        except RecursionError:
            raise DataError("the arguments of a tool call are nested too deeply") from None
        if not layout.segments:  # the conversation's shape alone decides who wrote what
            self._attribute(layout, blanks, template, is_answer)
        _check_complete(layout, blanks)
        found = dict(zip(layout.skeleton.leaves, texts, strict=True))
        leaves = [blanks.leaves[number] for number in layout.numbers]
        texts = [found.get(n, leaf.text.strip("\n")) for n, leaf in zip(layout.numbers, leaves, strict=True)]
        if layout.after_prompt:
            before = self._render(messages[:-1], template, True)
            return [*before, *_filled(layout.segments, leaves, texts)]
        if key is not None:
            frame = make_frame(
                layout.segments, layout.numbers, blanks.leaves, blanks.rows, lambda rows: template.render(rows, prompt)
            )
            if frame is not None:
                self._frames[key] = frame
        return _filled(layout.segments, leaves, texts)

    def _call_shape(self, template: Template) -> CallShape:
        """How the template wants tool calls, found by rendering one."""
        shape = self._call_shapes.get(template.key)
        if shape is None:
            shape = self._call_shapes[template.key] = find_call_shape(template)
        return shape

    def _opens_thought(self, rows: Sequence[Row], template: Template) -> bool:
        """Whether the last message holds a thought in its content, and its generation prompt opens one."""
        if "</think>" not in rows[-1]["content"]:
            return False
        prompt = self._prompt_of(Blanks(rows, self._attribution(template).added), template)
        return prompt is not None and find_opening(prompt.texts[-1]) is not None

    def _prompt_of(self, blanks: Blanks, template: Template) -> Skeleton | None:
        """The prompt of a conversation's last answer; None where the template refuses it."""
        try:
            return self._layout(blanks.rows[:-1], template, True).skeleton
        except DataError:
            return None  # `prepare` finds that out for rows that need it

    def _attribute(self, layout: _Layout, blanks: Blanks, template: Template, is_answer: bool) -> None:
        """Find out who wrote what in a layout; an answer always comes after its own generation prompt."""
        attribution = self._attribution(template)
        prompt = self._prompt_of(blanks, template) if is_answer else None
        if prompt is not None and not attribution.starts_with(layout.skeleton, prompt):
            layout.segments, layout.numbers = attribution.answer(layout.skeleton, blanks, prompt)
            layout.after_prompt = True
        else:
            layout.segments = attribution.segments(layout.skeleton, blanks)
            layout.numbers = list(layout.skeleton.leaves)

    def _match(self, rows: list[Row], template: Template, prompt: bool) -> tuple[Blanks, _Layout, list[str]]:
        """Find the layout of a conversation, and its texts in the real rendering."""
        rendered = template.render(rows, prompt)
        for blanks in self._readings(rows, rendered, template, prompt):
            layout = self._layout(blanks.rows, template, prompt)
            texts = find_texts(layout.skeleton, blanks.leaves, rendered)
            if texts is not None:
                return blanks, layout, texts
        raise DataError(
            "the chat template changes a message's text in a way that cannot be followed, so that its tokens cannot "
            "be told apart"
        )

    def _readings(self, rows: list[Row], rendered: str, template: Template, prompt: bool) -> Iterator[Blanks]:
        """What a template may make of a conversation, likeliest first."""
        added = self._attribution(template).added
        yield Blanks(rows, added)
        if any(not row["content"].strip() for row in rows):  # templates may ask whether there is any content
            yield Blanks(rows, added, keep_blank=True)
        for strip in (True, False):
            apart = with_thoughts_apart(rows, strip)
            if apart and template.render(apart, prompt) == rendered:  # the template reads it the same way
                yield Blanks(apart, added)

    def _layout(self, rows: Sequence[Row], template: Template, prompt: bool) -> _Layout:
        """How blank rows are rendered; cached by shape."""
        blank = json.dumps(rows)
        key = template.key, blank, prompt
        layout = self._layouts.get(key)
        if layout is None:
            text = template.render(rows, prompt)
            skeleton = split_at_placeholders(text)
            absent = set(split_at_placeholders(blank).leaves) - set(skeleton.leaves)
            ignores_tools = bool(template.tools) and text == template.without_tools(rows, prompt)
            layout = self._layouts[key] = _Layout(skeleton, sorted(absent), ignores_tools)
        return layout

    def _attribution(self, template: Template) -> Attribution:
        attribution = self._attributions.get(template.key)
        if attribution is None:
            attribution = self._attributions[template.key] = Attribution(
                lambda rows, prompt: self._layout(rows, template, prompt).skeleton, template.words()
            )
        return attribution


def _has_calls(message: Message) -> bool:
    return bool(message.tool_calls) or message.tool_call_id is not None


def _shape(messages: Sequence[Message]) -> Hashable | None:
    """What a template that only copies texts looks at; None for a conversation with tool calls."""
    if any(message.tool_calls for message in messages):
        return None
    return tuple([(m.role, m.reasoning_content is None, m.refusal is None, m.name, m.tool_call_id) for m in messages])


def _filled(segments: Sequence[Segment], leaves: Sequence[Leaf], texts: Sequence[str]) -> list[Segment]:
    """The segments of a layout with a conversation's texts put in."""
    fill = zip(leaves, texts, strict=True)
    filled: list[Segment] = []
    for part in segments:
        if not part.content:
            filled.append(part)
            continue
        leaf, text = next(fill)
        if "</think>" in text and leaf.kind == "content" and leaf.role == "assistant":
            filled += cut_thought(text, leaf.message_index)
        else:
            filled.append(Segment(text, True, part.role, part.turn, False, part.reasoning))
    return filled


def _check_complete(layout: _Layout, blanks: Blanks) -> None:
    """Everything must be in the rendering, reasoning apart: templates drop that of earlier answers."""
    absent = [blanks.leaves[number] for number in layout.absent]
    if layout.after_prompt:  # what came before is in the prompt, which is checked by itself
        absent = [leaf for leaf in absent if leaf.message_index == len(blanks.rows) - 1]
    elif layout.ignores_tools:
        raise DataError("the chat template has no place for tool definitions", "choose a student or format with tools")
    for leaf in absent:
        if leaf.kind == "call":
            raise DataError(f"message {leaf.message_index}: the chat template has no place for its tool calls")
        if leaf.kind == "content" and leaf.text.strip():
            beside = " beside its tool calls" if blanks.rows[leaf.message_index].get("tool_calls") else ""
            raise DataError(
                f"message {leaf.message_index}: the chat template leaves out the {leaf.role}'s text{beside}"
            )

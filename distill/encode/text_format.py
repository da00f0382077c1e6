"""Chat formats of text markers, from one pattern per role."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.errors import DataError
from distill.types import Message, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class _Pattern(NamedTuple):
    """What is written before and after a message's text."""

    before: str
    after: str


class TextFormat:
    r"""A formatter made of four strings.

        distill.TextFormat(system="{}\n\n", user="USER: {}\n", assistant="ASSISTANT: {}", end="{eos}\n")

    In each string `{}` is the message's text, `{bos}` and `{eos}` the student's own tokens (a student without bos goes
    without it, one without eos gets `</s>`). Conversations with tools are refused.

    Args:
        user: the pattern of a user's message.
        assistant: the pattern of an answer; it ends with `{}`, and the text before that is the generation prompt.
        system: the pattern of a system message; None: the format has none.
        end: what ends an answer: the end-of-turn marker, and perhaps white space after it. The marker is trained and
            becomes one control token.
        default_system: the text of the system message that a conversation without one gets.
        system_anywhere: whether system messages may come later than at the start.
        generation_prompt: where the student starts to write, if that is before the end of the text before an answer:
            the rest of that text is then the assistant's, and trained.
        name: the format's name, for errors.

    Raises:
        ValueError: a pattern without `{}`, or a generation prompt with which no answer begins.
    """

    def __init__(
        self,
        *,
        user: str,
        assistant: str,
        system: str | None = None,
        end: str = "{eos}",
        default_system: str | None = None,
        system_anywhere: bool = False,
        generation_prompt: str | None = None,
        name: str = "this format",
    ):
        for role, pattern in (("user", user), ("assistant", assistant), ("system", system)):
            if pattern is not None and pattern.count("{}") != 1:
                raise ValueError(f"{name}: the pattern of role {role} must contain {{}} once, not {pattern!r}")
        if not assistant.endswith("{}"):
            raise ValueError(f"{name}: what follows an answer belongs in `end`, not in {assistant!r}")
        if default_system is not None and system is None:
            raise ValueError(f"{name}: a default system message needs a `system` pattern")
        if not end.strip():
            raise ValueError(f"{name}: `end` needs an end-of-turn marker")
        lead = assistant.removesuffix("{}")
        prompt = lead if generation_prompt is None else generation_prompt
        if not lead.startswith(prompt):
            raise ValueError(f"{name}: the pattern {assistant!r} does not start with the prompt {prompt!r}")
        patterns = {"user": user, "system": system}
        self._patterns = {role: _Pattern(*text.split("{}")) for role, text in patterns.items() if text is not None}
        self._prompt, self._lead = prompt, lead.removeprefix(prompt)
        self._marker = end.rstrip()
        self._after = end[len(self._marker) :]
        self._default_system = default_system
        self._system_anywhere = system_anywhere
        self.name = name

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """The end-of-turn marker, which must be one control token."""
        return [_spelled(self._marker, tokenizer)]

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """The format as a Jinja chat template, its markers and tokens spelled out."""

        def literal(text: str) -> str:
            return json.dumps(_spelled(text, tokenizer), ensure_ascii=False)

        content = "message['content']"
        branches = [
            f"message['role'] == 'assistant' and not message['tool_calls'] %}}"
            f"{{{{ {literal(self._prompt + self._lead)} + {content} + {literal(self._marker + self._after)} }}}}"
        ]
        for role, pattern in self._patterns.items():
            place = " and loop.first" if role == "system" and not self._system_anywhere else ""
            branches.append(
                f"message['role'] == '{role}'{place} %}}"
                f"{{{{ {literal(pattern.before)} + {content} + {literal(pattern.after)} }}}}"
            )
        refusal = json.dumps(f"{self.name} {self._limits()}", ensure_ascii=False)
        template = (
            "{% for message in messages %}{% if "
            + "{% elif ".join(branches)
            + f"{{% else %}}{{{{ raise_exception({refusal}) }}}}{{% endif %}}{{% endfor %}}"
            + f"{{% if add_generation_prompt %}}{{{{ {literal(self._prompt)} }}}}{{% endif %}}"
        )
        if self._default_system is None:
            return template
        pattern = self._patterns["system"]
        texts = [literal(pattern.before), json.dumps(self._default_system, ensure_ascii=False), literal(pattern.after)]
        condition = "not messages or messages[0]['role'] != 'system'"
        return f"{{% if {condition} %}}{{{{ {' + '.join(texts)} }}}}{{% endif %}}{template}"

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
            DataError: it has tools, a message without text, or a system message where the format has none.
        """
        if tools:
            raise DataError(f"{self.name} has no tools", "choose a format that has tools")
        segments: list[Segment] = []
        if self._default_system is not None and not (messages and messages[0].role == "system"):
            pattern = self._patterns["system"]
            before, after = _spelled(pattern.before, tokenizer), _spelled(pattern.after, tokenizer)
            segments.append(Segment(before + self._default_system + after))
        for index, message in enumerate(messages):
            segments += self._message(message, index, tokenizer)
        if add_generation_prompt:
            segments.append(Segment(_spelled(self._prompt, tokenizer)))
        return [segment for segment in segments if segment.text or segment.content]

    def _message(self, message: Message, index: int, tokenizer: PreTrainedTokenizerFast) -> list[Segment]:
        known = message.role == "assistant" or message.role in self._patterns
        if message.content is None or message.tool_calls or not known:
            raise DataError(f"message {index}: {self.name} {self._limits()}")
        if message.role == "system" and index and not self._system_anywhere:
            raise DataError(f"message {index}: {self.name} has a system message only at the start")
        content = Segment(message.content, True, message.role, index)
        if message.role == "assistant":
            return [
                Segment(_spelled(self._prompt, tokenizer)),
                Segment(self._lead, False, "assistant", index),
                content,
                Segment(_spelled(self._marker, tokenizer), False, "assistant", index, end_of_turn=True),
                Segment(self._after),
            ]
        pattern = self._patterns[message.role]
        return [Segment(_spelled(pattern.before, tokenizer)), content, Segment(_spelled(pattern.after, tokenizer))]

    def _limits(self) -> str:
        """What the format has no place for."""
        limits = "has no tools, and no message without text"
        if "system" not in self._patterns:
            return f"{limits}, and no system message"
        return limits if self._system_anywhere else f"{limits}, and a system message only at the start"


def _spelled(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """A piece of a pattern with the student's tokens put in."""
    if "{" not in text:
        return text
    eos: str = tokenizer.eos_token or "</s>"
    if "{bos}" not in text:
        return text.replace("{eos}", eos)
    bos: str = tokenizer.bos_token or ""
    return text.replace("{eos}", eos).replace("{bos}", bos)

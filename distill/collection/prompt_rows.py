"""One prompt: from a row or a text, checked; and as a row again."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from distill.errors import DataError
from distill.files.jsonl import dumps
from distill.files.text import check_text
from distill.transcripts.parts import split_calls
from distill.transcripts.rows import message_to_dict, parse_message, parse_tools
from distill.types import Message, Prompt, Source

SHAPE = "a row has one of `prompt` (text), `messages`, or `turns` (a list of texts, asked one after the other)"

COMMON_PARAMS = ("max_tokens", "temperature", "seed")
"""Parameters that every teacher takes."""

_PARAMS = (
    *COMMON_PARAMS,
    *("max_completion_tokens", "top_p", "top_k", "min_p", "stop", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "logit_bias", "response_format", "tool_choice", "parallel_tool_calls"),
    *("reasoning_effort", "reasoning", "thinking", "verbosity", "service_tier", "guided_json", "guided_regex"),
)
"""Keys of a row that are parameters; `params` may hold any others."""

_NOT_PARAMS = {
    **dict.fromkeys(("model", "stream", "stream_options", "logprobs", "top_logprobs"), "it is the same for all rows"),
    **dict.fromkeys(("messages", "input", "system", "tools", "functions"), "it is a key of the row"),
    **dict.fromkeys(("n", "best_of", "candidate_count"), "use --samples, or several rows"),
}
"""Names that `params` must not hold, since distill sets them, and what to do instead."""

_KEYS = ("prompt", "messages", "turns", "id", "system", "tools", "functions", "metadata", "params")
_TEACHER_KEYS = ("teacher_system", "teacher_messages")
_PICTURES = ("image", "images", "audio", "audios", "video", "videos")


@dataclass(frozen=True, slots=True)
class PromptReader:
    """Makes prompts of rows and texts.

    Attributes:
        system: a system message for prompts without one.
        teacher_system: a system message that only the teacher sees, for prompts without one.
        allow_unknown: keep unknown keys in the prompt's metadata, instead of refusing the row.
    """

    system: str | None = None
    teacher_system: str | None = None
    allow_unknown: bool = False

    def text(self, text: str, source: Source) -> Prompt:
        """A prompt of a text.

        Raises:
            DataError: it is empty, or has a lone surrogate.
        """
        if not text.strip():
            raise DataError(f"{source}: an empty text")
        check_text(text, str(source))
        teacher = () if self.teacher_system is None else (Message("system", self.teacher_system),)
        return Prompt(_with_system((Message("user", text),), self.system), source=source, teacher_messages=teacher)

    def prompt(self, prompt: Prompt, source: Source) -> Prompt:
        """A prompt with the common system messages, where it has none of its own."""
        teacher = prompt.teacher_messages or self._teacher_messages({}, source)
        messages = _with_system(tuple(prompt.messages), self.system)
        return replace(prompt, messages=messages, teacher_messages=teacher, source=prompt.source or source)

    def row(self, row: Mapping[str, Any], source: Source) -> Prompt:
        """Check a row and make a Prompt of it.

        Args:
            row: with `prompt`, `messages` or `turns`, and maybe `id`, `system`, `tools`, `metadata`, parameters and
                what only the teacher sees. A key whose value is null counts as absent.
            source: where it was read.

        Raises:
            DataError: it is not a prompt; names file, line and what is wrong.
        """
        row = {key: value for key, value in row.items() if value is not None}
        messages, followups = _conversation(row, source)
        unknown = self._unknown(row, source)
        own = _system(row, messages, source)
        tools, name = parse_tools(row, str(source)), row.get("id")
        if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int))):
            raise DataError(f"{source}: `id` is not a text")
        _check_text(row, source)
        return Prompt(
            messages=_with_system(messages, own or self.system),
            followups=followups,
            tools=tools,
            id=None if name is None else str(name),
            metadata={**_object(row, "metadata", source), **unknown},
            source=source,
            params=_params(row, source),
            teacher_messages=self._teacher_messages(row, source),
        )

    def _unknown(self, row: Mapping[str, Any], source: Source) -> dict[str, Any]:
        """The keys that mean nothing here.

        Raises:
            DataError: there are some, and they are not allowed.
        """
        known = (*_KEYS, *_TEACHER_KEYS, *_PARAMS)
        unknown = {key: value for key, value in row.items() if key not in known}
        for key in unknown:
            if key in _PICTURES and row[key]:
                raise DataError(f"{source}: the row has `{key}`", "distill asks text: leave such rows out")
            if not self.allow_unknown:
                near = difflib.get_close_matches(key, known, n=1)
                hint = (
                    f"did you mean `{near[0]}`? "
                    if near
                    else "a parameter goes into `params`, a note into `metadata`; "
                )
                raise DataError(f"{source}: unknown key `{key}`", f"{hint}--allow-unknown keeps it as metadata")
        return unknown

    def _teacher_messages(self, row: Mapping[str, Any], source: Source) -> tuple[Message, ...]:
        """What only the teacher sees: a system message, then examples."""
        given = row.get("teacher_messages") or []
        if not isinstance(given, list):
            raise DataError(f"{source}: `teacher_messages` is not a list of messages")
        messages = _parsed(given, f"{source}: teacher message")
        system = row.get("teacher_system")
        if system is not None and (not isinstance(system, str) or not system.strip()):
            raise DataError(f"{source}: `teacher_system` is not a text")
        if system is not None and messages and messages[0].role == "system":
            raise DataError(f"{source}: `teacher_system` beside a system message in `teacher_messages`", "drop one")
        return _with_system(messages, system or self.teacher_system)


def _conversation(row: Mapping[str, Any], source: Source) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """What is asked first, and what is asked after the answers."""
    kinds = [key for key in ("prompt", "messages", "turns") if key in row]
    if len(kinds) != 1:
        has = " and ".join(f"`{kind}`" for kind in kinds) or "none of `prompt`, `messages` and `turns`"
        raise DataError(f"{source}: the row has {has}", SHAPE)
    value = row[kinds[0]]
    conversation = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    if kinds[0] == "messages" or (kinds[0] == "prompt" and conversation):  # TRL's prompts are messages
        return _messages(value, source), ()
    texts = _texts(value, kinds[0], source)
    return texts[:1], texts[1:]


def _messages(rows: Any, source: Source) -> tuple[Message, ...]:
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{source}: `messages` is not a list of messages", SHAPE)
    messages = _parsed(rows, f"{source}: message")
    if messages[-1].role not in ("user", "tool"):
        raise DataError(
            f"{source}: `messages` ends on the message of role {messages[-1].role!r}",
            "the last message must be the user's (or a tool's): the teacher answers it",
        )
    if messages[-1].role == "user" and not (messages[-1].content or "").strip():
        raise DataError(f"{source}: the last message is empty")
    return messages


def _parsed(rows: list[Any], where: str) -> tuple[Message, ...]:
    """Messages as training data is read, in the spellings of OpenAI's and Anthropic's APIs."""
    return tuple(
        parse_message(part, f"{where} {number}") for number, row in enumerate(rows) for part in split_calls(row)
    )


def _texts(value: Any, key: str, source: Source) -> tuple[Message, ...]:
    """The user messages of `prompt` (one text) or `turns` (a list of texts)."""
    texts = [value] if key == "prompt" else value
    if not isinstance(texts, list) or not texts:
        raise DataError(f"{source}: `turns` is not a list of texts", SHAPE)
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{source}: `{key}` holds {_kind(text)}, not text", SHAPE)
        if not text.strip():
            raise DataError(f"{source}: `{key}` holds an empty text")
    return tuple(Message("user", text) for text in texts)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _system(row: Mapping[str, Any], messages: tuple[Message, ...], source: Source) -> str | None:
    system = row.get("system")
    if system is None:
        return None
    if not isinstance(system, str) or not system.strip():
        raise DataError(f"{source}: `system` is not a text")
    if messages[0].role == "system":
        raise DataError(f"{source}: the row has `system` and a system message", "leave one of them out")
    return system


def _params(row: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """The parameters of the row: those among its keys, and those in `params`.

    Raises:
        DataError: one is given twice, is none of a row's, or a common one has another type or is out of bounds.
    """
    found = dict(_object(row, "params", source))
    for name in found:
        if name in _NOT_PARAMS:
            raise DataError(f"{source}: `params` must not set `{name}`", f"leave it out: {_NOT_PARAMS[name]}")
    for name in _PARAMS:
        if name in row:
            if name in found:
                raise DataError(f"{source}: `{name}` is in the row and in `params`", "leave one of them out")
            found[name] = row[name]
    if "max_completion_tokens" in found:
        found["max_tokens"] = found.pop("max_completion_tokens")
    for name, kind, least in (("max_tokens", int, 1), ("seed", int, None), ("temperature", (int, float), 0)):
        value = found.get(name)
        good = isinstance(value, kind) and not isinstance(value, bool) and (least is None or value >= least)
        if name in found and not good:
            wanted = "give a number" if least is None else f"give a number from {least}"
            raise DataError(f"{source}: `{name}` is {value!r}", wanted)
    return found


def _object(row: Mapping[str, Any], key: str, source: Source) -> Mapping[str, Any]:
    value = row.get(key) or {}
    if not isinstance(value, Mapping):
        raise DataError(f"{source}: `{key}` is not an object")
    return value


def _check_text(row: Mapping[str, Any], source: Source) -> None:
    try:
        text = dumps(row)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{source}: {error}", "a row holds what JSON can hold") from None
    check_text(text, str(source))


def _with_system(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    if system is None or (messages and messages[0].role == "system"):
        return messages
    return (Message("system", system), *messages)


def prompt_to_dict(prompt: Prompt) -> dict[str, Any]:
    """Write a prompt as JSON: `messages` as first asked, then the `followups`, and the rest where it is set."""
    row: dict[str, Any] = {"messages": [message_to_dict(message) for message in prompt.messages]}
    if prompt.followups:
        row["followups"] = [message_to_dict(message) for message in prompt.followups]
    if prompt.tools:
        row["tools"] = [dict(tool) for tool in prompt.tools]
    if prompt.id is not None:
        row["id"] = prompt.id
    if prompt.metadata:
        row["metadata"] = dict(prompt.metadata)
    if prompt.params:
        row["params"] = dict(prompt.params)
    if prompt.teacher_messages:
        row["teacher_messages"] = [message_to_dict(message) for message in prompt.teacher_messages]
    return row

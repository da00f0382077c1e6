"""`check_formatter` lets the good ones pass, and names what each bad one does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill import DataError, Segment, make_formatter
from distill.testing import check_formatter, formatter_checks, run_checks


class Good:
    """`> question`, newline, `< answer</s>`, newline; the bad ones below differ by one thing."""

    def special_tokens(self, tokenizer):
        return [self.end(tokenizer)]

    def chat_template(self, tokenizer):
        return None

    def end(self, tokenizer):
        return tokenizer.eos_token or "</s>"

    def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
        segments = []
        for turn, message in enumerate(messages):
            if message.content is None or message.tool_calls or tools:
                raise DataError("no tools")
            segments += self.message(turn, message, tokenizer)
        return segments + ([Segment("< ")] if add_generation_prompt else [])

    def message(self, turn, message, tokenizer):
        said = Segment(message.content, True, message.role, turn)
        if message.role != "assistant":
            return [Segment("> "), said, Segment("\n")]
        return [Segment("< "), said, Segment(self.end(tokenizer), False, "assistant", turn, True), Segment("\n")]


class NotMarkedAsContent(Good):
    def message(self, turn, message, tokenizer):
        return [replace(part, content=False) for part in super().message(turn, message, tokenizer)]


class OtherGenerationPrompt(Good):
    def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
        segments = super().segments(messages, tokenizer, tools=tools)
        return segments + ([Segment("<")] if add_generation_prompt else [])


class NumbersAnswersFromTheEnd(Good):
    def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
        segments = super().segments(messages, tokenizer, tools=tools, add_generation_prompt=add_generation_prompt)
        return [Segment(f"{(len(messages) + 1) // 2} questions\n"), *segments]


class NoEnd(Good):
    def message(self, turn, message, tokenizer):
        return [part for part in super().message(turn, message, tokenizer) if not part.end_of_turn]


class EndsWithWords(Good):
    def end(self, tokenizer):
        return "END"

    def special_tokens(self, tokenizer):
        return []


class TrainsTheQuestion(Good):
    def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
        segments = super().segments(messages, tokenizer, tools=tools, add_generation_prompt=add_generation_prompt)
        if len(messages) < 2 or [message.role for message in messages[:2]] != ["user", "assistant"]:
            return segments
        quoted = Segment(f"({messages[0].content}) ", False, "assistant", 1)
        return [*segments[:4], quoted, *segments[4:]]


class RepeatsTheQuestionAsTemplate(Good):
    def message(self, turn, message, tokenizer):
        return [*super().message(turn, message, tokenizer), Segment(f"({message.content})\n")]


class OtherTemplate(Good):
    def chat_template(self, tokenizer):
        # Right for one and two plain turns, which the engine tries itself; wrong for a system message.
        return (
            f"{{% set eos = '{self.end(tokenizer)}' %}}"
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ '> ' + m['content'] + '\n' }}"
            "{% elif m['role'] == 'assistant' %}{{ '< ' + m['content'] + eos + '\n' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '< ' }}{% endif %}"
        )


class ForgetsTools(Good):
    def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
        messages = [replace(message, content=message.content or "", tool_calls=()) for message in messages]
        return super().segments(messages, tokenizer, add_generation_prompt=add_generation_prompt)


class Trims(Good):
    def message(self, turn, message, tokenizer):
        return super().message(turn, replace(message, content=message.content.strip()), tokenizer)


class LosesWords(Good):
    def message(self, turn, message, tokenizer):
        return super().message(turn, replace(message, content=message.content[:20]), tokenizer)


class Crashes(Good):
    def end(self, tokenizer):
        return tokenizer.eos_token + ""


class AddsTokens(Good):
    def segments(self, messages, tokenizer, **kwargs):
        tokenizer.add_tokens([f"<{len(tokenizer)}>"])
        return super().segments(messages, tokenizer, **kwargs)


class Unsteady(Good):
    calls = 0

    def segments(self, messages, tokenizer, **kwargs):
        self.calls += 1
        return [Segment(f"{self.calls % 7}\n"), *super().segments(messages, tokenizer, **kwargs)]


BAD = {
    NotMarkedAsContent: "give each message's own text a Segment(text, content=True",
    OtherGenerationPrompt: "end exactly where the assistant starts to write",
    NumbersAnswersFromTheEnd: "once turns follow",
    NoEnd: "ends an answer with no control token",
    EndsWithWords: "ends an answer with no control token",
    TrainsTheQuestion: "message 0 is by user, and is trained",
    RepeatsTheQuestionAsTemplate: "inside a message becomes a control token",
    OtherTemplate: "chat_template() renders",
    ForgetsTools: "left out without a word",
    LosesWords: "message 0 says 'What is six times seven?', but its content segments say 'What is six times se'",
    Crashes: "unsupported operand type(s) for +: 'NoneType' and 'str'",
    AddsTokens: "name them in special_tokens()",
    Unsteady: "a second call gives other segments",
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_bad_formatter_is_told_what_and_where(bad):
    with pytest.raises(AssertionError) as caught:
        check_formatter(bad())
    assert BAD[bad] in str(caught.value)


@pytest.mark.parametrize("good", [Good, Trims])
def test_a_good_one_passes(good):
    check_formatter(good())


@pytest.mark.parametrize("name", ["chat-template", "special-tokens"])
def test_the_built_in_ones_keep_their_contract(manager, name):
    check_formatter(make_formatter(name, manager=manager), rewrites_history=name == "chat-template")


def test_what_is_no_formatter_at_all():
    with pytest.raises(AssertionError, match="object has no special_tokens, chat_template, segments"):
        check_formatter(object())


def test_what_breaks_nothing_is_noted():
    outcomes = {outcome.check: outcome for outcome in run_checks(formatter_checks(NumbersAnswersFromTheEnd()))}
    noted = outcomes["an answer stays as it is when turns follow"]
    assert noted.status == "noted" and "rewrites_history=True" in noted.reason
    no_template = outcomes["the chat template renders the same text"]
    assert no_template.status == "noted" and "only where the plugin is installed" in no_template.reason

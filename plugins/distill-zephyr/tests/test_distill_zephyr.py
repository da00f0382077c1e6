"""The text that zephyr's own template gives, and the promises of the Formatter contract."""

from __future__ import annotations

import pytest
from distill_zephyr import ZEPHYR, register_formatters
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import distill
from distill import DataError, Message
from distill.testing import check_formatter

# chat_template of HuggingFaceH4/zephyr-7b-beta
REFERENCE = (
    "{% for message in messages %}\n"
    "{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n"
    "{{ '<|assistant|>' }}\n"
    "{% endif %}\n"
    "{% endfor %}"
)

CONVERSATION = [
    Message("system", "You are terse."),
    Message("user", "Hello!"),
    Message("assistant", "Hi.\n"),
    Message("user", " 2 + 2 = </s> {{ 1 }}?"),
    Message("assistant", ""),
]


@pytest.fixture
def make_tokenizer():
    def make(**special: str) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **special)

    return make


def text(messages, tokenizer, **kwargs) -> str:
    return "".join(segment.text for segment in ZEPHYR.segments(messages, tokenizer, **kwargs))


def rendered(template, messages, tokenizer, **kwargs) -> str:
    rows = [distill.message_to_dict(message) for message in messages]
    return tokenizer.apply_chat_template(rows, chat_template=template, tokenize=False, **kwargs)


@pytest.mark.parametrize("eos", ["</s>", "<|endoftext|>"])
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("length", range(1, len(CONVERSATION) + 1))
def test_same_text_as_zephyrs_template_and_our_own(make_tokenizer, eos, prompt, length):
    tokenizer, messages = make_tokenizer(eos_token=eos), CONVERSATION[:length]
    got = text(messages, tokenizer, add_generation_prompt=prompt)
    assert got == rendered(REFERENCE, messages, tokenizer, add_generation_prompt=prompt)
    template = ZEPHYR.chat_template(tokenizer)
    assert got == rendered(template, messages, tokenizer, add_generation_prompt=prompt)


def test_it_keeps_the_contract_of_formatters():
    check_formatter(ZEPHYR)


def test_a_known_text(make_tokenizer):
    got = text(CONVERSATION[:2], make_tokenizer(eos_token="</s>"), add_generation_prompt=True)
    assert got == "<|system|>\nYou are terse.</s>\n<|user|>\nHello!</s>\n<|assistant|>\n"


def test_tokenizer_without_eos_gets_one(make_tokenizer):
    tokenizer = make_tokenizer()
    assert ZEPHYR.special_tokens(tokenizer) == ["</s>"]
    template = ZEPHYR.chat_template(tokenizer)
    assert text(CONVERSATION, tokenizer) == rendered(template, CONVERSATION, tokenizer)
    assert ZEPHYR.special_tokens(make_tokenizer(eos_token="<eos>")) == ["<eos>"]


def test_generation_prompt_is_a_prefix_of_the_training_text(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="</s>")
    whole = ZEPHYR.segments(CONVERSATION, tokenizer)
    for turn, message in enumerate(CONVERSATION):
        if message.role == "assistant":
            prompt = ZEPHYR.segments(CONVERSATION[:turn], tokenizer, add_generation_prompt=True)
            assert whole[: len(prompt)] == prompt
            assert whole[len(prompt)] == distill.Segment(message.content, content=True, role="assistant", turn=turn)


def test_only_the_assistants_marker_ends_a_turn(make_tokenizer):
    segments = ZEPHYR.segments(CONVERSATION, make_tokenizer(eos_token="</s>"))
    ends = [segment for segment in segments if segment.end_of_turn]
    assert ends == [distill.Segment("</s>", role="assistant", turn=turn, end_of_turn=True) for turn in (2, 4)]
    written = {segment.turn: segment.text for segment in segments if segment.content}
    assert written == dict(enumerate(message.content for message in CONVERSATION))


@pytest.mark.parametrize(
    "message",
    [
        Message("tool", "42", tool_call_id="1"),
        Message("assistant", None, tool_calls=({"id": "1", "function": {"name": "f", "arguments": "{}"}},)),
        Message("assistant", "Let me see.", tool_calls=({"id": "1", "function": {"name": "f", "arguments": "{}"}},)),
    ],
)
def test_tool_messages_are_refused(make_tokenizer, message):
    tokenizer = make_tokenizer(eos_token="</s>")
    with pytest.raises(DataError, match="zephyr has no tools"):
        ZEPHYR.segments([*CONVERSATION, message], tokenizer)
    with pytest.raises(Exception, match="zephyr has no tools"):
        rendered(ZEPHYR.chat_template(tokenizer), [*CONVERSATION, message], tokenizer)


def test_tool_definitions_and_refusals_are_refused(make_tokenizer):
    tokenizer = make_tokenizer(eos_token="</s>")
    with pytest.raises(DataError, match="zephyr has no tools"):
        ZEPHYR.segments(CONVERSATION, tokenizer, tools=[{"type": "function"}])
    with pytest.raises(DataError, match="message 0: zephyr has no tools, and no message without text"):
        ZEPHYR.segments([Message("assistant", None, refusal="No.")], tokenizer)


def test_registered_as_zephyr():
    (spec,) = register_formatters()
    assert spec.name == "zephyr"
    assert isinstance(spec.build(spec.options()), distill.Formatter)

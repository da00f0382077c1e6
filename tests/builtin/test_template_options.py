"""Options of the chat template: its variables, system messages it has no place for, reasoning it does not read."""

from __future__ import annotations

import copy

import family_templates as templates
import pytest

from distill import IGNORE_INDEX, Message, Transcript, UsageError, make_formatter, make_plugin_manager
from distill.builtin.formatters.template_analysis import variables_of
from distill.dataset.prepare import prepare
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing.tokenizers import TOKENIZERS

MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
SYSTEM, ASK, ANSWER = Message("system", "Brief."), Message("user", "dog"), Message("assistant", "perro", "Hm.")
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + date_string + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' + date_string }}{% endif %}"
)


def encoder_for(tokenizer, **options):
    return prepare_tokenizer(tokenizer, make_formatter("chat-template", options, MANAGER), "chat-template")


def prepared(encoder, *messages: Message):
    return prepare([Transcript("t", messages)], encoder, MANAGER.labelers.build("masked", {}, encoder))


def written(encoder, *messages: Message) -> tuple[str, str]:
    """The text before the first trained token, and the trained text."""
    (example,) = prepared(encoder, *messages).examples
    start = next(n for n, label in enumerate(example.labels) if label != IGNORE_INDEX)
    own = [label for label in example.labels if label != IGNORE_INDEX]
    decode = encoder.tokenizer.backend_tokenizer.decode
    return decode(example.input_ids[:start], skip_special_tokens=False), decode(own, skip_special_tokens=False)


def rows(*messages: Message) -> list[dict]:
    return [{"role": message.role, "content": message.content} for message in messages]


def test_variables_are_what_a_template_reads_and_nobody_gives_it():
    assert variables_of(DATED) == {"date_string"}
    assert variables_of(templates.THINKS_ON_DEMAND) == {"thinking"}
    assert variables_of("{% for m in messages %}{% set a = m %}{{ a ~ eos_token ~ namespace() }}{% endfor %}") == set()
    assert variables_of("{% if %}") == set()


def test_a_variable_is_used_and_saved_with_the_student_as_its_default():
    encoder = encoder_for(templates.tokenizer_for(templates.THINKS_ON_DEMAND), thinking="true")
    assert written(encoder, ASK, ANSWER) == ("<s><|user|>dog<|assistant|><think>", "Hm.</think>perro</s>")
    saved = encoder.tokenizer
    assert saved.apply_chat_template(rows(ASK), tokenize=False, add_generation_prompt=True).endswith("<think>")
    off = saved.apply_chat_template(rows(ASK), tokenize=False, add_generation_prompt=True, thinking=False)
    assert off.endswith("<think></think>")
    again = encoder_for(saved, thinking="true")
    assert again.tokenizer.chat_template == saved.chat_template


def test_a_date_in_the_prompt_can_be_fixed():
    encoder = encoder_for(templates.tokenizer_for(DATED), date_string="26 Jul 2024")
    assert written(encoder, ASK, ANSWER)[0] == "<|user|>26 Jul 2024dog</s><|assistant|>26 Jul 2024"


def test_an_unknown_variable_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="unknown option or variable of the chat template 'thinkin'") as caught:
        encoder_for(templates.tokenizer_for(templates.THINKS_ON_DEMAND), thinkin="true")
    assert caught.value.hint == "did you mean 'thinking'? known: reasoning, system, template, thinking."


def test_a_system_message_is_folded_where_the_template_has_no_place_for_it():
    assert "no system role" in prepared(encoder_for(TOKENIZERS["gemma"]()), SYSTEM, ASK, ANSWER).skipped[0].reason
    encoder = encoder_for(TOKENIZERS["gemma"](), system="fold")
    before, _ = written(encoder, SYSTEM, ASK, ANSWER)
    assert before == "<bos><start_of_turn>user\nBrief.\n\ndog<end_of_turn>\n<start_of_turn>model\n"
    prompt = encoder.tokenizer.apply_chat_template(rows(SYSTEM, ASK), tokenize=False, add_generation_prompt=True)
    assert prompt == before
    own = encoder_for(TOKENIZERS["chatml"](), system="fold")
    assert written(own, SYSTEM, ASK, ANSWER)[0].startswith("<|im_start|>system\nBrief.<|im_end|>")


def test_reasoning_is_put_into_the_text_where_the_template_does_not_read_it():
    assert prepared(encoder_for(TOKENIZERS["chatml"]()), ASK, ANSWER).findings.counts["reasoning-left-out"] == 1
    encoder = encoder_for(TOKENIZERS["chatml"](), reasoning="inline")
    assert not prepared(encoder, ASK, ANSWER).findings.counts.get("reasoning-left-out")
    assert written(encoder, ASK, ANSWER)[1] == "<think>\nHm.\n</think>\n\nperro<|im_end|>"


@pytest.mark.parametrize("kind", ["chatml", "llama3", "gemma", "unigram", "qwen3"])
def test_what_is_put_before_a_template_changes_nothing_else(kind):
    tokenizer = TOKENIZERS[kind]()
    plain = encoder_for(copy.deepcopy(tokenizer))
    chosen = encoder_for(tokenizer, system="fold", reasoning="inline")
    chat = ASK, Message("assistant", "perro"), Message("user", "cat"), Message("assistant", "gato")
    assert chosen.encode(chat) == plain.encode(chat)
    assert chosen.prompt(chat[:3]) == plain.prompt(chat[:3])


def test_a_value_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="option reasoning takes bool or inline, not 'maybe'"):
        make_formatter("chat-template", {"reasoning": "maybe"}, MANAGER)

"""An answer is trained after its own generation prompt, and ends where generation stops, whatever the template does."""

from __future__ import annotations

import json

import family_templates as templates
import pytest

from distill import IGNORE_INDEX, Message, Transcript, make_formatter, make_plugin_manager, message_to_dict
from distill.dataset.prepare import prepare
from distill.encode.tokenizer import prepare_tokenizer

MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
TOOLS = ({"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {}}},)
INLINE = "<think>\nBecause.\n</think>\n\nperro"


def encoder_for(template: str, **options):
    formatter = make_formatter("chat-template", options, MANAGER)
    return prepare_tokenizer(templates.tokenizer_for(template), formatter, "chat-template")


def trained(encoder, *messages: Message, tools=()) -> list[tuple[str, str]]:
    """Of each example, the text before its first trained token and the trained text."""
    prepared = prepare([Transcript("t", messages, tools)], encoder, MANAGER.labelers.build("masked", {}, encoder))
    assert not prepared.skipped, prepared.skipped[0].reason
    assert not prepared.findings.errors(), list(prepared.findings)
    decode = encoder.tokenizer.backend_tokenizer.decode
    found = []
    for example in prepared.examples:
        start = next(n for n, label in enumerate(example.labels) if label != IGNORE_INDEX)
        own = [label for label in example.labels if label != IGNORE_INDEX]
        before = decode(example.input_ids[:start], skip_special_tokens=False)
        found.append((before, decode(own, skip_special_tokens=False)))
    return found


def prompt(encoder, *messages: Message) -> str:
    """What the saved template gives at inference."""
    rows = [{"role": message.role, "content": message.content} for message in messages]
    return encoder.tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)


ASK, ANSWER = Message("user", "dog"), Message("assistant", "perro")


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        (Message("assistant", "perro", "Because."), "Because.\n</think>\n\nperro</s>"),
        (Message("assistant", INLINE), "Because.\n</think>\n\nperro</s>"),
        (ANSWER, "\n</think>\n\nperro</s>"),
    ],
)
def test_a_thought_that_the_prompt_opens_is_continued(answer, written):
    encoder = encoder_for(templates.THINKS_FIRST)
    assert trained(encoder, ASK, answer) == [(prompt(encoder, ASK), written)]


def test_each_answer_of_a_conversation_is_an_example_where_history_is_rewritten():
    encoder = encoder_for(templates.THINKS_FIRST)
    more = Message("user", "cat"), Message("assistant", "gato", "Easy.")
    assert trained(encoder, ASK, Message("assistant", INLINE), *more) == [
        (prompt(encoder, ASK), "Because.\n</think>\n\nperro</s>"),
        (prompt(encoder, ASK, Message("assistant", INLINE), more[0]), "Easy.\n</think>\n\ngato</s>"),
    ]


def test_a_thought_before_a_tool_call():
    encoder = encoder_for(templates.THINKS_FIRST)
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
    ((_, written),) = trained(encoder, ASK, Message("assistant", None, "Hm.", (call,)), tools=TOOLS)
    assert written == 'Hm.\n</think>\n\n<tool_call>look{"at": "it"}</tool_call></s>'


def test_a_prompt_that_asks_for_no_thought_gets_an_answer_without_one():
    encoder = encoder_for(templates.THINKS_ON_DEMAND)
    before = prompt(encoder, ASK)
    assert before.endswith("<think></think>")
    assert trained(encoder, ASK, ANSWER) == [(before, "perro</s>")]
    messages = (ASK, Message("assistant", INLINE))
    prepared = prepare([Transcript("t", messages)], encoder, MANAGER.labelers.build("masked", {}, encoder))
    assert prepared.findings.counts["reasoning-left-out"] == 1


def test_a_system_message_that_moves_into_the_last_question():
    encoder = encoder_for(templates.SYSTEM_IN_LAST_QUESTION)
    system, more = Message("system", "Brief."), (Message("user", "cat"), Message("assistant", "gato"))
    assert trained(encoder, system, ASK, ANSWER, *more) == [
        ("<s>[INST] Brief.\n\ndog[/INST]", " perro</s>"),
        ("<s>[INST] dog[/INST] perro</s>[INST] Brief.\n\ncat[/INST]", " gato</s>"),
    ]


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": json.dumps({"at": "it"})}}
CALLED = ASK, Message("assistant", None, tool_calls=(CALL,)), Message("tool", "seven", tool_call_id="1"), ANSWER


@pytest.mark.parametrize(
    ("template", "call_end", "end"),
    [
        (templates.CALL_ENDS_OTHERWISE, "<|call|>", "<|end|>"),
        (templates.NEXT_SPEAKER_ENDS, "<|tool|>", "<|user|>"),
    ],
)
def test_a_tool_call_may_end_with_another_marker_than_an_answer(template, call_end, end):
    encoder = encoder_for(template)
    assert encoder.tokenizer.convert_ids_to_tokens(list(encoder.stops)) == [end, call_end]
    ((_, written),) = trained(encoder, *CALLED, tools=TOOLS)
    assert written.endswith(f"perro{end}") and call_end in written
    ((_, alone),) = trained(encoder, *CALLED[:2], tools=TOOLS)
    assert alone.endswith(call_end) and alone == written.removesuffix(f"perro{end}")


def test_generation_stops_at_each_marker_and_the_saved_config_names_them_all():
    from distill.models.generate import ChatModel
    from distill.models.special_tokens import set_special_ids
    from distill.testing.students import tiny_llama

    encoder = encoder_for(templates.CALL_ENDS_OTHERWISE)
    model = tiny_llama(encoder.tokenizer)
    set_special_ids(model, encoder.tokenizer, encoder.stops)
    assert model.generation_config.eos_token_id == list(encoder.stops)
    assert model.config.eos_token_id == encoder.stop
    for stop in encoder.stops:
        chat = ChatModel(model, encoder)
        hook = model.lm_head.register_forward_hook(lambda head, args, out, stop=stop: _certain(out, stop))
        (generated,) = chat.generate([[ASK]], max_tokens=4)
        hook.remove()
        assert (generated.finish_reason, generated.completion_tokens, generated.text) == ("stop", 1, "")


def _certain(logits, token):
    """Logits that leave no doubt about the next token."""
    logits = logits.clone()
    logits[..., token] = 99.0
    return logits


def test_a_trained_student_stops_at_each_marker(tmp_path):
    from distill.cli.main import main
    from distill.testing import save_student
    from distill.testing.students import tiny_llama

    tokenizer = templates.tokenizer_for(templates.CALL_ENDS_OTHERWISE)
    student = save_student(tiny_llama(tokenizer), tokenizer, tmp_path / "student")
    rows = [message_to_dict(message) for message in CALLED]
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"messages": rows, "tools": list(TOOLS)}) + "\n")
    words = ["--student", str(student), "--out", str(tmp_path / "run"), "--epochs", "1", "-T", "use_cpu=true"]
    assert main(["train", str(data), *words]) == 0
    config = json.loads((tmp_path / "run/model/generation_config.json").read_text())
    assert [tokenizer.convert_ids_to_tokens(token) for token in config["eos_token_id"]] == ["<|end|>", "<|call|>"]

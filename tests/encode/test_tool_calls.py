"""Tool calls and reasoning in chat templates like those of the well-known models."""

from __future__ import annotations

import functools
import json
import re

import pytest
from tool_templates import STUDENTS

from distill import IGNORE_INDEX, DataError, Message, Transcript, UsageError, make_formatter, make_plugin_manager
from distill.dataset.prepare import prepare
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing.tokenizers import TOKENIZERS

MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Look out of the window.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
)
ID = "abcdefghi"


@functools.cache
def encoder(kind: str, **options):
    make = STUDENTS.get(kind) or TOKENIZERS[kind]
    return prepare_tokenizer(make(), make_formatter("chat-template", options, MANAGER), "chat-template")


def call(arguments, name: str = "weather", id: str = ID) -> dict:
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def asked(*calls, content: str | None = None) -> tuple[Message, ...]:
    return Message("user", "q"), Message("assistant", content, tool_calls=calls)


def answered(*calls, content: str | None = None) -> tuple[Message, ...]:
    results = (Message("tool", f"result {n}", tool_call_id=one["id"]) for n, one in enumerate(calls))
    return *asked(*calls, content=content), *results, Message("assistant", "Sunny.")


def trained(kind: str, messages, tools=TOOLS, labeler: str = "masked", options=(), **labels) -> list[str] | str:
    """What is trained, an example each; or the reason why nothing is."""
    made = encoder(kind, **dict(options))
    prepared = prepare([Transcript("t", messages, tools)], made, MANAGER.labelers.build(labeler, labels, made))
    if prepared.skipped:
        return prepared.skipped[0].reason
    assert not prepared.findings.errors()
    decode = made.tokenizer.backend_tokenizer.decode
    kept = [[label for label in example.labels if label != IGNORE_INDEX] for example in prepared.examples]
    return [decode(ids, skip_special_tokens=False) for ids in kept]


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Málaga"}}\n</tool_call>'
NO_THOUGHT = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("qwen2.5", [CALL + "<|im_end|>Sunny.<|im_end|>"]),
        ("qwen3", [NO_THOUGHT + CALL + "<|im_end|>", NO_THOUGHT + "Sunny.<|im_end|>"]),
        ("hermes", [CALL.replace("á", "\\u00e1") + "<|im_end|>Sunny.<|im_end|>"]),
        ("llama3.1", ['{"name": "weather", "parameters": {"city": "Málaga"}}<|eot_id|>Sunny.<|eot_id|>']),
        (
            "mistral",
            ['[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Málaga"}, "id": "abcdefghi"}]</s> Sunny.</s>'],
        ),
    ],
)
def test_the_call_and_the_answer_are_trained_and_the_result_is_not(kind, expected):
    messages = answered(call({"city": "Málaga"}))
    assert trained(kind, messages) == expected
    ids = encoder(kind).encode(messages, TOOLS).input_ids
    rows = [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call({}) | {"function": {"name": "weather", "arguments": {"city": "Málaga"}}}],
        },
        {"role": "tool", "content": "result 0", "tool_call_id": ID},
        {"role": "assistant", "content": "Sunny."},
    ]
    assert ids == encoder(kind).tokenizer.apply_chat_template(rows, tools=list(TOOLS), return_dict=False)


def test_several_calls_with_text_before_them():
    both = call({"city": "Bonn"}), call({"city": "Rome"}, id="bcdefghij")
    expected = "\n".join(CALL.replace("Málaga", city) for city in ("Bonn", "Rome"))
    assert trained("qwen2.5", answered(*both, content="Let me see.")) == [
        f"Let me see.\n{expected}<|im_end|>Sunny.<|im_end|>"
    ]
    assert "only single tool-calls" in trained("llama3.1", answered(*both))
    reason = "message 1: the chat template leaves out the assistant's text beside its tool calls"
    assert trained("mistral", answered(*both, content="Let me see.")) == reason


@pytest.mark.parametrize("kind", STUDENTS)
def test_strings_in_calls_and_results_never_become_control_tokens(kind):
    made = encoder(kind)
    evil = "".join(word for word in made.tokenizer.get_added_vocab() if word.strip()) + '"}'
    calm = answered(call({"city": "x", "deep": [{"y": "z"}], "n": 1, "t": True}))
    for messages in (
        answered(call({"city": evil, "deep": [{"y": evil}], "n": 1, "t": True})),
        answered(call({evil: "x", "deep": [{evil: "z"}], "n": 1, "t": True})),
        answered(call({"city": "x", "deep": [{"y": "z"}], "n": 1, "t": True}, name=f"weather{evil}")),
        (*calm[:2], Message("tool", evil, tool_call_id=ID, name=evil), calm[3]),
    ):
        controls = [
            [token for token in made.encode(one, TOOLS).input_ids if token in made.control_ids]
            for one in (messages, calm)
        ]
        assert controls[0] == controls[1]
        assert isinstance(trained(kind, messages), list)


def test_an_id_never_becomes_a_control_token():
    tokenizer, evil = STUDENTS["mistral"](), "abcde</s>"
    tokenizer.chat_template = tokenizer.chat_template.replace("call.id | length != 9", "call.id | length < 6")
    made = prepare_tokenizer(tokenizer, make_formatter("chat-template", {}, MANAGER), "chat-template")
    ids = made.encode(answered(call({"city": "Bonn"}, id=evil)), TOOLS).input_ids
    assert tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False).count(evil) == 2
    assert ids.count(made.stop_token_id()) == 2


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("", "{}"),
        ("{}", "{}"),
        ('{"a":1.50,"b":null}', '{"a": 1.5, "b": null}'),
        ("not JSON", "not JSON"),
        ("[1]", "[1]"),
        ('"text"', '"text"'),
    ],
)
def test_arguments_are_an_object_where_they_can_be(arguments, shown):
    expected = f'{NO_THOUGHT}<tool_call>\n{{"name": "weather", "arguments": {shown}}}\n</tool_call><|im_end|>'
    assert trained("qwen3", asked(call(arguments))) == [expected]


def test_a_call_without_the_wrapper_is_a_call():
    bare = {"name": "weather", "arguments": {"city": "Málaga"}}
    assert trained("qwen2.5", asked(bare)) == [CALL + "<|im_end|>"]


@pytest.mark.parametrize(
    ("kind", "messages", "tools", "reason"),
    [
        ("chatml", answered(call({})), (), "message 1: the chat template has no place for its tool calls"),
        ("chatml", (Message("user", "q"), Message("assistant", "a")), TOOLS, "has no place for tool definitions"),
        ("unigram", answered(call({})), (), "has no place for its tool calls"),
        ("qwen2.5", asked({"id": "x"}), TOOLS, "message 1 has a tool call without a function name"),
        ("qwen2.5", asked(call({"a": "\ud800"})), TOOLS, "lone surrogate"),
    ],
)
def test_what_cannot_be_trained_says_why(kind, messages, tools, reason):
    assert reason in trained(kind, messages, tools)


@pytest.mark.parametrize("depth", [50, 300, 900, 5_000])
def test_arguments_of_any_depth_bring_no_traceback(depth):
    nested = '{"a":' * depth + "1" + "}" * depth
    assert trained("qwen3", asked(call(nested)))


def test_a_tool_definition_with_a_control_token_is_refused():
    tool = {"type": "function", "function": {"name": "f", "description": "Ends with <|im_end|>.", "parameters": {}}}
    assert "tool definition 0 spells out a control token" in trained("qwen2.5", answered(call({})), (tool,))
    with pytest.raises(DataError, match="control token"):
        encoder("qwen2.5").prompt([Message("user", "q")], (tool,))


def test_calls_that_end_otherwise_are_refused():
    """A student would not stop there: generation waits for the format's own marker."""
    tokenizer = STUDENTS["hermes"]()
    template = tokenizer.chat_template.replace(
        "{%- endfor %}\n    {{- '<|im_end|>", "{%- endfor %}\n    {{- '<|call|>", 1
    )
    assert template != tokenizer.chat_template
    tokenizer.chat_template = template
    made = prepare_tokenizer(tokenizer, make_formatter("chat-template", {}, MANAGER), "chat-template")
    with pytest.raises(DataError, match=r"message 1: its tool calls do not end with .*<\|im_end\|>"):
        made.segments(asked(call({})))


def test_trl_skips_what_it_would_label_wrongly():
    assert trained("qwen2.5", answered(call({"city": "Málaga"})), labeler="trl") == [
        CALL + "<|im_end|>Sunny.<|im_end|>\n"
    ]
    assert "message 2, which would be trained" in trained("hermes", answered(call({})), labeler="trl")


THOUGHT = (
    Message("user", "q"),
    Message("assistant", "a", reasoning_content="R1\n"),
    Message("user", "r"),
    Message("assistant", None, reasoning_content="R2", tool_calls=(call({"city": "Málaga"}),)),
    Message("tool", "20", tool_call_id=ID),
    Message("assistant", "b", reasoning_content="R3"),
)


def test_reasoning_is_trained_with_its_frame_or_not():
    """Qwen3 strips what was thought before the last question: one example an answer."""
    frame = "<think>\n{}\n</think>\n\n".format
    rest = ["a<|im_end|>", CALL + "<|im_end|>", "b<|im_end|>"]
    assert trained("qwen3", THOUGHT) == [frame(f"R{n}") + text for n, text in enumerate(rest, 1)]
    assert trained("qwen3", THOUGHT, reasoning="false") == rest
    without = [frame("") + text for text in rest]
    assert trained("qwen3", THOUGHT, options=(("reasoning", "false"),)) == without
    whole = encoder("qwen3").segments(THOUGHT[:4])
    assert "".join(part.text for part in whole if part.reasoning) == frame("R2")


def test_a_template_without_a_place_for_reasoning_is_found_out():
    for kind, left_out in (("qwen2.5", True), ("qwen3", False)):
        made = encoder(kind)
        prepared = prepare([Transcript("t", THOUGHT[:2])], made, MANAGER.labelers.build("masked", {}, made))
        assert ("reasoning-left-out" in prepared.findings.counts) == left_out


@pytest.mark.parametrize("said", ["<think>\nR\n</think>\n\na", "<think>R</think>a", "R\n</think>\n\na"])
def test_reasoning_inside_the_content_is_reasoning(said):
    messages = Message("user", "q"), Message("assistant", said), Message("user", "r"), Message("assistant", said)
    ends = ["a<|im_end|>", "a<|im_end|>"]
    assert trained("qwen3", messages, ()) == ["<think>\nR\n</think>\n\n" + text for text in ends]
    assert trained("qwen3", messages, (), reasoning="false") == ends
    # A template that takes it as text: nothing is split off but what shall not be trained.
    assert trained("qwen2.5", messages, ()) == [f"{said}<|im_end|>" * 2]
    assert trained("qwen2.5", messages, (), options=(("reasoning", "false"),)) == ["".join(ends)]
    assert trained("qwen2.5", messages, (), reasoning="false") == ["".join(ends)]


@pytest.mark.parametrize("said", ["<think>R</think>a</think>b", "x <think>R</think>a"])
def test_reasoning_that_the_template_would_lose_is_refused(said):
    assert "cannot be followed" in trained("qwen3", (Message("user", "q"), Message("assistant", said)), ())


def test_reasoning_without_an_answer_is_an_empty_answer():
    messages = Message("user", "q"), Message("assistant", "<think>R</think>\n")
    assert trained("qwen3", messages, ()) == "message 1: the answer is empty after its reasoning"


def test_an_assistant_that_begins_is_trained_from_its_second_answer_on():
    hello = Message("assistant", "Hello!")
    rest = Message("user", "q"), Message("assistant", "a")
    assert "a conversation that the assistant begins" in trained("qwen3", (hello, *rest), ())
    hello = Message("assistant", "Hello!", train=False)
    assert trained("qwen3", (hello, *rest), ()) == [NO_THOUGHT + "a<|im_end|>"]


def test_call_ids_get_the_shape_that_the_template_wants():
    made = encoder("mistral")
    messages = answered(call({}, id="call_abc-1"), call({}, id="call_abc-2"))
    prepared = prepare([Transcript("t", messages, TOOLS)], made, MANAGER.labelers.build("masked", {}, made))
    text = made.tokenizer.backend_tokenizer.decode(prepared.examples[0].input_ids, skip_special_tokens=False)
    found = re.findall(r'(?:"id"|"call_id"): "(\w+)"', text)
    assert [len(id) for id in found] == [9] * 4 and found[:2] == found[2:] and found[0] != found[1]
    assert prepared.findings.counts == {"call-id-changed": 1}
    own = prepare([Transcript("t", answered(call({})), TOOLS)], made, MANAGER.labelers.build("masked", {}, made))
    assert not own.findings.counts


TEXT_ARGUMENTS = (  # DeepSeek V3: concatenates the arguments, which must be text
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name + BODY }}{% endfor %}"
    "{{ m.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
)


@pytest.mark.parametrize("body", ["c.function.arguments", "' ' ~ c.function.arguments"])
def test_arguments_are_text_where_the_template_writes_them_as_they_are(body):
    tokenizer = TOKENIZERS["chatml"]()
    tokenizer.chat_template = TEXT_ARGUMENTS.replace("BODY", body)
    made = prepare_tokenizer(tokenizer, make_formatter("chat-template", {}, MANAGER), "chat-template")
    for arguments in ('{"city": "Oslo", "now": true}', {"city": "Oslo", "now": True}):
        said = call("{}") | {"function": {"name": "weather", "arguments": arguments}}
        decoded = tokenizer.backend_tokenizer.decode(made.encode(asked(said), TOOLS).input_ids)
        assert '{"city": "Oslo", "now": true}' in decoded


def test_named_templates_are_chosen_as_transformers_does_and_all_kept():
    tokenizer = TOKENIZERS["chatml"]()
    plain = tokenizer.chat_template
    with_tools = STUDENTS["qwen2.5"]().chat_template
    tokenizer.chat_template = {"default": plain, "tool_use": with_tools}
    made = prepare_tokenizer(tokenizer, make_formatter("chat-template", {}, MANAGER), "chat-template")
    assert tokenizer.chat_template == {"default": plain, "tool_use": with_tools}
    decode = tokenizer.backend_tokenizer.decode
    text = decode(made.encode(answered(call({"city": "Oslo"})), TOOLS).input_ids, skip_special_tokens=False)
    assert "# Tools" in text and "Be helpful." not in text
    text = decode(made.encode([Message("user", "q"), Message("assistant", "a")]).input_ids, skip_special_tokens=False)
    assert "Be helpful." in text
    tokenizer.chat_template = {"rag": plain}
    with pytest.raises(UsageError, match=r"several chat templates \(rag\), and none is called default"):
        prepare_tokenizer(tokenizer, make_formatter("chat-template", {}, MANAGER), "chat-template")

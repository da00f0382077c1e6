"""Conversations of every shape: trained exactly right, or skipped with a reason. Never a traceback, never a guess."""

from __future__ import annotations

import functools
import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tool_templates import STUDENTS

from distill import IGNORE_INDEX, Message, Transcript, make_formatter, make_plugin_manager, message_to_dict
from distill.builtin.formatters.rows import short_id
from distill.dataset.prepare import prepare
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing.tokenizers import EXACT, TOKENIZERS

MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})


def smollm2():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_plugin_manager().models.get("smollm2").path())


KINDS = {**TOKENIZERS, **{f"{name} tools": make for name, make in STUDENTS.items()}, "smollm2": smollm2}
LABELERS = {"masked": {}, "answers": {"reasoning": "false"}, "copy": {}, "trl": {}}
PAIRS = [(kind, "chat-template") for kind in KINDS if kind != "smollm2"] + [
    (kind, "special-tokens") for kind in ("bloom", "gemma", "unigram")
]


@functools.cache
def encoder(kind: str, name: str):
    return prepare_tokenizer(KINDS[kind](), make_formatter(name, manager=MANAGER), name)


@functools.cache
def labeler(kind: str, name: str, which: str):
    return MANAGER.labelers.build("masked" if which == "answers" else which, LABELERS[which], encoder(kind, name))


def prepared(kind: str, name: str, which: str, messages, tools=()):
    made = prepare([Transcript("t", tuple(messages), tools)], encoder(kind, name), labeler(kind, name, which))
    assert made.rows == 1 == made.trained_rows + len(made.skipped)
    assert all(row.reason for row in made.skipped)
    return made


def trained(made, example) -> str:
    ids = [label for label in example.labels if label != IGNORE_INDEX]
    return made.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)


def rows(messages, short_ids: bool = False) -> list[dict]:
    """What transformers is given: arguments are objects there, and call ids as short as the template wants them."""
    made = [message_to_dict(message) for message in messages]
    for row in made:
        row["content"] = row["content"] or ""
        for call in row.get("tool_calls", ()):
            call["function"] = {**call["function"], "arguments": json.loads(call["function"]["arguments"])}
            call["id"] = short_id(call["id"]) if short_ids else call["id"]
        if short_ids and "tool_call_id" in row:
            row["tool_call_id"] = short_id(row["tool_call_id"])
    return made


def written(tokenizer, messages, tools, turn: int, late_marker: str) -> str:
    """What the student must write in a turn, by the template's own word: from the prompt to the end marker."""
    render = functools.partial(tokenizer.apply_chat_template, tools=list(tools) or None, tokenize=False)
    conversation = rows(messages, short_ids="length 9" in tokenizer.chat_template)
    prompt = render([conversation[:turn]], add_generation_prompt=True)[0]
    whole = render([conversation[: turn + 1]])[0]
    if whole.startswith(prompt):
        answer = whole[len(prompt) :]
    else:  # the template renders what is before the answer in another way once the answer is there
        header = prompt.removeprefix(render([conversation[:turn]])[0])
        answer = whole[whole.rindex(header) + len(header) :]
    return answer + late_marker if late_marker else answer.removesuffix("\n")  # a line break after the end marker


TOOLS = ({"type": "function", "function": {"name": "look", "description": "Look it up.", "parameters": {}}},)
HOSTILE = ["</s>", "<|im_end|>", "<|im_start|>user\n", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|eot_id|>",
           "<end_of_turn>", "[INST]", '"}}', "\\", "</tool_response>", "<|endoftext|>", "{{ x }}", "'"]  # fmt: skip
words = st.one_of(st.sampled_from(HOSTILE), st.text("aé東 .\n", max_size=5), st.just("perro"))
texts = st.lists(words, min_size=1, max_size=3).map("".join)
blanks = st.sampled_from(["", " ", "\n"])
values = st.recursive(
    texts | st.integers(-9, 9) | st.booleans() | st.none(), lambda v: st.lists(v, max_size=2), max_leaves=3
)
arguments = st.dictionaries(st.sampled_from(["city", "n", "a b", "</s>"]), values, max_size=2)


@st.composite
def calls(draw):
    function = {"name": draw(st.sampled_from(["look", "f.g", "</s>x"])), "arguments": json.dumps(draw(arguments))}
    return {"id": draw(st.sampled_from(["abcdefghi", "012345678", "call_1"])), "type": "function", "function": function}


@st.composite
def message(draw):
    role = draw(st.sampled_from(["system", "user", "user", "assistant", "assistant", "assistant", "tool"]))
    content = draw(blanks if draw(st.integers(0, 15)) == 0 else texts)
    if role == "tool":
        return Message("tool", content, tool_call_id=draw(st.sampled_from(["abcdefghi", "x"])))
    if role != "assistant":
        return Message(role, content, name=draw(st.sampled_from([None, None, "Ann", "</s>"])))
    made = tuple(draw(st.lists(calls(), max_size=2))) if draw(st.integers(0, 3)) == 0 else ()
    thought = draw(st.sampled_from([None, None, "", "I thought", "\nthought </think> <|im_end|>\n"]))
    content = None if made and draw(st.booleans()) else content
    return Message("assistant", content, thought, made, train=draw(st.sampled_from([True] * 5 + [False])))


# Any order at all; and the orders that templates are made for.
any_order = st.lists(message(), min_size=1, max_size=6).filter(lambda m: any(one.role == "assistant" for one in m))
asked = st.tuples(texts, message().filter(lambda m: m.role == "assistant")).map(lambda t: [Message("user", t[0]), t[1]])
result = texts.map(lambda text: [Message("tool", text, tool_call_id="abcdefghi")])
in_order = st.lists(st.one_of(asked, asked, result), min_size=1, max_size=4).map(
    lambda parts: list(itertools.chain(*parts))
)


conversations = st.one_of(any_order, in_order), st.sampled_from([(), (), TOOLS])


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*conversations)
def test_whatever_is_trained_is_what_the_assistant_wrote(kind, name, messages, tools):
    look_at(kind, name, messages, tools)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [*PAIRS, ("smollm2", "chat-template"), ("smollm2", "special-tokens")])
@settings(max_examples=550, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*conversations)
def test_so_it_is_in_ten_thousand_conversations(kind, name, messages, tools):
    look_at(kind, name, messages, tools)


def look_at(kind: str, name: str, messages: list[Message], tools: tuple) -> None:
    """Prepare a conversation with every labeler, and hold what is trained to what the template itself renders."""
    made = encoder(kind, name)
    whole = prepared(kind, name, "masked", messages, tools)
    assert not whole.findings.errors()
    answers = [turn for turn, message in enumerate(messages) if message.role == "assistant" and message.train]
    if whole.examples and kind.partition(" ")[0] in (*EXACT, *STUDENTS, "smollm2") and name == "chat-template":
        late = "<|im_end|>" if kind == "late-end" else ""
        expected = [written(made.tokenizer, messages, tools, turn, late) for turn in answers]
        assert "".join(trained(made, example) for example in whole.examples) == "".join(expected)
    if whole.examples:  # the last answer stands after its prompt
        ids, labels = whole.examples[-1].input_ids, whole.examples[-1].labels
        encoded = made.encode(messages[: answers[-1] + 1], tools)
        start = encoded.turn.index(answers[-1])
        assert encoded.input_ids[:start] == made.prompt(messages[: answers[-1]], tools) == ids[:start]
        assert labels[start] == ids[start]
    for which in ("answers", "copy", "trl"):
        other = prepared(kind, name, which, messages, tools)
        assert [row.id for row in other.skipped] == [row.id for row in whole.skipped] or which in ("answers", "trl")
        full = {tuple(example.input_ids): example for example in whole.examples}
        for two in other.examples:
            one = full[tuple(two.input_ids)]
            both = list(zip(one.labels, two.labels, strict=True))
            if which == "answers":
                assert all(b in (a, IGNORE_INDEX) for a, b in both)
                assert "I thought" not in trained(made, two)
            else:
                assert all(a in (b, IGNORE_INDEX) for a, b in both)

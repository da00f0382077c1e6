"""Every finding is raised by some input: a table of them, which must name all codes."""

from __future__ import annotations

import json

import pytest
from family_templates import tokenizer_for
from test_verify import encoder, faulty, found, masked

from distill import IGNORE_INDEX, Message, Segment, Transcript, make_formatter
from distill.dataset.check import check
from distill.dataset.findings import CODES
from distill.dataset.pipeline import make_pipeline
from distill.dataset.settings import DataSettings
from distill.encode.tokenizer import prepare_tokenizer

SOFT = {code for code in CODES if code.startswith(("logprobs-", "few-tokens-"))}
"""The teacher's log probabilities have tests of their own: tests/soft_labels/."""

ASK, ANSWER = {"role": "user", "content": "dog?"}, {"role": "assistant", "content": "perro"}


def only(**labels):
    """A labeler that trains the places for which each function of (encoded, n) is true."""

    def label(encoded):
        return [token if labels["where"](encoded, n) else IGNORE_INDEX for n, token in enumerate(encoded.input_ids)]

    return label


def chat(**answer) -> Transcript:
    return Transcript("t", (Message("user", "dog?"), Message("assistant", **{"content": "perro", **answer})))


def with_marker(text: str):
    """A fault that changes the end-of-turn marker."""
    return lambda segments: [
        Segment(text, False, part.role, part.turn, True) if part.end_of_turn else part for part in segments
    ]


def as_template(role: str):
    """A fault that calls a role's text the template's."""
    return lambda segments: [
        Segment(part.text, False, part.role, part.turn) if part.role == role and part.content else part
        for part in segments
    ]


def other_end():
    made = faulty(lambda segments: segments)
    made.stop = made.stops[0] + 1
    made.stops = (made.stop,)
    return made


def padded_with_eos():
    made = encoder()
    made.tokenizer.pad_token = made.tokenizer.eos_token
    return made


def lossy_answer():
    """An encoder whose tokens say something else than the answer."""
    made = encoder()
    inner = made.encode_segments
    word = made.tokenizer.encode("gato", add_special_tokens=False)[0]

    def encode(rendered):
        encoded = inner(rendered)
        for one in encoded:
            one.input_ids[one.turn.index(1)] = word
        return encoded

    made.encode_segments = encode
    return made


def dated():
    template = (
        "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    return prepare_tokenizer(tokenizer_for(template), make_formatter("chat-template"), "chat-template")


def mistral():
    from tool_templates import STUDENTS

    return prepare_tokenizer(STUDENTS["mistral"](), make_formatter("chat-template"), "chat-template")


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLED = Transcript(
    "t",
    (Message("user", "q"), Message("assistant", None, tool_calls=(CALL,)), Message("tool", "r", tool_call_id="call_1")),
    ({"type": "function", "function": {"name": "look", "parameters": {}}},),
)
THOUGHT = chat(reasoning_content="Hm.")

LABELS = {
    "wrong-answer": lambda: found(lossy_answer(), masked),
    "partial-answer": lambda: found(encoder(), only(where=lambda e, n: e.turn[n] == 1 and n != e.turn.index(1))),
    "prompt-trained": lambda: found(encoder(), only(where=lambda e, n: e.turn[n] in (0, 1))),
    "end-not-trained": lambda: found(encoder(), only(where=lambda e, n: e.turn[n] == 1 and not e.end_of_turn[n])),
    "end-is-not-eos": lambda: found(other_end(), masked),
    "pad-is-eos": lambda: found(padded_with_eos(), masked),
    "control-from-content": lambda: found(
        faulty(as_template("user")), masked, Transcript("t", (Message("user", "a</s>"), Message("assistant", "b")))
    ),
    "all-trained": lambda: found(encoder(), only(where=lambda e, n: True)),
    "template-trained": lambda: found(encoder(), only(where=lambda e, n: e.assistant_mask[n] or n == 0)),
    "untrained-answer": lambda: found(encoder(), only(where=lambda e, n: e.turn[n] == 3)),
    "untrained-reasoning": lambda: found(
        encoder("chat-template", "qwen3"), only(where=lambda e, n: e.assistant_mask[n] and not e.reasoning[n]), THOUGHT
    ),
    "reasoning-left-out": lambda: found(encoder("chat-template", "chatml"), masked, THOUGHT),
    "system-prompt-added": lambda: found(encoder("chat-template", "chatml"), masked),
    "date-in-prompt": lambda: found(dated(), masked),
    "text-changed": lambda: found(encoder(kind="wordpiece"), masked, chat(content="Yes .  Is it")),
    "unknown-token": lambda: found(encoder(kind="wordpiece"), masked, chat(content="東京")),
    "control-text": lambda: found(encoder(), masked, chat(content="The end: </s>")),
    "history-rewritten": lambda: found(encoder("chat-template", "qwen3"), masked),
    "call-id-changed": lambda: found(mistral(), masked, CALLED),
    "answer-left-out": lambda: found(
        encoder("chat-template", "qwen3"), only(where=lambda e, n: e.assistant_mask[n] and 3 in e.turn)
    ),
}

DATA = {
    "skipped": {"messages": [ASK, {**ANSWER, "tool_calls": [CALL]}]},
    "no-answer": {"messages": [ASK]},
    "weight-0": {"messages": [ASK, {**ANSWER, "weight": 0}]},
    "empty-answer": {"messages": [ASK, {**ANSWER, "content": " "}]},
    "refused-answer": {"messages": [ASK, {"role": "assistant", "content": None, "refusal": "No."}]},
    "cut-answer": {"messages": [ASK, ANSWER], "metadata": {"finish_reason": "length"}},
    "unknown-finish": {"messages": [ASK, ANSWER], "metadata": {"finish_reason": "abort"}},
    "refused-row": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ANSWER]},
    "huge-row": {"messages": [ASK, {**ANSWER, "content": "perro " * 800_000}]},
    "edited-row": {"messages": [ASK, ANSWER], "checksum": "00000000"},
    "overlong": {"messages": [ASK, {**ANSWER, "content": "perro " * 99}]},
    "unknown-column": {"messages": [ASK, ANSWER], "mood": "good"},
    "thinking-in-answer": {"messages": [ASK, {**ANSWER, "content": "<think>Hm.</think>perro"}]},
    "role-order": {"messages": [ASK, ASK, ANSWER]},
    "ends-on-user": {"messages": [ASK, ANSWER, ASK]},
    "duplicate": {"messages": [ASK, ANSWER]},
    "leakage": {"messages": [ASK, ANSWER]},
    "nothing-to-train": {"messages": [ASK]},
    "teacher-prompt": {
        "messages": [{"role": "system", "content": "Only for the teacher, not for others."}, ASK, ANSWER],
        "metadata": {"teacher_messages": [{"role": "system", "content": "Only for the teacher, not for others."}]},
    },
}


def test_the_table_names_every_finding():
    assert set(LABELS) | set(DATA) | SOFT == set(CODES)
    assert not set(LABELS) & set(DATA)


@pytest.mark.parametrize("code", LABELS)
def test_an_input_that_raises_a_finding_of_the_label_check(code):
    assert code in LABELS[code]()


@pytest.mark.parametrize("code", DATA)
def test_an_input_that_raises_a_finding_about_the_data(code, bloom, tmp_path, manager):
    path = tmp_path / "data.jsonl"
    good = {"messages": [{"role": "user", "content": "cat?"}, {"role": "assistant", "content": "gato"}]}
    rows = [DATA[code]] if code == "nothing-to-train" else [good, DATA[code], DATA[code]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pipeline = make_pipeline(DataSettings(str(bloom)), manager)
    report = check(path, pipeline, max_length=100, against=(path,) if code == "leakage" else ())
    assert code in [finding.code for finding in report.findings]

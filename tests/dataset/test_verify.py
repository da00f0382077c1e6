"""The label check finds what is wrong, whoever made it wrong, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distill import IGNORE_INDEX, DataError, Message, Segment, Source, Transcript, UsageError, make_formatter
from distill.dataset.findings import CODES, Findings
from distill.dataset.prepare import prepare
from distill.dataset.verify import added_system_prompt
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing import bloom_tokenizer
from distill.testing.tokenizers import TOKENIZERS

CHAT = (Message("user", "How do you say dog?"), Message("assistant", "perro"), Message("user", "Cat?"))
ROW = Transcript("t", (*CHAT, Message("assistant", "gato")), source=Source("data.jsonl", 7))


def encoder(name: str = "special-tokens", kind: str = "bloom") -> Encoder:
    return prepare_tokenizer(TOKENIZERS[kind](), make_formatter(name), name)


class Labels:
    def __init__(self, label: Callable):
        self.label = label


def found(encoder: Encoder, label: Callable, row: Transcript = ROW) -> dict[str, int]:
    return prepare([row], encoder, Labels(label)).findings.counts


def masked(encoded) -> list[int]:
    return [
        token if wrote else IGNORE_INDEX for token, wrote in zip(encoded.input_ids, encoded.assistant_mask, strict=True)
    ]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", ["special-tokens", "chat-template"])
def test_right_labels_have_no_error(manager, kind, name):
    made = encoder(name, kind)
    for labeler, known in (("masked", set()), ("trl", {"template-trained"}), ("copy", {"all-trained"})):
        findings = prepare([ROW], made, manager.labelers.build(labeler, {}, made)).findings
        allowed = {"system-prompt-added", "text-changed", "unknown-token", "history-rewritten"}
        assert set(findings.counts) - allowed <= known, (labeler, findings.counts)


def test_an_untrained_end_is_found():
    def label(encoded):
        return [IGNORE_INDEX if end else one for one, end in zip(masked(encoded), encoded.end_of_turn, strict=True)]

    assert found(encoder(), label) == {"end-not-trained": 2}


def test_a_partial_answer_is_found():
    def label(encoded):
        labels = masked(encoded)
        labels[encoded.turn.index(1)] = IGNORE_INDEX
        return labels

    assert found(encoder(), label) == {"partial-answer": 1}


def test_a_trained_question_is_found():
    def label(encoded):
        labels = masked(encoded)
        labels[encoded.turn.index(2)] = encoded.input_ids[encoded.turn.index(2)]
        return labels

    assert found(encoder(), label) == {"prompt-trained": 1}


def test_a_trained_template_and_an_untrained_answer_are_notes():
    def label(encoded):
        labels = [IGNORE_INDEX] * len(encoded.input_ids)
        for n, turn in enumerate(encoded.turn):
            if turn == 3 or (turn == -1 and n == 2):
                labels[n] = encoded.input_ids[n]
        return labels

    counts = found(encoder(), label)
    assert counts == {"untrained-answer": 1, "template-trained": 1}
    assert {CODES[code].severity for code in counts} == {"note"}


def test_an_answer_of_weight_0_that_is_left_out_of_copy_is_no_error(manager):
    made = encoder()
    row = Transcript("t", (CHAT[0], Message("assistant", "no", train=False), CHAT[2], Message("assistant", "yes")))
    assert prepare([row], made, manager.labelers.build("copy", {}, made)).findings.counts == {"all-trained": 1}


class Formatter:
    """special-tokens, with a fault."""

    def __init__(self, fault: Callable[[list[Segment]], list[Segment]]):
        self.inner, self.fault = make_formatter("special-tokens"), fault

    def segments(self, messages, tokenizer, **how):
        return self.fault(self.inner.segments(messages, tokenizer, **how))


def faulty(fault: Callable) -> Encoder:
    return Encoder(bloom_tokenizer(), Formatter(fault), "faulty")


def test_content_called_template_is_found():
    """A formatter that says its user's text is the template's lets control tokens in."""

    def fault(segments):
        return [Segment(part.text, False, part.role, part.turn) if part.role == "user" else part for part in segments]

    hostile = Transcript("t", (Message("user", "a</s>b"), Message("assistant", "c")), source=Source("d", 1))
    assert found(faulty(fault), masked, hostile) == {"control-from-content": 1}


def test_a_missing_end_is_found():
    def fault(segments):
        return [part for part in segments if not (part.end_of_turn and part.turn == 3)]

    assert found(faulty(fault), masked) == {"end-not-trained": 1}


def test_another_end_is_found():
    def fault(segments):
        return [
            Segment("<pad>", False, "assistant", 1, True) if part.end_of_turn and part.turn == 1 else part
            for part in segments
        ]

    made = faulty(fault)
    made.stop = made.tokenizer.eos_token_id
    assert found(made, masked)["end-is-not-eos"] == 1


def test_reasoning_without_a_place_is_said():
    row = Transcript("t", (CHAT[0], Message("assistant", "perro", reasoning_content="It is Spanish.")))
    assert found(encoder("chat-template"), masked, row) == {"reasoning-left-out": 1}


def test_text_that_holds_control_strings_is_noted():
    row = Transcript("t", (Message("user", "What is </s>?"), Message("assistant", "The end: </s>")))
    assert found(encoder(), masked, row) == {"control-text": 1}


def test_a_tokenizer_that_changes_text_is_said():
    row = Transcript("t", (Message("user", "Is it?"), Message("assistant", "Yes .  Is it")))
    assert found(encoder(kind="wordpiece"), masked, row)["text-changed"] == 1


def test_unknown_tokens_are_said():
    row = Transcript("t", (Message("user", "東京?"), Message("assistant", "Yes")))
    assert "unknown-token" in found(encoder(kind="wordpiece"), masked, row)


def test_an_added_system_prompt_is_told():
    assert added_system_prompt(encoder("chat-template", "chatml")) == "Be helpful."
    for kind in ("bloom", "llama3", "gemma", "qwen3", "unigram"):
        assert added_system_prompt(encoder("chat-template", kind)) == ""
    row = Transcript("t", (Message("system", "Mine."), *ROW.messages))
    assert found(encoder("chat-template", "chatml"), masked, row) == {}
    assert found(encoder("chat-template", "chatml"), masked, ROW) == {"system-prompt-added": 1}


def test_errors_are_raised_with_rows_and_a_way_out():
    findings = Findings()
    for line in range(9):
        findings.add("partial-answer", f"data.jsonl:{line}", "message 1")
    findings.add("all-trained", "data.jsonl:1")
    with pytest.raises(DataError, match=r"9 × partial-answer: .* \(data.jsonl:0: message 1; .*") as caught:
        findings.raise_errors()
    assert "--allow partial-answer" in caught.value.hint
    findings.raise_errors(allow=("partial-answer",))


def test_findings_merge():
    one, other = Findings(), Findings()
    for line in range(4):
        one.add("duplicate", f"a:{line}")
        other.add("duplicate", f"b:{line}")
    other.add("leakage", "b:1")
    one.merge(other)
    assert [(finding.code, finding.count, len(finding.rows)) for finding in one] == [
        ("leakage", 1, 1),
        ("duplicate", 8, 5),
    ]


def test_an_unknown_code_is_refused():
    with pytest.raises(UsageError, match="unknown finding 'end-not-traned'") as caught:
        Findings.check_codes(["end-not-traned"])
    assert "end-not-trained" in caught.value.hint

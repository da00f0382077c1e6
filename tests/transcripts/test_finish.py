"""Finish reasons: an answer is whole only when its end is known to be good."""

from __future__ import annotations

import pytest

from distill import Message, Transcript
from distill.transcripts.finish import FINISH_REASONS, Finish, finish_of
from distill.transcripts.trainable import untrainable, untrainable_answer


@pytest.mark.parametrize(
    ("finish", "reasons"),
    [
        (
            Finish.WHOLE,
            ["stop", "STOP", "FinishReason.STOP", "endTurn", "eos_token", "tool-calls", None, ""],
        ),
        (Finish.CUT, ["length", "max_tokens", "MAX_TOKENS", "maxTokens", "FinishReason.MAX_TOKENS", "model_length"]),
        (Finish.REFUSED, ["content_filter", "refusal", "SAFETY", "PROHIBITED_CONTENT"]),
        (Finish.UNKNOWN, ["error", "abort", "network_error", "insufficient_system_resource", "pause_turn", "OTHER"]),
    ],
)
def test_a_finish_reason_is_known_in_any_spelling_and_else_unknown(finish, reasons):
    assert {reason: finish_of(reason) for reason in reasons} == dict.fromkeys(reasons, finish)


def test_no_reason_is_listed_under_two_meanings():
    for finish, reasons in FINISH_REASONS.items():
        assert {finish_of(reason) for reason in reasons} == {finish}


def row(**metadata) -> Transcript:
    return Transcript("t", (Message("user", "dog?"), Message("assistant", "The Spanish word for")), metadata=metadata)


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"finish_reason": "stop", "stop_reason": "###"}, None),  # vLLM's stop_reason is the stop string
        ({"stop_reason": "end_turn"}, None),
        ({"stop_reason": "pause_turn"}, "unknown-finish"),
        ({"finish_reason": "MAX_TOKENS"}, "cut-answer"),
        ({"finish_reason": "error"}, "unknown-finish"),
        ({"finish_reason": "tool_calls"}, "unknown-finish"),  # and there is no call
        ({"done_reason": "length"}, "cut-answer"),
        ({"finishReason": "SAFETY"}, "refused-answer"),
    ],
)
def test_a_row_whose_answer_is_not_known_to_be_whole_is_not_trained(metadata, code):
    found = untrainable(row(**metadata))
    assert (found and found.code) == code


def test_an_answer_without_text_or_calls_is_not_trained():
    assert untrainable_answer(Message("assistant", " \n")).code == "empty-answer"
    assert untrainable_answer(Message("assistant", refusal="No.")).code == "refused-answer"
    assert untrainable_answer(Message("assistant", tool_calls=({"id": "1"},))) is None

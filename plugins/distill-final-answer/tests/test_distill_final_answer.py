"""Which tokens count, whatever the tokenizer makes of the reasoning's markers; and the contract of labelers."""

from __future__ import annotations

import distill_final_answer
import pytest
from distill_final_answer import FinalAnswer, FinalAnswerOptions

import distill
from distill import DataError, Message
from distill.testing import TOKENIZERS, check_labeler, load_plugin


@pytest.fixture(scope="module")
def manager():
    return load_plugin(distill_final_answer)


@pytest.fixture(params=["qwen3", "bloom"])
def encoder(request, manager):
    """Qwen's tokenizer, for which `</think>` is one token, and BLOOM's, for which it is text."""
    formatter = distill.make_formatter("special-tokens", manager=manager)
    tokenizer = TOKENIZERS[request.param]()
    return distill.Encoder(tokenizer, formatter)


def trained(encoder, *said, **options):
    messages = [Message(("user", "assistant")[n % 2], text) for n, text in enumerate(said)]
    encoded = encoder.encode(messages)
    labels = FinalAnswer(FinalAnswerOptions(**options), encoder).label(encoded)
    return encoder.tokenizer.decode([label for label in labels if label != -100])


def test_it_keeps_the_contract_of_labelers():
    check_labeler(lambda encoder: FinalAnswer(FinalAnswerOptions(), encoder))


def test_it_registers_its_name(manager):
    assert manager.labelers.get("final-answer").options is FinalAnswerOptions


def test_only_the_last_answer_counts(encoder):
    eos = encoder.tokenizer.eos_token
    assert trained(encoder, "Dog?", "perro", "And cat?", "gato") == f"gato{eos}"


def test_its_reasoning_does_not(encoder):
    eos = encoder.tokenizer.eos_token
    assert trained(encoder, "2 + 2?", "<think>Two and two.</think>4") == f"4{eos}"
    assert trained(encoder, "2 + 2?", " <think>\n</think>\n\n4").lstrip() == f"4{eos}"
    assert trained(encoder, "2 + 2?", "[[two]]4", opening="[[", closing="]]") == f"4{eos}"


def test_an_answer_that_only_speaks_of_thinking_counts_whole(encoder):
    answer = "Write <think> first, </think> last."
    assert trained(encoder, "How?", answer) == answer + encoder.tokenizer.eos_token


def test_reasoning_without_an_end_is_refused(encoder):
    with pytest.raises(DataError, match="never ends its reasoning"):
        trained(encoder, "2 + 2?", "<think>Two and")


def test_the_last_message_may_be_the_users(encoder):
    assert trained(encoder, "Dog?", "perro", "And cat?") == "perro" + encoder.tokenizer.eos_token


def test_a_conversation_without_an_answer(encoder):
    assert trained(encoder, "Dog?") == ""


def test_an_empty_marker_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        FinalAnswerOptions(opening="")

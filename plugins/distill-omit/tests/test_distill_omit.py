"""Which tokens count, whatever the tokenizer cuts the phrases into; and the contract of labelers."""

from __future__ import annotations

import distill_omit
import pytest
from distill_omit import Omit, OmitOptions

import distill
from distill import Message
from distill.specs import make_options
from distill.testing import TOKENIZERS, check_labeler, load_plugin


@pytest.fixture(scope="module")
def manager():
    return load_plugin(distill_omit)


@pytest.fixture(params=["bloom", "gemma", "chatml"])
def encoder(request, manager):
    formatter = distill.make_formatter("special-tokens", manager=manager)
    return distill.Encoder(TOKENIZERS[request.param](), formatter)


def trained(encoder, *said, phrases=distill_omit.PHRASES):
    """The text of what counts, with | where something between does not."""
    messages = [Message(("user", "assistant")[n % 2], text) for n, text in enumerate(said)]
    encoded = encoder.encode(messages)
    labels = Omit(OmitOptions(tuple(phrases)), encoder).label(encoded)
    runs, before = [], None
    for n, label in enumerate(labels):
        if label != -100:
            runs += [[]] if before != n - 1 else []
            runs[-1].append(label)
            before = n
    return "|".join(encoder.tokenizer.decode(run) for run in runs)


def test_it_keeps_the_contract_of_labelers():
    check_labeler(lambda encoder: Omit(OmitOptions(), encoder))


def test_it_registers_its_name(manager):
    spec = manager.labelers.get("omit")
    assert make_options(spec, {"phrases": '["one", "two"]'}, "labeler") == OmitOptions(("one", "two"))


def test_nothing_of_a_phrase_counts_and_all_the_rest_does(encoder):
    eos = encoder.tokenizer.eos_token
    said = trained(encoder, "Who are you?", "I was made by OPENAI, as an ai language model, to help.")
    assert said == f"I was made by|, |, to help.{eos}" or said.replace(" ", "") == f"Iwasmadeby|,|,tohelp.{eos}"
    assert trained(encoder, "Who are you, ChatGPT?", "Nobody.") == f"Nobody.{eos}"


def test_every_turn_and_every_time(encoder):
    eos = encoder.tokenizer.eos_token
    said = trained(encoder, "a", "xQZx and xQZx", "b", "QZ", phrases=["qz"])
    assert "Q" not in said and "Z" not in said
    assert said.count(eos) == 2  # an answer that is nothing but a phrase still ends


def test_phrases_of_other_scripts_that_tokens_cut_through(encoder):
    said = trained(encoder, "a", "sí 犬🐕 no", phrases=["犬🐕"])
    assert "犬" not in said and "🐕" not in said and "�" not in said
    assert said.startswith("sí") and "no" in said


def test_the_longest_phrase_is_taken(encoder):
    said = trained(encoder, "a", "OpenAIs", phrases=["open", "openai"])
    assert said.split(encoder.tokenizer.eos_token)[0] in ("s", "")  # a token may hold the end of a phrase and the s


@pytest.mark.parametrize("phrases", [(), ("",), (1,)])
def test_phrases_that_are_none_are_refused(phrases):
    with pytest.raises(ValueError, match="must be a list of texts"):
        OmitOptions(phrases)


def test_on_the_command_line_they_are_a_list(manager):
    with pytest.raises(distill.UsageError, match="option phrases takes"):
        make_options(manager.labelers.get("omit"), {"phrases": "OpenAI"}, "labeler")

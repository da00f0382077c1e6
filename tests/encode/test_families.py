"""Rows of each kind in the format of each model family: trained after the very prompt of inference, or refused."""

from __future__ import annotations

import family_table
import pytest


@pytest.fixture(scope="module")
def outcomes():
    return list(family_table.outcomes())


def test_what_is_before_an_answer_in_training_is_its_prompt_at_inference(outcomes):
    compared = 0
    for outcome in outcomes:
        for before, prompt in family_table.prompts_of(outcome):
            assert before == prompt, (outcome.family, outcome.kind)
            compared += 1
    assert compared > len(outcomes)  # several answers in a conversation, and few conversations are refused


def test_nothing_is_wrong_with_the_labels(outcomes):
    for outcome in outcomes:
        assert not outcome.prepared.findings.errors(), (outcome.family, outcome.kind)
        assert outcome.prepared.rows == 1 == outcome.prepared.trained_rows + len(outcome.prepared.skipped)


def test_only_these_are_refused(outcomes):
    refused = {(outcome.family, outcome.kind) for outcome in outcomes if outcome.prepared.skipped}
    without_tools = {"Gemma 2", "Gemma 3", "Phi-3", "Phi-4", "DeepSeek R1 distills, QwQ", "DeepSeek V3",
                     "DeepSeek V3.1", "Command R", "OLMo", "Nemotron", "BLOOM, GPT-2"}  # fmt: skip
    assert refused == {("Gemma 2", "system"), *((family, "tools") for family in without_tools)}

"""Reading the teacher's answers: the probabilities of a plain forward pass, whatever the architecture and the batch."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from small_models import ARCHITECTURES, VOCABULARY, tiny

from distill import Message, make_formatter, make_plugin_manager
from distill.comparison import measure
from distill.comparison.measure import answer_questions, read_answers
from distill.comparison.questions import Tokens, read_questions, tokens_of
from distill.models import lm_head
from distill.models.generate import ChatModel
from distill.transcripts.reader import make_reader


def some_tokens(count: int = 9) -> list[Tokens]:
    """Questions and answers of many lengths; one answer is much longer than the others."""
    draw = random.Random(0)
    lengths = [(draw.randint(1, 12), draw.randint(1, 9)) for _ in range(count)] + [(3, 40)]
    return [
        Tokens(*([draw.randrange(3, VOCABULARY) for _ in range(size)] for size in pair), marker=1, text="")
        for pair in lengths
    ]


def plainly(model, tokens: Tokens) -> tuple[list[float], list[bool]]:
    """By one forward pass over all positions."""
    ids = torch.tensor([tokens.prompt + tokens.answer])
    with torch.inference_mode():
        logits = model(ids).logits[0, len(tokens.prompt) - 1 : -1]
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens.answer), reduction="none")
    return losses.tolist(), (logits.argmax(-1) == torch.tensor(tokens.answer)).tolist()


@pytest.mark.parametrize(
    "name", ["bloom", "gpt2", "llama", "qwen3", "gemma2", "cohere", "granite", "falcon", "mixtral"]
)
def test_probabilities_are_those_of_a_plain_forward_pass(name, monkeypatch):
    model = tiny(name, **ARCHITECTURES[name]).eval()
    chat = SimpleNamespace(model=model, encoder=SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0)))
    asked, told = some_tokens(), []
    wanted = [plainly(model, tokens) for tokens in asked]
    for positions in (10_000, 16, 7):  # the long answer is read in parts; a batch of answers is cut short
        monkeypatch.setattr(measure, "MAX_LOGITS", positions * VOCABULARY)
        monkeypatch.setattr(lm_head, "_ROWS", 5)
        told.clear()
        for found, (losses, hits) in zip(read_answers(chat, asked, 4, told.append), wanted, strict=True):
            assert found.losses == pytest.approx(losses, abs=1e-5)
            assert found.hits == hits
        assert sum(told) == len(asked)


def test_only_positions_of_answers_are_projected(bloom):
    model = tiny("bloom").eval()
    chat = SimpleNamespace(model=model, encoder=SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0)))
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda head, args, out: seen.append(out.shape[:-1].numel()))
    asked = some_tokens()
    read_answers(chat, asked, 4, lambda more: None)
    assert sum(seen) == sum(len(tokens.answer) for tokens in asked)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_batches_of_long_rows_are_small(monkeypatch):
    asked = some_tokens()
    monkeypatch.setattr(measure, "MAX_TOKENS", 40)
    reading = [[n for n, _, _ in batch] for batch in measure._batches(asked, 4, 10_000)]
    answering = list(measure._answer_batches(asked, 4, max_tokens=5))
    for batches in (reading, answering):
        assert sorted(n for batch in batches for n in batch) == list(range(len(asked)))
        assert max(map(len, batches)) > 1
    assert all(len(batch) == 1 or len(batch) * max(len(asked[n]) for n in batch) <= 40 for batch in reading)
    longest = [max(len(asked[n].prompt) for n in batch) + 5 for batch in answering]
    assert all(len(batch) * size <= 40 for batch, size in zip(answering, longest, strict=True))


@pytest.fixture(scope="module")
def chat(bloom) -> ChatModel:
    return ChatModel.load(str(bloom), make_formatter("chat-template"))


def test_each_answer_of_a_conversation_is_a_question(chat, chats):
    held = read_questions([chats], make_reader())
    assert [(one.conversation, one.turn) for one in held.questions] == [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (4, 0)]
    second = held.questions[4]
    assert [message.content for message in second.messages][1:] == ["pájaro", "And in French?"]
    tokens = tokens_of(second, chat.encoder)
    assert tokens.prompt == chat.encoder.prompt(second.messages)
    assert tokens.answer[-1] == chat.stop and tokens.marker == 1 and tokens.text == "oiseau"
    assert chat.encoder.tokenizer.decode(tokens.answer[:-1]) == "oiseau"


def test_answers_come_back_in_order_and_the_model_s_length_is_kept(chat, chats, monkeypatch):
    questions = read_questions([chats], make_reader()).questions
    asked = [tokens_of(question, chat.encoder) for question in questions]
    words = {"max_tokens": 8, "batch_size": 2, "done": lambda more: None}
    answers, seconds = answer_questions(chat, questions, asked, **words)
    assert answers == [chat.generate([question.messages], max_tokens=8)[0] for question in questions] and seconds > 0
    longest = max(len(tokens.prompt) for tokens in asked)
    monkeypatch.setattr(chat, "max_length", longest + 2)
    cut, _ = answer_questions(chat, questions, asked, **words)
    room = [longest + 2 - len(tokens.prompt) for tokens in asked]
    assert [one.completion_tokens for one in cut] == [
        min(whole.completion_tokens, most) for whole, most in zip(answers, room, strict=True)
    ]


def test_tool_calls_and_thoughts_are_compared_as_the_format_writes_them(bloom):
    manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    chat = ChatModel.load(str(bloom), make_formatter("chat-template", manager=manager))
    from distill.comparison.questions import Question, encode_answer
    from distill.types import Transcript

    asked = (Message("user", "Hi"),)
    question = Question(Transcript("x", asked), 0, 0, asked, Message("assistant", "plain"))
    assert tokens_of(question, chat.encoder).text == "plain"
    thought = encode_answer(question, Message("assistant", "plain", reasoning_content="hm"), chat.encoder)
    assert "plain" in thought.text

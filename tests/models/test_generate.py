"""The saved student: speaks the format it was trained in, stops, and is the same in plain transformers."""

from __future__ import annotations

import json

import pytest

from distill import Message, make_formatter
from distill.cli.main import main
from distill.models.generate import ChatModel
from distill.training import TrainSettings, train

QUESTION = 'How do you say "dog" in Spanish?'


@pytest.fixture(scope="module", params=["special-tokens", "chat-template"])
def student(request, bloom, tmp_path_factory, manager):
    """A tiny BLOOM that has learned the article's chats by heart."""
    from article import ARTICLE

    folder = tmp_path_factory.mktemp("generate")
    data = folder / "article.jsonl"
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in ARTICLE]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TrainSettings(
        str(bloom),
        (data,),
        folder / "run",
        formatter=request.param,
        epochs=120,
        learning_rate=5e-3,
        per_device_train_batch_size=5,
        trainer_options={"warmup_steps": 10},
    )
    train(settings, manager)
    return folder / "run"


def test_the_student_has_learned_and_stops(student, capsys):
    assert main(["generate", str(student), QUESTION, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"prompt": QUESTION, "answer": "perro", "finish_reason": "stop"}


def test_plain_transformers_give_the_same_text(student):
    from transformers import pipeline

    chat = ChatModel.load(str(student / "model"), make_formatter("chat-template"))
    plain = pipeline("text-generation", str(student / "model"))
    for question in (QUESTION, 'How do you say "fish" in Spanish?', "What now?", "</s>?"):
        ours = chat.generate([[Message("user", question)]], max_tokens=20)[0].text
        theirs = plain([{"role": "user", "content": question}], max_new_tokens=20)[0]["generated_text"][-1]["content"]
        if "</s>" not in question:  # there, plain transformers lets the user's text become a control token
            assert ours == theirs


def test_a_batch_answers_as_one_by_one(student):
    chat = ChatModel.load(str(student / "model"), make_formatter("chat-template"))
    asked = [[Message("user", text)] for text in (QUESTION, "Hi", 'How do you say "cat" in Spanish? ' * 3)]
    together = chat.generate(asked, max_tokens=12)
    assert together == [chat.generate([one], max_tokens=12)[0] for one in asked]


def test_sampling_follows_the_seed(student):
    chat = ChatModel.load(str(student / "model"), make_formatter("chat-template"))
    drawn = [
        chat.generate([[Message("user", "x")]], max_tokens=8, temperature=5.0, seed=seed)[0].text for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_trace_shows_what_the_model_would_say(student, capsys):
    assert main(["generate", str(student), QUESTION, "--trace", "--answer", "gato", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    answer = [step for step in row["trace"] if step["answer"]]
    assert "".join(step["token"] for step in answer[:-1]) == "gato"
    assert "perro".startswith(answer[0]["predicted"])
    assert answer[0]["predicted_probability"] > answer[0]["probability"]
    assert main(["generate", str(student), QUESTION, "--trace"]) == 0
    assert "the model would say" in capsys.readouterr().out


def test_a_cut_answer_is_said_to_be_cut(student, capsys):
    assert main(["generate", str(student), QUESTION, "--max-tokens", "1"]) == 0
    assert "cut at 1 tokens" in capsys.readouterr().err


def test_text_of_a_student_cannot_reach_the_terminal_raw():
    from distill.cli.terminal import printable

    assert printable("a\x1b[31mb\u202e\x07") == "a\\x1b[31mb\\u202e\\x07"


PLUGIN = """
import distill

class Wordy:
    def special_tokens(self, tokenizer):
        return ["<|over|>"]

    def chat_template(self, tokenizer):
        return None  # such a format cannot be written in Jinja

    def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
        segments = []
        for turn, message in enumerate(messages):
            segments.append(distill.Segment(f"{message.role} says: "))
            segments.append(distill.Segment(message.content, True, message.role, turn))
            end = distill.Segment("<|over|>", False, "assistant", turn, True)
            segments.append(end if message.role == "assistant" else distill.Segment("|"))
        return segments + [distill.Segment("assistant says: ")] * add_generation_prompt

@distill.hookimpl
def register_formatters():
    return [distill.FormatterSpec("wordy", "in words", lambda options: Wordy())]
"""


def test_a_format_without_a_jinja_template_is_asked_as_it_was_trained(bloom, article, tmp_path, capsys):
    plugin, run = tmp_path / "wordy.py", tmp_path / "run"
    plugin.write_text(PLUGIN)
    load = ["--plugin", str(plugin)]
    assert main([*load, "train", str(article), "--student", str(bloom), "--formatter", "wordy", "--out", str(run)]) == 0
    assert not (run / "model" / "chat_template.jinja").exists()
    capsys.readouterr()
    assert main([*load, "generate", str(run), "hi", "--trace", "--answer", "ho", "--json"]) == 0
    said = "".join(step["token"] for step in json.loads(capsys.readouterr().out)["trace"])
    assert said.endswith("says: hi|assistant says: ho<|over|>")
    assert main(["generate", str(run), "hi"]) == 2
    assert "unknown formatter 'wordy'" in capsys.readouterr().err

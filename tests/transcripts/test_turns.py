"""Which answers are trained: `--turns last`, `weight: 0`, `train: false`; for every labeler, as its collator has it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from distill import IGNORE_INDEX, Message, Transcript, make_formatter
from distill.cli.main import build_cli
from distill.dataset.preview import show
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing.tokenizers import TOKENIZERS
from distill.transcripts.turns import choose_turns

LABELERS = ("copy", "masked", "trl")


def talk(*trains: bool) -> Transcript:
    messages = []
    for n, train in enumerate(trains):
        messages += [Message("user", f"q{n}"), Message("assistant", f"a{n}", train=train)]
    return Transcript("t", tuple(messages))


def test_last_leaves_the_last_answer_alone():
    def marks(transcript: Transcript) -> list[bool]:
        return [message.train for message in transcript.messages if message.role == "assistant"]

    chats = [talk(True, True, True), talk(True), talk(True, False), Transcript("u", (Message("user", "q"),))]
    assert [marks(one) for one in choose_turns(chats, "last")] == [[False, False, True], [True], [False, False], []]
    assert list(choose_turns(chats, "all")) == chats


@pytest.mark.parametrize("labeler", LABELERS)
@pytest.mark.parametrize(
    ("kind", "name"), [("chatml", "chat-template"), ("qwen3", "chat-template"), ("bloom", "special-tokens")]
)
@pytest.mark.parametrize("turns", ["all", "last"])
def test_only_the_chosen_answers_reach_the_loss(manager, kind, name, labeler, turns):
    encoder = prepare_tokenizer(TOKENIZERS[kind](), make_formatter(name, {}, manager), name)
    labels = manager.labelers.build(labeler, {}, encoder)
    rows = show(choose_turns([talk(True, False, True)], turns), encoder, labels, labeler)
    text = "".join(encoder.tokenizer.decode([t for t in row.labels if t != IGNORE_INDEX]) for row in rows)
    assert [answer for answer in ("a0", "a1", "a2") if answer in text] == (["a0", "a2"] if turns == "all" else ["a2"])
    if labeler != "copy":
        assert "q" not in text


@pytest.fixture
def data(tmp_path):
    turns = [("user", "q0"), ("assistant", "a0"), ("user", "q1"), ("assistant", "a1")]
    rows = [
        [{"role": role, "content": text} for role, text in turns],
        [{"role": role, "content": text, **({"weight": 0} if text == "a1" else {})} for role, text in turns],
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    return path


def test_train_and_show_take_turns(manager, bloom, data):
    cli = build_cli(manager)
    words = [str(data), "--student", str(bloom), "--turns", "last", "--json"]
    shown = CliRunner().invoke(cli, ["show", *words], catch_exceptions=False)
    first, second = map(json.loads, shown.stdout.splitlines())
    trained = "".join(
        token for token, label in zip(first["tokens"], first["labels"], strict=True) if label != IGNORE_INDEX
    )
    assert trained == "a1<|im_end|>"
    assert second["reason"] == "every assistant message has weight 0"
    done = CliRunner().invoke(cli, ["train", *words, "--out", "none", "--dry-run"], catch_exceptions=False)
    report = json.loads(done.stdout)
    assert (report["rows"], report["trained_rows"], report["trained_tokens"]) == (2, 1, first["trained"])

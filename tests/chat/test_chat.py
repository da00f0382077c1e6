"""`distill chat`: what is typed, what is shown, what is saved."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import pytest
from run_folders import write_run

from distill import Message, make_formatter
from distill.chat.session import Session
from distill.chat.settings import ChatSettings
from distill.cli.main import main
from distill.errors import DistillError, UsageError
from distill.models.generate import ChatModel

ANSWER = "Zé🚀\x1b[31m!"  # characters of several tokens each, and an escape sequence


def parrot(folder: Path, answer: str, stops: bool = True) -> Path:
    """A student that always says the same: each token, by a table, is followed by the next; no two are alike."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from distill.models.special_tokens import set_special_ids
    from distill.testing.tokenizers import TOKENIZERS

    tokenizer = TOKENIZERS["chatml"]()
    chain = [tokenizer("\n")["input_ids"][-1], *tokenizer(answer)["input_ids"]]
    chain += [tokenizer.eos_token_id if stops else chain[1]]
    assert len(set(chain)) == len(chain) - (not stops)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=640,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=200 if stops else 100_000,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.model.norm.weight.fill_(1)
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), 640))
        for before, after in itertools.pairwise(chain):
            model.lm_head.weight[after, before] = 1
    set_special_ids(model, tokenizer, tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return parrot(tmp_path_factory.mktemp("chat") / "student", ANSWER)


@pytest.fixture(scope="module")
def model(student) -> ChatModel:
    return ChatModel.load(str(student), make_formatter("chat-template"))


@pytest.fixture
def session(model, tmp_path) -> Session:
    return Session(model, ChatSettings(model="student", save=tmp_path / "chat.jsonl"))


def typed(session: Session, *lines: str) -> list[tuple[str, str]]:
    """What each line gave: the answer, and the note or error."""
    said = []
    for line in lines:
        pieces: list[str] = []
        try:
            note = session.handle(line, pieces.append)
        except DistillError as error:
            note = f"Error: {error.message} ({error.hint})"
        said.append(("".join(pieces), note))
    return said


def test_pieces_are_whole_characters_and_never_the_marker(model):
    pieces: list[str] = []
    made = model.stream([Message("user", "hi")], pieces.append)
    assert "".join(pieces) == made.text == ANSWER
    assert pieces[:3] == ["Z", "é", "🚀"] and made.finish_reason == "stop"
    assert made == model.generate([[Message("user", "hi")]])[0]
    cut: list[str] = []
    half = model.stream([Message("user", "hi")], cut.append, max_tokens=2)
    assert "".join(cut) == half.text == "Z\ufffd" and half.finish_reason == "length"


def test_the_commands(session):
    assert typed(session, "hi", "") == [(ANSWER, ""), ("", "")]
    ((again, note),) = typed(session, "/retry")
    assert again == ANSWER and "temperature 0.8: at 0 the answer would be the same" in note
    assert len(session.messages) == 2
    typed(session, "//half", "/undo")
    assert [message.content for message in session.messages] == ["hi", ANSWER]
    assert typed(session, "/undo") == [("", "taken back: hi")] and session.messages == []
    assert "without a system" in typed(session, "/system")[0][1]
    typed(session, "/system Be brief.", "//x")
    assert [message.content for message in session.messages] == ["Be brief.", "/x", ANSWER]
    assert typed(session, "/new") == [("", "a new conversation")]
    assert [message.content for message in session.messages] == ["Be brief."]
    for command in ("/retry", "/undo", "/teacher", "/save"):
        assert typed(session, command)[0][1].startswith("Error: ")
    assert "did you mean '/undo'" in typed(session, "/udno")[0][1]
    assert "/teacher" in typed(session, "/help")[0][1]
    typed(session, "/quit")
    assert session.left


def test_a_full_conversation_is_said_to_be_full(session):
    typed(session, "hi")
    before = list(session.messages)
    ((answer, note),) = typed(session, "word " * 300)
    assert not answer and "tokens, and the model takes 200, answer included (/undo, or /new)" in note
    assert session.messages == before
    short = Session(session.chat, ChatSettings(model="student"))
    rooms = []
    for length in range(1, 200):
        short.messages = [Message("user", "x" * length)]
        try:
            rooms.append(short._room())
        except DistillError:
            break
    short.messages = []
    ((answer, note),) = typed(short, "x" * len(rooms))
    assert len(answer) < len(ANSWER) and "the conversation is full" in note


def test_cut_answers_are_saved_but_not_trained(session, model, tmp_path):
    small = Session(model, ChatSettings(model="student", max_tokens=1, save=tmp_path / "chat.jsonl"))
    assert typed(small, "hi")[0] == ("Z", "the answer was cut at 1 tokens (--max-tokens)")
    with pytest.raises(UsageError, match="every answer was cut"):
        small.row()
    small.messages += [Message("user", "b"), Message("assistant", "whole")]
    assert "1 cut answers in it are not trained" in typed(small, "/save")[0][1]
    row = json.loads((tmp_path / "chat.jsonl").read_text())
    assert row["messages"][1] == {"role": "assistant", "content": "Z", "weight": 0}
    assert "saved already" in typed(small, "/save")[0][1]
    assert len((tmp_path / "chat.jsonl").read_text().splitlines()) == 1


def test_an_answer_that_is_stopped(session, model, monkeypatch):
    said = iter(["ab", "", ""])

    def stop(messages, show, **how):
        if piece := next(said):
            show(piece)
        raise KeyboardInterrupt

    monkeypatch.setattr(
        session,
        "chat",
        type("Stopped", (), {"stream": staticmethod(stop), "encoder": model.encoder, "room": model.room}),
    )
    session.chat.encoder = model.encoder
    with pytest.raises(KeyboardInterrupt):
        session.handle("hi", lambda piece: None)
    assert session.messages[-1] == Message("assistant", "ab", train=False)
    before = list(session.messages)
    for text in ("more", "/retry"):  # stopped before anything came: as if it had not been asked
        with pytest.raises(KeyboardInterrupt):
            session.handle(text, lambda piece: None)
        assert session.messages == before


TEACHER = """
import distill

class Wise:
    closed = False
    def ask(self, request):
        last = request.messages[-1].content
        if last == "fail":
            raise distill.TeacherError("no answer today")
        return distill.Answer(distill.Message("assistant", f"wise: {last}"))
    async def close(self):
        print("closed")

@distill.hookimpl
def register_teachers():
    return [distill.TeacherSpec("wise", "knows", lambda options, model: Wise())]
"""


def piped(monkeypatch, capsys, words: list[str], text: str) -> tuple[int, str, str]:
    """Run the command with a pipe for standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="ascii"))
    code = main(words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_through_a_pipe_to_rows_that_train(student, tmp_path, monkeypatch, capsys):
    plugin, rows = tmp_path / "wise.py", tmp_path / "more.jsonl"
    plugin.write_text(TEACHER)
    words = ["--plugin", str(plugin), "chat", str(student), "--teacher", "wise", "--save", str(rows)]
    text = 'é\\\nb\n/save\n"""\nc\n\nd\n"""\n/teacher\n/save'
    code, out, err = piped(monkeypatch, capsys, words, text)
    shown = "Zé🚀\\x1b[31m!\n"
    assert code == 0 and out == f"{shown}{shown}wise: c\n\nd\nclosed\n"
    assert f"saved to {rows}" in err and "wise's answer is in the conversation now" in err
    first, second = (json.loads(line) for line in rows.read_text().splitlines())
    assert [message["content"] for message in first["messages"]] == ["é\nb", ANSWER]
    assert [message["content"] for message in second["messages"][2:]] == ["c\n\nd", "wise: c\n\nd"]
    assert second["metadata"]["teacher"] == "wise"
    rows.write_text(rows.read_text().splitlines()[1].replace(json.dumps(ANSWER)[1:-1], "fine") + "\n")
    assert main(["check", str(rows), "--student", str(student), "--allow", "system-prompt-added"]) == 0
    code, out, err = piped(monkeypatch, capsys, words, "fail\n/teacher\n/nothing\n")
    assert code == 1 and "Error: no answer today" in err and "unknown command '/nothing'" in err


def test_a_run_tells_its_teacher(student, tmp_path, monkeypatch, capsys):
    data, run = tmp_path / "data.jsonl", tmp_path / "run"
    rows = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    data.write_text(json.dumps({**rows, "metadata": {"teacher": "openai:gpt-5-mini"}}) + "\n")
    write_run(run, data=(data,))
    (run / "model").symlink_to(student)
    code, _, err = piped(monkeypatch, capsys, ["chat", str(run)], "a\n/teacher\n")
    assert code == 1 and "start with --teacher openai:gpt-5-mini, whose answers it was trained on" in err
    assert main(["chat", str(run), "--base-url", "http://localhost"]) == 2


class Terminal:
    """A process at a terminal of its own."""

    def __init__(self, words: list[str]):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            env = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
            env.pop("NO_COLOR", None)
            os.execve(sys.executable, [sys.executable, "-m", "distill", *words], env)
        self.seen = ""

    def until(self, pattern: str) -> None:
        """Read on until the pattern has come; what came before it is forgotten."""
        deadline = time.monotonic() + 240
        while not (found := re.search(pattern, self.seen, re.S)):
            assert time.monotonic() < deadline and self.read(), f"{pattern!r} never came: {self.seen[-2000:]!r}"
        self.seen = self.seen[found.end() :]

    def read(self) -> bool:
        if not select.select([self.fd], [], [], 240)[0]:
            return False
        try:
            some = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += some.decode("utf-8", "replace")
        return bool(some)

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C at a prompt, as often as it takes to be noticed.

        Python's `readline` shows its prompt before it waits for a key. It does not notice a signal that comes between
        the two before the next one, which a busy machine makes likely.
        """
        self.send("\x03")
        while not select.select([self.fd], [], [], 5)[0]:
            self.send("\x03")

    def leave(self) -> int:
        while self.read():
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_at_a_terminal(tmp_path):
    endless = parrot(tmp_path / "endless", "x\x1b[3y", stops=False)
    terminal = Terminal(["chat", str(endless), "--max-tokens", "90000"])
    terminal.until("\x1b\\[2m/help lists the commands; Ctrl-D leaves\x1b\\[0m")  # dim
    terminal.until("> ")
    terminal.send("hi\r")
    terminal.until(r"x\\x1b\[3yx\\x1b\[3y")  # neutralised
    terminal.send("\x03")
    terminal.until("stopped: /retry, /undo or continue")
    terminal.until("> ")
    terminal.send("/undo\r")
    terminal.until("taken back: hi")
    terminal.until("> ")
    terminal.interrupt()
    terminal.until("Ctrl-C again, or Ctrl-D, leaves")
    terminal.until("> ")
    terminal.send("\x04")
    assert terminal.leave() == 0

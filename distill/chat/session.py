"""A conversation with a student, without a terminal: messages and commands in, pieces of answers and notes out."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.chat.settings import ChatSettings
from distill.collection.adapters import Asker, make_askers
from distill.collection.teachers import NamedTeacher
from distill.errors import DataError, DistillError, UsageError, unknown_name
from distill.files.atomic import utc_now
from distill.files.jsonl import Appender
from distill.files.text import clean_surrogates
from distill.transcripts.checksum import sealed
from distill.transcripts.finish import Finish, finish_of
from distill.transcripts.rows import message_to_dict, transcript_to_dict
from distill.types import Message, Params, Request, Transcript

if TYPE_CHECKING:
    from distill.models.generate import ChatModel

Show = Callable[[str], None]
"""Called with each new piece of an answer, as the model wrote it: untrusted text."""

COMMANDS: Mapping[str, str] = {
    "/retry": "let the student answer again, sampled with another seed",
    "/undo": "remove the last question and its answer",
    "/new": "start a new conversation",
    "/system TEXT": "start a new conversation with this system message; without TEXT: with none",
    "/teacher": "let the teacher answer the last question instead (needs --teacher; may cost money)",
    "/save [FILE]": "append the conversation to a file of transcripts, as a row to train on",
    "/help": "these commands",
    "/quit": "leave; so does Ctrl-D",
}

RETRY_TEMPERATURE = 0.8


class TeacherLine:
    """Asks a teacher one question at a time; it is built at the first one.

    Args:
        named: the teacher.
        params: how it answers.
    """

    def __init__(self, named: NamedTeacher, params: Params):
        self.name = named.name
        self._named = named
        self._params = params
        self._open: _OpenLine | None = None

    def ask(self, messages: Sequence[Message]) -> tuple[Message, bool]:
        """Ask once.

        Returns:
            The answer, and whether it is whole.

        Raises:
            DistillError: no answer.
        """
        if self._open is None:
            teacher = self._named.build()
            asker = make_askers(teacher, self._named.owner, 1)[0][0]
            self._open = _OpenLine(teacher, asker, asyncio.new_event_loop())
        loop, asker = self._open.loop, self._open.asker
        asked = loop.create_task(asker.ask([Request(tuple(messages), (), self._params)]))
        try:
            (answer,) = loop.run_until_complete(asked)
        except KeyboardInterrupt:
            asked.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(asked)
            raise
        if isinstance(answer, DistillError):
            raise answer
        if not (answer.message.content or "").strip():
            raise DistillError("the teacher's answer holds no text")
        return answer.message, finish_of(answer.finish_reason) is Finish.WHOLE

    def close(self) -> None:
        """Release the teacher."""
        if self._open is None:
            return
        loop = self._open.loop
        closing = getattr(self._open.teacher, "close", lambda: None)()
        if inspect.isawaitable(closing):
            loop.run_until_complete(closing)
        self._open.asker.close()
        loop.close()


@dataclass(frozen=True, slots=True)
class _OpenLine:
    """A teacher that was built, its adapter, and the loop it is asked in."""

    teacher: Any
    asker: Asker
    loop: asyncio.AbstractEventLoop


class Session:
    """One person's conversations with a student.

    Args:
        chat: the student.
        settings: how it is asked.
        teacher: who `/teacher` asks.
        suggestion: the hint where there is none, e.g. who taught the student.

    Attributes:
        messages: the present conversation.
        left: whether the user has typed `/quit`.
    """

    def __init__(
        self, chat: ChatModel, settings: ChatSettings, teacher: TeacherLine | None = None, suggestion: str = ""
    ):
        self.chat = chat
        self.settings = settings
        self.teacher = teacher
        self.left = False
        self._suggestion = suggestion
        self._system = settings.system
        self._tries = 0
        self._saved: set[str] = set()
        self.messages: list[Message] = []
        self._begin()

    def handle(self, text: str, show: Show) -> str:
        """Do what was typed: a command, or a message to the student. `//…` is a message that begins with a slash.

        Args:
            text: one message or command.
            show: gets the answer, piece by piece.

        Returns:
            A note for the user; may be empty.

        Raises:
            DistillError: it cannot be done; the conversation is as it was.
            KeyboardInterrupt: the answer was stopped; what came of it, if anything, is kept, and is not trained.
        """
        text = clean_surrogates(text)
        if not text.strip():
            return ""
        if not text.startswith("/") or text.startswith("//"):
            return self._ask(text.removeprefix("/") if text.startswith("//") else text, show)
        word, _, rest = text.strip().partition(" ")
        doing = {
            "/retry": lambda: self._retry(show),
            "/undo": self._undo,
            "/new": self._new,
            "/system": lambda: self._set_system(rest.strip()),
            "/teacher": lambda: self._ask_teacher(show),
            "/save": lambda: self._save(rest.strip()),
            "/help": lambda: "\n".join(f"{name:<14}{what}" for name, what in COMMANDS.items()),
            "/quit": self._quit,
        }
        if word not in doing:
            raise unknown_name("command", word, list(doing), "a message that begins with a slash is written with two")
        return doing[word]()

    def _begin(self) -> None:
        self.messages = [Message("system", self._system)] if self._system else []
        self._tries = 0

    def _ask(self, text: str, show: Show) -> str:
        before = list(self.messages)
        self.messages.append(Message("user", text))
        self._tries = 0
        try:
            return self._answer(show, self.settings.temperature)
        except (DistillError, KeyboardInterrupt):
            if self.messages[-1].role != "assistant":
                self.messages = before
            raise

    def _answer(self, show: Show, temperature: float) -> str:
        """Let the student answer; the answer joins the conversation."""
        room = self._room()
        pieces: list[str] = []

        def take(piece: str) -> None:
            pieces.append(piece)
            show(piece)

        seed, limit = self.settings.seed + self._tries, min(self.settings.max_tokens, room)
        try:
            made = self.chat.stream(self.messages, take, max_tokens=limit, temperature=temperature, seed=seed)
        except KeyboardInterrupt:
            if pieces:
                self.messages.append(Message("assistant", "".join(pieces), train=False))
            raise
        cut = made.finish_reason == "length"
        self.messages.append(Message("assistant", made.text, made.reasoning, train=not cut))
        if cut and limit < self.settings.max_tokens:
            return f"the conversation is full at {limit} tokens of this answer: /undo or /new"
        return f"the answer was cut at {limit} tokens (--max-tokens)" if cut else ""

    def _room(self) -> int:
        """How many tokens the model has left for an answer."""
        try:
            room = self.chat.room(len(self.chat.encoder.prompt(self.messages)), "the conversation")
        except DataError as error:
            raise DistillError(error.message, "/undo, or /new") from None
        return self.settings.max_tokens if room is None else room

    def _retry(self, show: Show) -> str:
        last = self._last_answer()
        temperature = self.settings.temperature or RETRY_TEMPERATURE
        self.messages.pop()
        self._tries += 1
        try:
            said = self._answer(show, temperature)
        except (DistillError, KeyboardInterrupt):
            if self.messages[-1].role != "assistant":
                self.messages.append(last)
            raise
        if not self.settings.temperature:
            at = f"sampled at temperature {temperature}: at 0 the answer would be the same"
            return f"{said}; {at}" if said else at
        return said

    def _last_answer(self) -> Message:
        if not self.messages or self.messages[-1].role != "assistant":
            raise UsageError("there is no answer yet", "ask something first")
        return self.messages[-1]

    def _undo(self) -> str:
        self._last_answer()
        asked = self.messages[-2].content or ""
        del self.messages[-2:]
        return f"taken back: {asked if len(asked) <= 60 else asked[:59] + '…'}"

    def _new(self) -> str:
        self._begin()
        return "a new conversation"

    def _set_system(self, text: str) -> str:
        self._system = text or None
        self._begin()
        return "a new conversation, " + ("with this system message" if text else "without a system message")

    def _ask_teacher(self, show: Show) -> str:
        if self.teacher is None:
            raise UsageError("no teacher was named", self._suggestion or "start with --teacher NAME[:MODEL]")
        self._last_answer()
        answer, whole = self.teacher.ask(self.messages[:-1])
        show(answer.content or "")
        self.messages[-1] = replace(answer, train=whole)
        cut = "" if whole else "; it was cut, and is not trained"
        return f"{self.teacher.name}'s answer is in the conversation now; /retry asks the student again{cut}"

    def _save(self, file: str) -> str:
        self._last_answer()
        path = Path(file).expanduser() if file else self.settings.save
        row = self.row()
        if row["id"] in self._saved:
            return f"this conversation is saved already; nothing was added to {path}"
        with Appender(path) as out:
            out.append_line(sealed(row))
        self._saved.add(row["id"])
        cut = sum(message.role == "assistant" and not message.train for message in self.messages)
        return f"saved to {path}" + (f"; {cut} cut answers in it are not trained (weight 0)" if cut else "")

    def row(self) -> dict[str, Any]:
        """The present conversation as a canonical transcript row.

        Raises:
            UsageError: no answer in it is whole.
        """
        if not any(message.role == "assistant" and message.train for message in self.messages):
            raise UsageError("every answer was cut, there is nothing to train on", "/retry, or /teacher")
        said = [message_to_dict(message) for message in self.messages]
        name = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
        metadata: dict[str, Any] = {"by": "distill chat", "student": self.settings.model, "created": utc_now()}
        if self.teacher is not None:
            metadata["teacher"] = self.teacher.name
        return transcript_to_dict(Transcript(name, self.messages, metadata=metadata))

    def _quit(self) -> str:
        self.left = True
        return ""

"""`distill chat`: talk to a student at the terminal, or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from distill import api
from distill.chat.settings import ChatSettings
from distill.cli.completion import runs_and_models
from distill.cli.options import given, settings_options
from distill.cli.terminal import printable
from distill.errors import DistillError
from distill.plugins import PluginManager

if TYPE_CHECKING:
    from distill.chat.session import Session

_QUOTES = '"""'


@click.command("chat", short_help="Talk to a student.")
@click.argument("model", metavar="RUN|MODEL", shell_complete=runs_and_models)
@settings_options(ChatSettings)
@click.pass_obj
def command(manager: PluginManager, /, model: str, **words: Any) -> int:
    """Talk to a trained student, or to any local model, in the chat format it was trained in.

    Answers appear while they are written. A line that ends in a backslash continues on the next one; a message of many
    lines goes between two lines of three double quotes. /help lists the commands: /retry, /undo, /new, /system,
    /teacher, /save. Ctrl-C stops an answer; once more, or Ctrl-D, leaves.

    Answers go to standard output, all else to standard error. Messages may come through a pipe; the exit code is then
    1 when one of them failed.

    \b
        distill chat run
        distill chat run --teacher openai:gpt-5-mini --save more.jsonl
        printf 'How do you say "dog" in Spanish?\\n/save\\n' | distill chat run
    """
    with api.open_chat(model, manager=manager, **given(words)) as session:
        terminal = _Terminal(session)
        terminal.talk()
    return 1 if terminal.failed and not terminal.live else 0


class _Terminal:
    """Reads what is typed, and shows what comes: others' text neutralised, character by character."""

    def __init__(self, session: Session):
        self.session = session
        self.live = sys.stdin.isatty()
        self.failed = False
        self._written = False

    def talk(self) -> None:
        """Go on until the end of the input, `/quit`, or Ctrl-C twice."""
        if self.live:
            _line_editing()
            self._note("/help lists the commands; Ctrl-D leaves")
        stopped = False
        while not self.session.left:
            try:
                text = _message(self._line)
            except EOFError:
                self._end_prompt()
                return
            except KeyboardInterrupt:
                self._end_prompt()
                if not self.live:
                    raise
                if stopped:
                    return
                self._note("Ctrl-C again, or Ctrl-D, leaves")
                stopped = True
                continue
            stopped = self._do(text)

    def _do(self, text: str) -> bool:
        """Do one thing; whether Ctrl-C stopped it."""
        self._written = False
        try:
            said = self.session.handle(text, self._show)
        except DistillError as error:
            self.failed = True
            self._end_answer()
            self._note(f"Error: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            return False
        except KeyboardInterrupt:
            self._end_answer()
            if not self.live:
                raise
            self._note("stopped: /retry, /undo or continue; Ctrl-C again, or Ctrl-D, leaves")
            return True
        self._end_answer()
        if said:
            self._note(said)
        return False

    def _show(self, piece: str) -> None:
        # Each character is judged alone, so that an escape sequence is harmless however it is cut into pieces.
        self._written = True
        click.echo(printable(piece, newlines=True), nl=False)
        sys.stdout.flush()

    def _end_answer(self) -> None:
        if self._written:
            click.echo()

    def _end_prompt(self) -> None:
        if self.live:
            click.echo(err=True)

    def _note(self, text: str) -> None:
        click.secho(printable(text, newlines=True), dim=True, err=True)

    def _line(self, prompt: str) -> str:
        """One line, without its end; raises EOFError after the last one."""
        if self.live and sys.stdout.isatty():
            return input(prompt)  # with history and line editing
        if self.live:
            click.echo(prompt, nl=False, err=True)
        line = sys.stdin.buffer.readline() if hasattr(sys.stdin, "buffer") else sys.stdin.readline().encode()
        if not line:
            raise EOFError
        return line.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")


def _message(read: Callable[[str], str]) -> str:
    """Read one message: a line, lines that end in backslashes, or all between two lines of three quotes."""
    line = read("> ")
    lines: list[str] = []
    try:
        if line.strip() == _QUOTES:
            while (line := read("… ")).strip() != _QUOTES:
                lines.append(line)
            return "\n".join(lines)
        while line.endswith("\\"):
            lines.append(line[:-1])
            line = read("… ")
    except EOFError:  # the end of a pipe ends the message too
        return "\n".join(lines)
    return "\n".join([*lines, line])


def _line_editing() -> None:
    """Arrow keys and the history of this session; it is written nowhere."""
    with suppress(ImportError):
        import readline  # noqa: F401 - importing it is what changes `input`

"""Runs the commands and the Python of README.md and docs/, and checks the output that the pages show.

A comment before a block decides what is done with it:

    <!-- tested -->     its commands succeed; a block of Python runs, in one namespace per page
    <!-- fails -->      its last command fails
    <!-- said -->       every line of this text was printed by the blocks before it, in this order
    <!-- set-up …-->    commands that are run, and not shown
    <!-- not run: … --> the reason why the tests cannot run it

`distill` runs in this process, with a tiny student that is called `smollm2`, and asks a server on this machine.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distill.cli.main import main
from distill.testing.server import Asked, Reply, completion

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]

SERVER = "http://localhost:8000/v1"
_BLOCK = re.compile(
    r"<!-- (?P<mark>tested|fails|said)[^>]*-->\n```(?P<language>\w+)\n(?P<text>.*?)```"
    r"|<!-- set-up\n(?P<setup>.*?)-->",
    re.S,
)
_HERE = re.compile(r"cat > (\S+) <<'END'\n(.*?)^END\n", re.S | re.M)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A block of a page: `mark` decides what is done with its text."""

    mark: str
    text: str
    language: str = "sh"


def read(page: str) -> str:
    """The page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """What is run, and what it must have printed."""
    return [
        Block(found["mark"] or "tested", found["text"] or found["setup"], found["language"] or "sh")
        for found in _BLOCK.finditer(read(page))
    ]


def fences(page: str, language: str) -> list[str]:
    """All fenced blocks of a language, run or not."""
    return [text for name, text in _FENCE.findall(read(page)) if name == language]


def unexplained(page: str) -> list[str]:
    """The blocks of shell and Python that are neither run nor preceded by the reason why not; generated ones apart."""
    text = re.sub(r"<!-- \[\[\[cog.*?<!-- \[\[\[end\]\]\] -->", "", read(page), flags=re.S)
    found = re.finditer(r"(?P<before>[^\n]*)\n```(?:sh|console|python)\n(?P<first>[^\n]*)", text)
    marks = ("<!-- tested", "<!-- fails", "<!-- not run: ")
    return [one["first"] for one in found if not one["before"].startswith(marks)]


def distill_lines(script: str) -> Iterator[list[str]]:
    """The words of every `distill` command in a script, whatever launches it."""
    for line in _HERE.sub("", script).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        at = [n for n, word in enumerate(words) if word == "distill" and (n == 0 or words[n - 1] in ("-m", "|"))]
        if at:
            words = words[at[0] + 1 :]
            while words and words[0] in ("--plugin", "--debug"):
                words = words[2 if words[0] == "--plugin" else 1 :]
            yield words


def answer(asked: Asked) -> Reply:
    """What the pages' server says."""
    if not asked.body:
        return stored(asked.path)
    key, model = asked.headers.get("authorization", ""), asked.body.get("model")
    if "wrong" in key:
        return Reply({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, status=401)
    if "spent" in key:
        error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
        return Reply({"error": error}, status=429)
    if model == "gpt-5-mimi":
        return Reply({"error": {"message": "The model `gpt-5-mimi` does not exist"}}, status=404)
    words = {"dog": "Perro.", "cat": "Gato.", "bird": "Pájaro.", "French": "Oiseau."}
    text = next((answer for word, answer in words.items() if word in asked.text), "I do not know.")
    limit = asked.body.get("max_tokens") or 100
    return Reply(completion(text[:3], "length") if limit < 3 else completion(text))


def stored(path: str) -> Reply:
    """Two stored completions, as OpenAI's API lists them: the answers, and the messages of each."""
    words = {"chatcmpl-dog": ("dog", "Perro."), "chatcmpl-cat": ("cat", "Gato.")}
    for id, (word, _) in words.items():
        if f"/{id}/messages" in path:
            text = f'How do you say "{word}" in Spanish?'
            message = {"id": f"{id}-0", "role": "user", "content": text, "name": None, "content_parts": None}
            return Reply({"object": "list", "data": [message], "has_more": False})
    data = [
        {**completion(text), "id": id, "created": 1, "metadata": {}, "tools": None} for id, (_, text) in words.items()
    ]
    return Reply({"object": "list", "data": data, "has_more": False})


class Session:
    """A page's commands, one after the other, in one folder.

    Args:
        folder: where they run.
        student: the model that is called `smollm2` there.
        server: the URL of what is `http://localhost:8000/v1` there.
    """

    def __init__(self, folder: Path, student: Path, server: str = ""):
        self.folder, self.student, self.names = folder, student, {SERVER: server or SERVER}
        self.namespace: dict[str, object] = {}
        self.patch = pytest.MonkeyPatch()
        self.said = ""

    def run(self, block: Block) -> None:
        """Run a block, or compare its text with what was printed."""
        if block.mark == "said":
            self.check(block.text)
            return
        if block.language == "python":
            self._python(block.text)
            return
        script = _HERE.sub(self._write, block.text).replace("\\\n", " ")
        lines = [line for line in script.splitlines() if shlex.split(line, comments=True)]
        for number, line in enumerate(lines, 1):
            fails = block.mark == "fails" and number == len(lines)
            code = self._command(line)
            assert bool(code) == fails, f"{line}: exit code {code}\n{self.said}"

    def check(self, text: str) -> None:
        """Find every line of a text in what was printed, in order; `…` matches anything."""
        at = 0
        for line in text.splitlines():
            pattern = ".*".join(re.escape(part.strip()) for part in line.strip().split("…"))
            found = re.compile(rf"^[ \t]*{pattern}[ \t]*$", re.M).search(self.said, at)
            assert found, f"not printed: {line}\nprinted:\n{self.said}"
            at = found.end()
        self.said = ""

    def _write(self, found: re.Match[str]) -> str:
        (self.folder / found[1]).write_text(found[2], encoding="utf-8")
        return ""

    @contextlib.contextmanager
    def _student(self) -> Iterator[None]:
        """Meanwhile, `smollm2` is the tiny student."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("distill.builtin.smollm2.model_folder", lambda: self.student)
            yield

    def _python(self, source: str) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), self._student():
            exec(compile(source, "page", "exec"), self.namespace)
        self.said += out.getvalue()

    def _command(self, line: str) -> int:
        words = shlex.split(line, comments=True)
        if "distill" not in words:
            return self._shell(line)
        at = words.index("distill")
        if "|" in words[:at]:  # the part before the bar is what a user types
            typed = subprocess.run(line.partition("|")[0], shell=True, capture_output=True, check=True).stdout
            self.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), "utf-8"))
        else:
            for word in words[:at]:  # NAME=value, for this command
                name, _, value = word.partition("=")
                self.patch.setenv(name, value)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), self._student():
            code = main([self.names.get(word, word) for word in words[at + 1 :]])
        if at:
            self.patch.undo()
        text = out.getvalue()
        for name, real in self.names.items():
            text = text.replace(real, name)
        self.said += text
        return code

    def _shell(self, line: str) -> int:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            line, shell=True, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )
        self.said += done.stdout + done.stderr
        return done.returncode

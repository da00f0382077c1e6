"""A student's chat format in Ollama's template language: found by probing its chat template, verified on prompts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.encode.chat_rendering import render_chat
from distill.errors import DistillError
from distill.exporters import go_template
from distill.exporters.gguf import GGUF
from distill.exporters.verify import Chat, prompts
from distill.exporters.vocabulary import stops_of
from distill.models.load import load_tokenizer, max_positions
from distill.models.references import ModelRef
from distill.types import ExportJob

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_CONTEXT = 8192
"""Ollama reserves memory for `num_ctx` tokens; a model's own limit may need more than there is."""

_NAMES = ("system", "user", "assistant")
_HINT = "export --to gguf: llama.cpp and others run the chat template that is in the file"


class _NotThisWay(Exception):
    """The format does not consist of fixed texts around each message."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A format as fixed texts around each message.

    Attributes:
        first: role → the text before its message, where that is the first of the conversation.
        before: role → the text before its message elsewhere.
        after: role → the text after its message.
        generation: the text that ends a prompt.
    """

    first: Mapping[str, str]
    before: Mapping[str, str]
    after: Mapping[str, str]
    generation: str

    def to_go(self) -> str:
        """Write it in Go's template language."""
        out = "{{ range $i, $m := .Messages }}"
        for number, role in enumerate(role for role in _NAMES if role in self.before):
            out += ("{{ else if " if number else "{{ if ") + f"eq $m.Role {go_template.quoted(role)} }}}}"
            first, before = (go_template.literal(text[role]) for text in (self.first, self.before))
            out += before if first == before else f"{{{{ if eq $i 0 }}}}{first}{{{{ else }}}}{before}{{{{ end }}}}"
            out += "{{ $m.Content }}" + go_template.literal(self.after[role])
        roles = " and ".join(role for role in _NAMES if role in self.before)
        out += "{{ else }}" + go_template.fail(f"this student knows messages of {roles} only") + "{{ end }}{{ end }}"
        return out + go_template.literal(self.generation)


def write_modelfile(job: ExportJob, gguf: GGUF) -> list[str]:
    """Write a Modelfile beside a student's GGUF file: `ollama create NAME -f OUT/Modelfile`.

    Args:
        job: the student, and the folder that holds the file.
        gguf: what `write_gguf` wrote.

    Returns:
        Notes: what was verified of its template, and what Ollama cannot do.

    Raises:
        DistillError: the student's format cannot be written in Ollama's template language.
    """
    text, notes = modelfile(ModelRef(str(job.model), job.trust_remote_code), gguf.path.name, adds_bos=gguf.adds_bos)
    (job.out / "Modelfile").write_text(text, encoding="utf-8", newline="\n")
    return notes


def modelfile(model: str, file: str, *, adds_bos: bool) -> tuple[str, list[str]]:
    """Make the text of a student's Modelfile.

    Args:
        model: the student's folder.
        file: the name of the GGUF file beside the Modelfile.
        adds_bos: whether llama.cpp puts bos before each prompt, so that the template must not.

    Returns:
        The text, and notes: what was verified of its template, and what Ollama cannot do.

    Raises:
        DistillError: the student's format cannot be written in Ollama's template language.
    """
    tokenizer = load_tokenizer(model)
    template, notes = go_template_of(tokenizer, tokenizer.bos_token if adds_bos else "")
    stops = [tokenizer.convert_ids_to_tokens(stop) for stop in stops_of(model)]
    if bad := [stop for stop in stops if "\n" in stop or '"' in stop]:
        raise DistillError(f"the end-of-turn marker {bad[0]!r} cannot be written in a Modelfile", _HINT)
    context = min(max_positions(model) or 2048, MAX_CONTEXT)  # ALiBi sets no limit; BLOOM saw 2048
    lines = [f"# {note}" for note in notes]
    lines += [f"FROM ./{file}", f'TEMPLATE """{template}"""', *(f'PARAMETER stop "{stop}"' for stop in stops)]
    # Greedy, as `distill compare` and `generate` decode; Ollama's default penalty on repetition would change that.
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1.0", f"PARAMETER num_ctx {context}"]
    return "\n".join(lines) + "\n", notes


def go_template_of(tokenizer: PreTrainedTokenizerFast, bos: str = "") -> tuple[str, list[str]]:
    """Translate a tokenizer's chat template into Ollama's language.

    Args:
        tokenizer: the student's.
        bos: a text to leave out at the start of a prompt, because llama.cpp adds it.

    Returns:
        The template, and notes: what was verified and what is left out.

    Raises:
        DistillError: the translation renders a conversation differently.
    """
    try:
        turns = _probe(tokenizer, bos)
    except _NotThisWay as error:
        raise DistillError(
            f"the student's chat format cannot be written in Ollama's language: {error}", _HINT
        ) from None
    template = turns.to_go()
    trims, verified = False, 0
    for chat, wanted in prompts(tokenizer):
        wanted = wanted.removeprefix(bos)
        if go_template.run(template, chat) == wanted:
            verified += 1
            continue
        bare = [{**message, "content": message["content"].strip()} for message in chat]
        if _render(tokenizer, bare).removeprefix(bos) != wanted or go_template.run(template, bare) != wanted:
            raise DistillError(
                f"the student's chat format cannot be written in Ollama's language: it renders {wanted!r}, "
                f"where fixed texts around each message give {go_template.run(template, chat)!r}",
                _HINT,
            )
        trims = True
    notes = [f"the template gives exactly the student's prompt for {verified} conversations"]
    if trims:
        notes.append("the student's format trims white space around messages, which Ollama's language cannot: trim it")
    return template, notes + _limits(tokenizer, turns)


def _limits(tokenizer: PreTrainedTokenizerFast, turns: Turns) -> list[str]:
    """What the student's template can do and the exported one cannot."""
    notes = []
    if "system" not in turns.before:
        notes.append("the student's format has no system message: with one, Ollama stops with an error")
    if "tool" in str(tokenizer.chat_template):
        notes.append("tool calls are left out: Ollama refuses tools for this model")
    thought = "<think>\nWhy?\n</think>\n\nSo."
    chat = [("user", "Q"), ("assistant", thought), ("user", "R")]
    rows = [{"role": role, "content": text} for role, text in chat]
    with suppress(DistillError):
        if _render(tokenizer, rows) != go_template.run(turns.to_go(), rows):
            notes.append("the student's format drops reasoning from earlier answers, Ollama's language cannot: drop it")
    notes.append("Ollama joins messages of one role that follow each other, before any template sees them")
    return notes


def _render(tokenizer: PreTrainedTokenizerFast, chat: Chat, prompt: bool = True) -> str:
    return render_chat(tokenizer, chat, add_generation_prompt=prompt)


def _cut(tokenizer: PreTrainedTokenizerFast, roles: str, prompt: bool = True) -> list[str]:
    """The template's text before, between and after messages of these roles (`s`, `u`, `a`)."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    marks = [f"XQ{n}QX" for n in range(len(roles))]
    rows = [{"role": names[role], "content": mark} for role, mark in zip(roles, marks, strict=True)]
    text, parts = _render(tokenizer, rows, prompt), []
    for mark in marks:
        if text.count(mark) != 1:
            raise _NotThisWay(f"it prints a message {text.count(mark)} times")
        before, _, text = text.partition(mark)
        parts.append(before)
    return [*parts, text]


def _probe(tokenizer: PreTrainedTokenizerFast, bos: str) -> Turns:
    """Find the texts around each message."""
    head, user_end = _cut(tokenizer, "u", prompt=False)
    _, user_to_prompt = _cut(tokenizer, "u")
    _, asked, answered, _ = _cut(tokenizer, "uau")
    try:
        _, _, answer_end = _cut(tokenizer, "ua", prompt=False)
    except DistillError:
        answer_end = ""
    if not user_to_prompt.startswith(user_end):
        raise _NotThisWay("a prompt is not what comes before an answer")
    user_end = _common_start(user_end, asked)
    answer_end = _common_start(answer_end, answered)
    before = {"user": answered[len(answer_end) :], "assistant": asked[len(user_end) :]}
    after = {"user": user_end, "assistant": answer_end}
    first = {"user": head.removeprefix(bos)}
    opening = head.removesuffix(before["user"]).removeprefix(bos)
    first["assistant"] = opening + before["assistant"]
    try:
        system_head, system_to_user, _ = _cut(tokenizer, "su")
    except DistillError:
        pass
    else:
        if not system_to_user.endswith(before["user"]):
            raise _NotThisWay("a system message changes how the user's is written")
        after["system"] = system_to_user.removesuffix(before["user"])
        first["system"] = system_head.removeprefix(bos)
        before["system"] = first["system"]
        with suppress(DistillError):
            before["system"] = _cut(tokenizer, "uasu")[2][len(answer_end) :]
    return Turns(first, before, after, user_to_prompt[len(user_end) :])


def _common_start(one: str, other: str) -> str:
    """A message's end, where it is the same when another message follows; else nothing."""
    return one if other.startswith(one) else ""

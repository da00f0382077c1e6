"""Prepare a student's tokenizer for a chat format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill.encode.chat_rendering import render_chat
from distill.encode.encoder import Encoder, text_of
from distill.errors import PluginError
from distill.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from distill.protocols import Formatter


def prepare_tokenizer(tokenizer: PreTrainedTokenizerFast, formatter: Formatter, name: str) -> Encoder:
    """Add what the format needs to the tokenizer, in place.

    Its special tokens are added where they are missing; the padding token is made another than the end-of-turn marker
    (an eos that also pads is masked away by many a collator, and the student never stops); the format's chat template
    is stored, so that the saved student speaks it everywhere.

    Args:
        tokenizer: the student's.
        formatter: the chat format.
        name: its name, for errors.

    Returns:
        The encoder for this student and format.

    Raises:
        PluginError: the formatter's chat template and its segments are not the same text.
        DistillError: the format ends answers with no control token.
    """
    vocabulary = tokenizer.get_added_vocab()
    missing = [token for token in formatter.special_tokens(tokenizer) if token not in vocabulary]
    if missing:
        tokenizer.add_tokens(missing, special_tokens=True)
    if tokenizer.eos_token is None and missing:
        tokenizer.eos_token = missing[-1]
    encoder = Encoder(tokenizer, formatter, name)
    stop = encoder.stop_token_id()
    if tokenizer.pad_token_id in (None, stop):
        known = len(tokenizer)
        tokenizer.add_special_tokens({"pad_token": _padding(tokenizer, stop)})  # setting it alone adds no new one
        if len(tokenizer) > known:
            encoder = Encoder(tokenizer, formatter, name)
    tokenizer.chat_template = formatter.chat_template(tokenizer)
    if tokenizer.chat_template is not None:
        _check_template(encoder)
        _end_with(stop, encoder)
    return encoder


def default_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The tokenizer's chat template for conversations without tools; None where it has none."""
    template: str | dict[str, str] | None = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def _end_with(stop: int, encoder: Encoder) -> None:
    """Make the end-of-turn marker the tokenizer's eos too, for tools that look there; not if its template uses eos."""
    tokenizer, eos = encoder.tokenizer, encoder.tokenizer.eos_token
    probe = [Message("user", "Question?"), Message("assistant", "Answer.")]
    text = text_of(encoder.segments(probe))
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop)
    try:
        _check_template(encoder)
        same = text_of(encoder.segments(probe)) == text
    except PluginError:
        same = False
    if not same:
        tokenizer.eos_token = eos


def _padding(tokenizer: PreTrainedTokenizerFast, stop: int) -> str:
    """A token to pad with that is never trained: one the tokenizer has, or a new `<|pad|>`."""
    named_pad = [token for token in tokenizer.get_added_vocab() if "pad" in token.lower()]
    candidates: list[str | None] = [tokenizer.unk_token, *named_pad]
    for token in candidates:
        if token is not None and tokenizer.convert_tokens_to_ids(token) != stop:
            return token
    return "<|pad|>"


def _check_template(encoder: Encoder) -> None:
    """The template that is saved must give the text that is trained: every prompt, and every finished conversation.

    Finished conversations are not compared where the template renders an answer otherwise than after its own prompt:
    training follows the prompt then.
    """
    ask, say = Message("user", "Question?"), Message("assistant", "Answer.")
    prompts = [([ask], True), ([ask, say, ask], True)]
    answered = [([ask, say, ask, say], False)]
    follows = _saved(encoder, [ask, say], False).startswith(_saved(encoder, [ask], True))
    for messages, prompt in [*prompts, *answered] if follows else prompts:
        segments = (encoder.prompt_segments if prompt else encoder.segments)(messages)
        trained, saved = text_of(segments), _saved(encoder, messages, prompt)
        if saved != trained and not trained.startswith(saved):  # segments may close the last answer themselves
            raise PluginError(
                f"formatter {encoder.name!r}: its chat template renders {saved!r}, but its segments give {trained!r}"
            )


def _saved(encoder: Encoder, messages: Sequence[Message], prompt: bool) -> str:
    """What the tokenizer's own template renders."""
    rows = [{"role": message.role, "content": message.content} for message in messages]
    return render_chat(encoder.tokenizer, rows, add_generation_prompt=prompt)

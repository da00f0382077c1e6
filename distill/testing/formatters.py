"""The conformance suite of formatters: what `distill.Formatter` promises, over tokenizers and conversations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from distill.encode.chat_rendering import render_chat
from distill.encode.encoder import Encoder, text_of
from distill.encode.tokenizer import prepare_tokenizer
from distill.errors import DataError
from distill.protocols import Formatter
from distill.testing.checks import Check, Remark, assert_all, broken
from distill.testing.conversations import CONVERSATIONS, HOSTILE, PLAIN, TOOL, TOOL_CALLS
from distill.testing.tokenizers import EXACT, TOKENIZERS
from distill.transcripts.rows import message_to_dict
from distill.types import Encoded, Message, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def check_formatter(formatter: Formatter, *, rewrites_history: bool = False) -> None:
    """Hold a formatter to its contract, over tokenizers of every kind and conversations of every shape.

    Args:
        formatter: as the spec's `build` gives it.
        rewrites_history: whether it renders earlier answers differently on purpose, as formats that drop old reasoning
            do. Such rows are trained as one example per answer.

    Raises:
        AssertionError: names each broken promise, the conversation and tokenizer, and what to do.
    """
    assert_all(formatter_checks(formatter, rewrites_history=rewrites_history))


def formatter_checks(formatter: Formatter, rewrites_history: bool | None = None) -> list[Check]:
    """The checks of `check_formatter`, one by one. `rewrites_history=None`: doing so is only worth a remark."""
    suite = _Suite(formatter)
    return [
        Check("it has the methods of a Formatter", suite.methods),
        Check("plain conversations are rendered, with every kind of tokenizer", suite.plain),
        Check("no word of a message is lost, and each is marked as content", suite.content),
        Check("the generation prompt is the text before an answer, for every answer", suite.generation_prompt),
        Check("an answer stays as it is when turns follow", lambda: suite.history(rewrites_history)),
        Check("the end-of-turn marker is trained, and generation stops at it", suite.end_of_turn),
        Check("what others wrote is not trained", suite.others),
        Check("special strings in a message stay text", suite.hostile),
        Check("the chat template renders the same text", suite.template),
        Check("tool calls and their results are shown, or refused", suite.tools),
        Check("the same conversation gives the same segments, and the tokenizer is left alone", suite.pure),
    ]


class _Suite:
    """One formatter, and an encoder for it with each tokenizer."""

    def __init__(self, formatter: Formatter):
        self.formatter = formatter

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        """One encoder per kind of tokenizer."""
        return {kind: prepare_tokenizer(make(), self.formatter, "formatter") for kind, make in TOKENIZERS.items()}

    def rendered(self) -> Iterator[tuple[str, Encoder, Sequence[Message], list[Segment]]]:
        """A description for errors, encoder, conversation and segments of each conversation that is not refused."""
        for kind, encoder in self.encoders.items():
            for name, messages in CONVERSATIONS.items():
                try:
                    segments = encoder.segments(messages)
                except DataError:
                    continue
                yield f"conversation {name!r}, tokenizer {kind!r}", encoder, messages, segments

    def methods(self) -> None:
        missing = [
            name
            for name in ("special_tokens", "chat_template", "segments")
            if not callable(getattr(self.formatter, name, None))
        ]
        assert not missing, f"{type(self.formatter).__name__} has no {', '.join(missing)}; see `distill.Formatter`"

    def plain(self) -> None:
        for kind, encoder in self.encoders.items():
            for name, messages in PLAIN.items():
                try:
                    encoder.encode(messages)
                except DataError as error:
                    broken(f"conversation {name!r}, tokenizer {kind!r}: refused ({error.message})")

    def content(self) -> None:
        for where, _, messages, segments in self.rendered():
            for turn, message in enumerate(messages):
                shown = "".join(segment.text for segment in segments if segment.content and segment.turn == turn)
                assert (message.content or "").strip() in shown, (
                    f"{where}: message {turn} says {message.content!r}, but its content segments say {shown!r}; give "
                    "each message's own text a Segment(text, content=True, role=…, turn=…) of its own"
                )

    def generation_prompt(self) -> None:
        for where, encoder, messages, _ in self.rendered():
            for turn, message in enumerate(messages):
                if message.role != "assistant" or not turn or messages[turn - 1].role == "assistant":
                    continue  # nobody is asked for a first message, or for the second of two answers in a row
                before = _before(encoder.segments(messages[: turn + 1]), turn)
                try:
                    prompt = text_of(encoder.prompt_segments(messages[:turn]))
                except DataError:
                    continue
                assert prompt == before, (
                    f"{where}: asked for answer {turn}, the student sees {prompt!r}, but it is trained after "
                    f"{before!r}; with add_generation_prompt=True end exactly where the assistant starts to write"
                )

    def history(self, rewrites: bool | None) -> None:
        if rewrites:
            return
        for where, encoder, messages, segments in self.rendered():
            for turn, message in enumerate(messages[:-1]):
                if message.role != "assistant":
                    continue
                alone = encoder.segments(messages[: turn + 1])
                then, now = _of_turn(alone, turn), _of_turn(segments, turn)
                if (then, _before(alone, turn)) != (now, _before(segments, turn)):
                    broken(
                        f"{where}: answer {turn} is {then!r} when it is given, and {now!r} or after another text once "
                        "turns follow; such rows are trained as one example per answer, which costs time. If that is "
                        "intended, use check_formatter(…, rewrites_history=True)",
                        remark=rewrites is None,
                    )

    def end_of_turn(self) -> None:
        for where, encoder, messages, _ in self.rendered():
            encoded, stop = encoder.encode(messages), encoder.stop_token_id()
            for turn, message in enumerate(messages):
                if message.role != "assistant":
                    continue
                ends = [n for n, end in enumerate(encoded.end_of_turn) if end and encoded.turn[n] == turn]
                assert ends and encoded.input_ids[ends[-1]] == stop and all(encoded.assistant_mask[n] for n in ends), (
                    f"{where}: answer {turn} does not end with the trained token {stop}; end it with "
                    'Segment(marker, role="assistant", turn=turn, end_of_turn=True), whose marker is a control token'
                )

    def others(self) -> None:
        for where, encoder, messages, _ in self.rendered():
            if not where.endswith(tuple(f"tokenizer {kind!r}" for kind in EXACT)):
                continue  # its decoder does not give the text back
            trained = _decode(encoder, encoder.encode(messages))
            for turn, message in enumerate(messages):
                said = (message.content or "").strip()
                if message.role == "assistant":
                    assert said in trained, f"{where}: answer {turn}, {said!r}, is not in what is trained: {trained!r}"
                elif said:
                    assert said not in trained, (
                        f"{where}: message {turn} is by {message.role}, and is trained: {trained!r}; give a segment "
                        "the role of who wrote it, and template text no role"
                    )

    def hostile(self) -> None:
        plain = [Message("user", "x"), Message("assistant", "x")]
        for kind, encoder in self.encoders.items():
            tokens = [*encoder.tokenizer.get_added_vocab(), *self.formatter.special_tokens(encoder.tokenizer)]
            markers = [segment.text for segment in encoder.segments(plain) if not segment.content]
            expected = _controls(encoder, plain)
            for text in dict.fromkeys([*HOSTILE, *tokens, *markers]):
                if not text.strip():
                    continue
                for said in ([f"a {text} b", "x"], ["x", f"a {text} b"]):
                    messages = [Message("user", said[0]), Message("assistant", said[1])]
                    assert _controls(encoder, messages) == expected, (
                        f"tokenizer {kind!r}: {text!r} inside a message becomes a control token; put messages' texts "
                        "into segments with content=True, and nothing of them into template segments"
                    )

    def template(self) -> None:
        for where, encoder, messages, segments in self.rendered():
            if encoder.tokenizer.chat_template is None:
                raise Remark("there is none: the student speaks this format only where the plugin is installed")
            for turn in (None, *(n for n, message in enumerate(messages) if n and message.role == "assistant")):
                saved = _saved(encoder.tokenizer, messages[:turn], turn is not None)
                if turn is None and not _follows_prompt(encoder.tokenizer, messages, saved):
                    continue  # the answer is trained after its prompt, not as the template renders it
                try:
                    trained = text_of(segments if turn is None else encoder.prompt_segments(messages[:turn]))
                except DataError:
                    continue
                assert trained.startswith(saved) and (turn is None or saved == trained), (
                    f"{where}: chat_template() renders {saved!r}, but segments() gives {trained!r}"
                )

    def tools(self) -> None:
        unseen = ""
        for kind, encoder in self.encoders.items():
            for name, messages in TOOL_CALLS.items():
                try:
                    text = text_of(encoder.segments(messages))
                except DataError:
                    continue
                words = ["get_weather", "Oslo", *(message.content for message in messages if message.content)]
                lost = [word for word in words if word not in text]
                assert not lost, (
                    f"conversation {name!r}, tokenizer {kind!r}: {lost} left out without a word; show tool calls and "
                    'results, or `raise distill.DataError("… has no tool calls")`'
                )
            try:
                if "get_weather" not in text_of(encoder.segments(PLAIN["one turn"], [TOOL])):
                    unseen = unseen or kind
            except DataError:
                continue
        if unseen:
            raise Remark(f"tokenizer {unseen!r}: tool definitions are left out without a word; show or refuse them")

    def pure(self) -> None:
        for where, encoder, messages, segments in self.rendered():
            size = len(encoder.tokenizer)
            assert encoder.segments(messages) == segments, f"{where}: a second call gives other segments"
            assert len(encoder.tokenizer) == size, (
                f"{where}: segments() adds tokens to the tokenizer; name them in special_tokens()"
            )


def _of_turn(segments: Sequence[Segment], turn: int) -> str:
    return text_of([segment for segment in segments if segment.turn == turn])


def _before(segments: Sequence[Segment], turn: int) -> str:
    start = next((n for n, segment in enumerate(segments) if segment.turn == turn), len(segments))
    return text_of(segments[:start])


def _decode(encoder: Encoder, encoded: Encoded) -> str:
    """The text that the assistant's tokens stand for."""
    marks = zip(encoded.input_ids, encoded.assistant_mask, strict=True)
    written = [token for token, wrote in marks if wrote]
    text: str = encoder.tokenizer.decode(written, skip_special_tokens=False)
    return text


def _controls(encoder: Encoder, messages: Sequence[Message]) -> list[int]:
    """The control tokens of a conversation; unk is none: it is what text becomes that the vocabulary lacks."""
    steering = encoder.control_ids - ({encoder.tokenizer.unk_token_id} - {encoder.stop_token_id()})
    return [token for token in encoder.encode(messages).input_ids if token in steering]


def _saved(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], prompt: bool) -> str:
    """What the chat template that is saved with the student renders."""
    rows = [message_to_dict(message) for message in messages]
    return render_chat(tokenizer, rows, add_generation_prompt=prompt)


def _follows_prompt(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], rendered: str) -> bool:
    """Whether a template's rendering of a conversation starts with the prompt of its last answer, if it ends in one."""
    if messages[-1].role != "assistant":
        return True
    return rendered.startswith(_saved(tokenizer, messages[:-1], True))

"""A model on this machine that answers conversations: a student, its base, or a local teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.encode.answers import read_answer, read_so_far
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.errors import DataError
from distill.models.capture import Capture, TokenLogprobs
from distill.models.device import best_device
from distill.models.load import load_model, load_tokenizer, positions_of
from distill.models.references import ModelRef, trusts_remote_code
from distill.models.special_tokens import grow_embeddings
from distill.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill.protocols import Formatter


_NEUTRAL = {
    "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
}  # fmt: skip
"""Generation settings with which a model samples from its whole distribution."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer.

    Attributes:
        text: the answer, without its thought and its end-of-turn marker.
        finish_reason: `stop`, or `length` when the token limit cut it.
        prompt_tokens: tokens read.
        completion_tokens: tokens written, the end-of-turn marker included.
        logprobs: the model's own log probabilities of them, where they were asked for.
        reasoning: the thought before the answer, where the format has one; one that never ends stays in the text.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: TokenLogprobs | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class TraceStep:
    """The model's prediction after a prefix, next to the token that the text has there.

    Attributes:
        position: index of the text's token.
        token: the text's token, decoded.
        token_id: its id.
        probability: the model's probability of it.
        predicted: the most likely token there, decoded.
        predicted_id: its id.
        predicted_probability: the model's probability of that.
        answer: whether the token belongs to the answer, not to the prompt.
    """

    position: int
    token: str
    token_id: int
    probability: float
    predicted: str
    predicted_id: int
    predicted_probability: float
    answer: bool


class ChatModel:
    """A causal language model with its chat format. Make one with `ChatModel.load`.

    Attributes:
        model: on its device, in evaluation mode.
        encoder: its tokenizer and format.
        stop: the token id at which a plain answer ends.
        stops: the token ids at which generation stops: that one, and a tool call's where it is another.
        max_length: the most tokens the model takes, prompt and answer together; None: no limit.
    """

    def __init__(self, model: PreTrainedModel, encoder: Encoder):
        self.model = model.eval()
        self.encoder = encoder
        self.max_length = positions_of(model.config)
        self.stop, self.stops = encoder.stop, encoder.stops

    @classmethod
    def load(
        cls,
        ref: str,
        formatter: Formatter,
        name: str = "formatter",
        device: str | None = None,
        *,
        trust_remote_code: bool = False,
    ) -> ChatModel:
        """Load a model to answer with.

        Args:
            ref: a model folder, a `.gguf` file or a hub id.
            formatter: the chat format; its special tokens are added where they are missing.
            name: the format's name, for errors.
            device: the device to run on; default: an accelerator if there is one.
            trust_remote_code: run Python code that comes with the model; so does a `ref` that allows it.
        """
        ref = ModelRef(ref, trust_remote_code or trusts_remote_code(ref))
        return cls.load_weights(ref, prepare_tokenizer(load_tokenizer(ref), formatter, name), device)

    @classmethod
    def load_weights(cls, ref: str, encoder: Encoder, device: str | None = None) -> ChatModel:
        """As `load`, with an existing encoder; the embedding table grows if the encoder has more tokens."""
        model = load_model(ref, dtype=_dtype(device))
        grow_embeddings(model, encoder.tokenizer)
        return cls(model.to(device or best_device()), encoder)

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_tokens: int = 512,
        temperature: float | None = None,
        seed: int | None = None,
        tools: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        logprobs: int | None = None,
    ) -> list[Generation]:
        """Answer conversations, in one batch.

        Args:
            conversations: each ends where the assistant is to write.
            max_tokens: the maximum length of an answer, in tokens; less where the model takes no more.
            temperature: None or 0 is greedy; other values sample.
            seed: random seed for sampling.
            tools: tool definitions, one list per conversation.
            logprobs: keep the model's own log probability of each token, and of the K likeliest at its place; the
                tokens are then sampled from the temperature's distribution alone, without the top-p or the penalties
                that the model's own generation settings may have.

        Raises:
            DataError: a prompt leaves no room for an answer, or the chat format cannot render a conversation.
        """
        tools = tools or [()] * len(conversations)
        prompts = [self.encoder.prompt(messages, tool) for messages, tool in zip(conversations, tools, strict=True)]
        batches = [prompts]
        if self.max_length is not None and max(map(len, prompts)) + max_tokens > self.max_length:
            batches = [[prompt] for prompt in prompts]  # so that a long prompt leaves no less room to the others
        return [
            answer
            for batch in batches
            for answer in self._answer(
                batch, max_tokens, temperature, seed, capture=None if logprobs is None else Capture(logprobs)
            )
        ]

    def room(self, prompt_tokens: int, what: str = "the prompt") -> int | None:
        """How many tokens the model has left for an answer; None: no limit.

        Args:
            prompt_tokens: the length of the prompt.
            what: what has this length, for the error.

        Raises:
            DataError: none.
        """
        if self.max_length is None:
            return None
        if prompt_tokens >= self.max_length:
            raise DataError(
                f"{what} has {prompt_tokens} tokens, and the model takes {self.max_length}, answer included"
            )
        return self.max_length - prompt_tokens

    def stream(
        self,
        messages: Sequence[Message],
        show: Callable[[str], None],
        *,
        max_tokens: int = 512,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Generation:
        """As `generate` for one conversation, whose answer is shown while it is written.

        Args:
            messages: ends where the assistant is to write.
            show: called with each new piece of the answer: whole characters, without the end-of-turn marker. An
                exception that it raises, such as Ctrl-C, ends the answer.
            max_tokens, temperature, seed: as for `generate`.
        """
        return self._answer([self.encoder.prompt(messages)], max_tokens, temperature, seed, _Pieces(self, show))[0]

    def _answer(
        self,
        prompts: Sequence[list[int]],
        max_tokens: int,
        temperature: float | None,
        seed: int | None,
        streamer: _Pieces | None = None,
        capture: Capture | None = None,
    ) -> list[Generation]:
        import torch

        longest = max(map(len, prompts))
        max_tokens = min(max_tokens, self.room(longest) or max_tokens)
        pad = self.encoder.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        if seed is not None and temperature:
            torch.manual_seed(seed)
        with torch.inference_mode(), capture.watching(self.model) if capture else nullcontext():
            out = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                generation_config=self._config(max_tokens, temperature, plain=capture is not None),
                streamer=streamer,
                stopping_criteria=[capture] if capture else None,
            )
        answers = [row[longest:].tolist() for row in out]
        return [
            self._finish(answer, len(prompt), row, capture)
            for row, (answer, prompt) in enumerate(zip(answers, prompts, strict=True))
        ]

    def _config(self, max_tokens: int, temperature: float | None, plain: bool) -> Any:
        from transformers import GenerationConfig

        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        pad = self.encoder.tokenizer.pad_token_id
        if plain and temperature:  # else transformers fills in what the model's own generation settings say
            own = self.model.generation_config
            sampling |= {name: value for name, value in _NEUTRAL.items() if getattr(own, name, None) is not None}
        return GenerationConfig(max_new_tokens=max_tokens, eos_token_id=list(self.stops), pad_token_id=pad, **sampling)

    def _finish(self, ids: list[int], prompt_tokens: int, row: int, capture: Capture | None) -> Generation:
        end = next((n for n, token in enumerate(ids) if token in self.stops), None)
        stopped = end is not None
        answer = ids[:end]
        read = read_answer(self.encoder, answer)
        kept = capture.of_row(row, ids[: len(answer) + stopped]) if capture else None
        reason = "stop" if stopped else "length"
        return Generation(read.text, reason, prompt_tokens, len(answer) + stopped, kept, read.reasoning)

    def trace(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[TraceStep]:
        """Read a finished conversation token by token: what does the model predict after each prefix?

        Args:
            messages: ends with an answer.
            tools: tool definitions.

        Returns:
            One step per token, from the second token on.
        """
        import torch

        encoded = self.encoder.encode(messages, tools)
        self.room(len(encoded.input_ids) - 1)
        ids = torch.tensor([encoded.input_ids], device=self.model.device)
        with torch.inference_mode():
            probabilities = self.model(ids).logits[0].float().softmax(-1)
        best = probabilities.max(-1)
        decode = self.encoder.tokenizer.decode
        return [
            TraceStep(
                position=n,
                token=decode([token]),
                token_id=token,
                probability=probabilities[n - 1, token].item(),
                predicted=decode([best.indices[n - 1].item()]),
                predicted_id=best.indices[n - 1].item(),
                predicted_probability=best.values[n - 1].item(),
                answer=bool(encoded.assistant_mask[n]),
            )
            for n, token in enumerate(encoded.input_ids)
            if n
        ]


class _Pieces:
    """A streamer for transformers' `generate` that shows each piece of text as soon as its characters are complete.

    A character may be spread over several tokens, and later tokens may change how white space is decoded: a piece is
    shown when the decoded text continues what was shown and does not end in an incomplete character.
    """

    def __init__(self, chat: ChatModel, show: Callable[[str], None]):
        self._chat = chat
        self._show = show
        self._ids: list[int] | None = None
        self._shown = ""

    def put(self, value: Any) -> None:
        """Take the prompt's ids first, then those of each new token."""
        if self._ids is None:
            self._ids = []
            return
        self._ids += [token for token in value.tolist() if token not in self._chat.stops]
        text = read_so_far(self._chat.encoder, self._ids)
        if not text.endswith("\ufffd"):
            self._continue(text)

    def end(self) -> None:
        """Show what was held back, an incomplete character included."""
        self._continue(read_so_far(self._chat.encoder, self._ids or []))

    def _continue(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            piece, self._shown = text[len(self._shown) :], text
            self._show(piece)


def _dtype(device: str | None) -> Any:
    """The dtype the weights were saved in; float32 on a CPU, where it is faster."""
    import torch

    return torch.float32 if (device or best_device()) == "cpu" else "auto"

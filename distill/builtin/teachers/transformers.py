"""A local transformers model as teacher: a folder, a hub id or a `.gguf` file; batched, greedy or sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill import (
    Answer,
    ChatModel,
    DataError,
    LogprobsOrigin,
    LogprobsPacker,
    Message,
    PluginManager,
    Request,
    TeacherError,
    TokenLogprobs,
    UsageError,
    make_formatter,
    score_answers,
)


@dataclass(frozen=True, slots=True)
class TransformersOptions:
    """Options of a local teacher.

    Attributes:
        batch_size: conversations answered in one batch.
        max_tokens: the longest answer where the request does not say.
        formatter: the chat format to ask in.
        device: where to run; default: an accelerator if there is one.
        logprobs: keep the model's own log probability of each token, and of the K likeliest at its place; answers are
            then sampled from the whole distribution, without the top-p or penalties of the model's own settings.
        trust_remote_code: run Python code that comes with the model.
    """

    batch_size: int = 16
    # `params`: they change the answers, so they are part of a row's id.
    max_tokens: int = field(default=512, metadata={"params": True})
    formatter: str = field(default="chat-template", metadata={"params": True})
    device: str | None = None
    logprobs: int | None = field(default=None, metadata={"params": True})
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_tokens < 1:
            raise ValueError("batch_size and max_tokens must be at least 1")
        if self.logprobs is not None and self.logprobs < 0:
            raise ValueError("logprobs must be 0 or more")


class TransformersTeacher:
    """Answers with a model on this machine. The model is loaded with the first batch."""

    def __init__(self, options: TransformersOptions, model: str | None, manager: PluginManager | None = None):
        if not model:
            raise UsageError("teacher 'transformers' needs a model", "write --teacher transformers:PATH_OR_ID")
        self.batch_size = options.batch_size
        self._options = options
        self._formatter = make_formatter(options.formatter, manager=manager)
        self._ref = str(Path(model).expanduser()) if Path(model).expanduser().exists() else model
        self._model: ChatModel | None = None
        self._packer: LogprobsPacker | None = None

    def ask_batch(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """Answer the requests; those with the same parameters go into one batch."""
        model = self._loaded()
        groups: dict[object, list[int]] = {}
        for n, request in enumerate(requests):
            # Sampled answers depend on the seed, so each seed is its own batch; greedy ones ignore it. A batch draws
            # its rows from one generator: the same batch gives the same answers, another one may not.
            seed = request.params.seed if request.params.temperature else None
            groups.setdefault((request.params.max_tokens, request.params.temperature, seed), []).append(n)
        answers: list[Answer | Exception] = [TeacherError("not answered")] * len(requests)
        for group in groups.values():
            for n, answer in zip(group, self._ask(model, [requests[n] for n in group]), strict=True):
                answers[n] = answer
        return answers

    def _loaded(self) -> ChatModel:
        if self._model is None:
            options = self._options
            self._model = ChatModel.load(
                self._ref,
                self._formatter,
                options.formatter,
                options.device,
                trust_remote_code=options.trust_remote_code,
            )
        return self._model

    def _ask(self, model: ChatModel, requests: Sequence[Request]) -> list[Answer | Exception]:
        params = requests[0].params
        try:
            generations = model.generate(
                [request.messages for request in requests],
                max_tokens=params.max_tokens or self._options.max_tokens,
                temperature=params.temperature,
                seed=params.seed,
                tools=[request.tools for request in requests],
                logprobs=self._options.logprobs,
            )
        except DataError as error:
            if len(requests) == 1:
                return [TeacherError(error.message)]
            return [answer for request in requests for answer in self._ask(model, [request])]
        return [
            Answer(
                Message("assistant", made.text, made.reasoning),
                made.finish_reason,
                {"prompt_tokens": made.prompt_tokens, "completion_tokens": made.completion_tokens},
                logprobs=None
                if made.logprobs is None
                else self._packed(made.logprobs, LogprobsOrigin(temperature=params.temperature or 0.0, top_p=1.0)),
            )
            for made in generations
        ]

    def score_batch(self, requests: Sequence[Request], logprobs: int) -> list[Mapping[str, Any] | Exception]:
        """Read answers that are there already; see `distill.ScoringTeacher`."""
        chat = self._loaded()
        try:
            scored = score_answers(
                chat, [request.messages for request in requests], logprobs, [request.tools for request in requests]
            )
        except DataError as error:
            if len(requests) == 1:
                return [error]
            return [answer for request in requests for answer in self.score_batch([request], logprobs)]
        return [self._packed(one, LogprobsOrigin(scored=True)) for one in scored]

    def _packed(self, kept: TokenLogprobs, origin: LogprobsOrigin) -> dict[str, Any]:
        """An answer's log probabilities as rows keep them."""
        if self._packer is None:
            self._packer = LogprobsPacker(self._loaded().encoder)
        return self._packer.pack(kept, origin)


def build(options: TransformersOptions, model: str | None, manager: PluginManager | None = None) -> TransformersTeacher:
    """Build the teacher; its chat format is one of the manager's (default: a fresh one's)."""
    return TransformersTeacher(options, model, manager)

"""A local transformers model as teacher: a folder, a hub id or a `.gguf` file; batched, greedy or sampled."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from distill import (
    Answer,
    ChatModel,
    DataError,
    DistillError,
    LogprobsOrigin,
    LogprobsPacker,
    Message,
    PluginManager,
    Request,
    TeacherError,
    TokenLogprobs,
    UsageError,
    free_memory,
    is_out_of_memory,
    make_formatter,
    one_line,
    score_answers,
)

T = TypeVar("T")


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
        self._fits = sys.maxsize  # requests that memory sufficed for, after it did not

    def ask_batch(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """Answer the requests; those with the same parameters go into one batch."""
        model = self._loaded()
        groups: dict[tuple[int, float | None, int | None], list[int]] = {}
        answers: list[Answer | Exception] = [TeacherError("not answered")] * len(requests)
        for n, request in enumerate(requests):
            try:
                most = self._room(model, request)
            except DataError as error:
                answers[n] = TeacherError(error.message, error.hint)
                continue
            # Sampled answers depend on the seed, so each seed is its own batch; greedy ones ignore it. A batch draws
            # its rows from one generator: the same batch gives the same answers, another one may not.
            seed = request.params.seed if request.params.temperature else None
            groups.setdefault((most, request.params.temperature, seed), []).append(n)
        for (most, *_), group in groups.items():
            made = self._divided([requests[n] for n in group], functools.partial(self._ask, model, most))
            for n, answer in zip(group, made, strict=True):
                answers[n] = answer
        return answers

    def _room(self, model: ChatModel, request: Request) -> int:
        """The most tokens of an answer: those asked for, and no more than the model has positions for.

        Raises:
            DataError: the format cannot express the prompt, or the model does not take one as long.
        """
        most = request.params.max_tokens or self._options.max_tokens
        tokens = len(model.encoder.prompt(request.messages, request.tools))
        try:
            return min(most, model.room(tokens) or most)
        except DataError:
            raise DataError(
                f"the prompt has {tokens} tokens, and {self._ref} takes {model.max_length} with the answer",
                "shorten the prompt, or choose a teacher with a longer context",
            ) from None

    def _divided(
        self, requests: Sequence[Request], work: Callable[[Sequence[Request]], list[T]]
    ) -> list[T | Exception]:
        """Do work on a batch; where it fails, on its halves, until the one row is found that it fails on."""
        if len(requests) <= self._fits:
            try:
                return [*work(requests)]
            except DataError as error:
                if len(requests) == 1:
                    return [TeacherError(error.message)]
            except DistillError:
                raise
            except Exception as error:
                if len(requests) == 1:
                    what = "out of memory" if is_out_of_memory(error) else f"the model failed: {one_line(error)}"
                    tokens = len(self._loaded().encoder.prompt(requests[0].messages, requests[0].tools))
                    return [TeacherError(f"{what}; the prompt has {tokens} tokens")]
                if is_out_of_memory(error):
                    self._fits = len(requests) // 2
            free_memory()  # here, where the error holds its tensors no longer
        middle = len(requests) // 2
        return [*self._divided(requests[:middle], work), *self._divided(requests[middle:], work)]

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

    def _ask(self, model: ChatModel, max_tokens: int, requests: Sequence[Request]) -> list[Answer]:
        params = requests[0].params
        generations = model.generate(
            [request.messages for request in requests],
            max_tokens=max_tokens,
            temperature=params.temperature,
            seed=params.seed,
            tools=[request.tools for request in requests],
            logprobs=self._options.logprobs,
        )
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
        return self._divided(requests, functools.partial(self._score, self._loaded(), logprobs))

    def _score(self, chat: ChatModel, logprobs: int, requests: Sequence[Request]) -> list[Mapping[str, Any]]:
        conversations, tools = [one.messages for one in requests], [one.tools for one in requests]
        return [
            self._packed(one, LogprobsOrigin(scored=True))
            for one in score_answers(chat, conversations, logprobs, tools)
        ]

    def _packed(self, kept: TokenLogprobs, origin: LogprobsOrigin) -> dict[str, Any]:
        """An answer's log probabilities as rows keep them."""
        if self._packer is None:
            self._packer = LogprobsPacker(self._loaded().encoder)
        return self._packer.pack(kept, origin)


def build(options: TransformersOptions, model: str | None, manager: PluginManager | None = None) -> TransformersTeacher:
    """Build the teacher; its chat format is one of the manager's (default: a fresh one's)."""
    return TransformersTeacher(options, model, manager)

"""A model's own log probabilities of the tokens it generates, taken from the forward passes that generate them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The raw log probabilities of an answer: the model's own, at temperature 1, whatever it was sampled with.

    Attributes:
        ids: the tokens written, the end-of-turn marker included.
        logprobs: of each of them.
        top_ids, top_logprobs: per token, the K likeliest, likeliest first.
    """

    ids: list[int]
    logprobs: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]


@dataclass(slots=True)
class Capture:
    """What is kept of each step of a generation.

    Attributes:
        k: how many of the likeliest tokens.
        steps: per token written, in all rows: its log probability (rows,), the likeliest ids and their log
            probabilities (rows, K).
    """

    k: int
    steps: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    _latest: Tensor | None = None

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[Capture]:
        """Within this context, see the logits of each forward pass of the model."""

        def keep(module: Any, args: Any, outputs: Any) -> None:
            self._latest = outputs.logits[:, -1]

        handle = model.register_forward_hook(keep)
        try:
            yield self
        finally:
            handle.remove()
            self._latest = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """As a stopping criterion of transformers, which is called after each token; it never stops anything."""
        import torch

        assert self._latest is not None, "the model was called in another way"
        written = input_ids[:, -1:].to(self._latest.device)
        logprobs, ids, top = gather_top(self._latest, written, self.k)
        self.steps.append((logprobs, ids, top))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def of_row(self, row: int, ids: list[int]) -> TokenLogprobs:
        """The log probabilities of one answer.

        Args:
            row: its place in the batch.
            ids: its tokens, the end-of-turn marker included.
        """
        steps = self.steps[: len(ids)]
        return TokenLogprobs(
            ids,
            [float(logprobs[row]) for logprobs, _, _ in steps],
            [top[row].tolist() for _, top, _ in steps],
            [values[row].tolist() for _, _, values in steps],
        )


def gather_top(logits: Tensor, written: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log probabilities of given tokens and of the K likeliest, on the CPU.

    Args:
        logits: (places, vocabulary).
        written: (places, 1), the tokens.
        k: how many likeliest.

    Returns:
        (places,) log probabilities; (places, K) ids; (places, K) their log probabilities.
    """
    import torch

    logits = logits.float()
    total = torch.logsumexp(logits, -1, keepdim=True)
    values, ids = logits.topk(min(k, logits.shape[-1]), -1)
    own = (logits.gather(1, written) - total)[:, 0]
    return own.cpu(), ids.cpu(), (values - total).cpu()

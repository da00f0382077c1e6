"""The LM head of any causal model: projecting only some positions, and scoring tokens with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

_ROWS = 64  # positions whose probabilities are computed at a time


def hook_lm_head(project: nn.Module, select: Callable[[nn.Module, Tensor], Tensor | None]) -> RemovableHandle:
    """Have `select` choose the hidden states that an output embedding projects.

    Args:
        project: the model's output embedding.
        select: called with `project`, as it is wrapped in this pass, and the hidden states, (rows, length, width);
            returns those to project instead, in any shape that ends in (positions, width). None: they are unchanged.

    Returns:
        The hook's handle.
    """

    def before(project: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        kept = select(project, args[0]) if args else None
        return None if kept is None else (kept, *args[1:])

    return project.register_forward_pre_hook(before)


@contextmanager
def projected_positions(model: PreTrainedModel, keep: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Within this context, one forward pass of `model` projects the positions in `keep` only.

    Args:
        model: a causal language model.
        keep: (rows, length), true for each position to project.

    Yields:
        A function from the model's logits to those of the kept positions, (positions, vocabulary). It also works where
        the model has no output embedding to hook, and projects everything.
    """
    reached = False

    def select(project: nn.Module, hidden: Tensor) -> Tensor | None:
        nonlocal reached
        if reached or hidden.shape[:-1] != keep.shape:
            return None
        reached = True
        return hidden[keep.to(hidden.device)].unsqueeze(0)

    project = model.get_output_embeddings()
    handle = None if project is None else hook_lm_head(project, select)
    try:
        yield lambda logits: logits[0] if reached else logits[keep.to(logits.device)]
    finally:
        if handle is not None:
            handle.remove()


@dataclass(frozen=True, slots=True)
class TokenScores:
    """How likely a model finds given tokens, each after all before it.

    Attributes:
        losses: (positions,) minus the natural logarithm of each token's probability; float32, on the CPU.
        hits: (positions,) whether each token is the model's likeliest.
    """

    losses: Tensor
    hits: Tensor


def score_tokens(model: PreTrainedModel, batch: Mapping[str, Any], keep: Tensor, targets: Tensor) -> TokenScores:
    """Score the tokens that follow the kept positions; only these positions are projected on the vocabulary.

    Args:
        model: a causal language model.
        batch: its inputs without labels: `input_ids` and what goes with them.
        keep: (rows, length), true for each position that predicts a target.
        targets: (positions,) the token that each kept position is to predict, row by row.
    """
    import torch

    losses, hits = [], []
    with torch.inference_mode(), projected_positions(model, keep) as selected:
        logits = selected(model(**batch, use_cache=False).logits)
        wanted = targets.to(logits.device)
        # A few positions at a time, so that there is no second copy of all logits.
        for some, tokens in zip(torch.split(logits, _ROWS), torch.split(wanted, _ROWS), strict=True):
            values = some.float()
            losses.append(values.logsumexp(-1) - values.gather(-1, tokens[:, None])[:, 0])
            hits.append(some.argmax(-1) == tokens)
    return TokenScores(torch.cat(losses).cpu(), torch.cat(hits).cpu())

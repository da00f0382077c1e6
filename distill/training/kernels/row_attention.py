"""Attention of packed rows, each row by itself: on a CPU that takes less time than a mask over the whole pack.

transformers computes the attention of a pack with a mask that keeps the rows apart: a pack of ten rows takes ten times
as many products as its rows do. On GPUs, flash attention's variable-length kernels know the rows; CPUs have no such
kernel. Here torch's own causal kernel computes row after row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

NAME = "distill-rows"
"""The name of this attention among transformers' implementations."""


class _Pack:
    """The rows of the present forward pass.

    Attributes:
        lengths: their tokens; empty where the batch is no pack. They stay until the next pass, for layers that are
            computed again in the backward pass.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def look(self, module: Any, args: Any, inputs: Mapping[str, Any]) -> None:
        """A hook before a forward pass."""
        positions = inputs.get("position_ids")
        self.lengths = []
        if positions is not None and inputs.get("attention_mask") is None and len(positions) == 1:
            starts = (positions[0] == 0).nonzero().flatten().tolist()
            self.lengths = [end - start for start, end in zip(starts, [*starts[1:], positions.shape[1]], strict=True)]

    def holds(self, tokens: int) -> bool:
        """Whether a sequence is the pack."""
        return len(self.lengths) > 1 and sum(self.lengths) == tokens


@contextmanager
def attention_by_row(model: PreTrainedModel) -> Iterator[bool]:
    """Within this context, packed rows attend row by row; all other batches as ever.

    Args:
        model: a causal language model of transformers.

    Yields:
        Whether it is in effect: on CPUs, for models that use torch's scaled dot-product attention.
    """
    config = model.config.get_text_config()
    if model.device.type != "cpu" or getattr(config, "_attn_implementation", None) != "sdpa":
        yield False
        return
    from transformers import AttentionInterface, AttentionMaskInterface

    pack = _Pack()
    AttentionInterface.register(NAME, _attention_of(pack))
    AttentionMaskInterface.register(NAME, _mask_of(pack))
    handle = model.register_forward_pre_hook(pack.look, with_kwargs=True)
    model.set_attn_implementation(NAME)
    try:
        yield True
    finally:
        handle.remove()
        model.set_attn_implementation("sdpa")


def _attention_of(pack: _Pack) -> Any:
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
    ) -> tuple[Tensor, None]:
        """(1, heads, tokens, width) in; (1, tokens, heads, width) out."""
        if attention_mask is not None or not pack.holds(query.shape[2]):
            whole: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
            return whole
        if more.get("position_bias") is not None:
            raise ValueError("a position bias is of the whole pack")
        rows = zip(*(torch.split(states, pack.lengths, 2) for states in (query, key, value)), strict=True)
        return torch.cat([sdpa_attention_forward(module, *row, None, **more)[0] for row in rows], 1), None

    return attention


def _mask_of(pack: _Pack) -> Any:
    from transformers.masking_utils import sdpa_mask

    def mask(*args: Any, q_length: int, config: Any = None, **more: Any) -> Tensor | None:
        """No mask for a pack, unless a row is longer than a window of attention."""
        window = getattr(config, "sliding_window", None)
        if pack.holds(q_length) and (window is None or max(pack.lengths) <= window):
            return None
        made: Tensor | None = sdpa_mask(*args, q_length=q_length, config=config, **more)
        return made

    return mask

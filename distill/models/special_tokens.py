"""Fit a model to its tokenizer's special tokens: rows of the embedding table, and the ids in its configs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def grow_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """Make the embedding table large enough for the tokenizer; never shrink it (BLOOM has spare rows).

    Returns:
        How many rows were added.
    """
    rows: int = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= rows:
        return 0
    model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    return len(tokenizer) - rows


def set_special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, stops: int | Sequence[int]) -> None:
    """Put eos and pad into the model's configs.

    Args:
        model: is changed.
        tokenizer: knows the padding token.
        stops: the trained end-of-turn markers, an answer's first: it is the model's eos, and generation stops at each.
    """
    from transformers import GenerationConfig

    stops = [stops] if isinstance(stops, int) else list(stops)
    stop = stops[0]
    for config in (model.config, model.config.get_text_config()):
        config.eos_token_id, config.pad_token_id = stop, tokenizer.pad_token_id
        config.bos_token_id = config.bos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    # Answers are compared with the teacher's: greedy, and none of the base's sampling defaults.
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.get_text_config().bos_token_id,
        eos_token_id=stops if len(stops) > 1 else stop,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=512,
    )

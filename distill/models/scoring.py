"""A model's own log probabilities of answers that are there already: one forward pass instead of a generation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distill.encode.encoder import Encoder
from distill.models.capture import TokenLogprobs, gather_top
from distill.models.generate import ChatModel
from distill.models.lm_head import projected_positions
from distill.types import Message

MAX_TOKENS = 2**12
"""The most tokens of a forward pass, padding included, unless one conversation alone has more."""

_ROWS = 64  # positions whose likeliest tokens are found at a time


def score_answers(
    chat: ChatModel,
    conversations: Sequence[Sequence[Message]],
    k: int,
    tools: Sequence[Sequence[Mapping[str, Any]]] | None = None,
) -> list[TokenLogprobs]:
    """Read conversations that end with an answer.

    Args:
        chat: the model.
        conversations: each ends with the answer to score.
        k: how many likeliest tokens per place.
        tools: tool definitions, one list per conversation.

    Returns:
        Per conversation, the log probabilities of its answer, up to and with its end-of-turn marker.

    Raises:
        DataError: the chat format cannot render one of them, or it is longer than the model takes.
    """
    found: dict[int, TokenLogprobs] = {}
    tools = tools or [()] * len(conversations)
    encoder = chat.encoder
    spans = [answer_span(encoder, messages, tool) for messages, tool in zip(conversations, tools, strict=True)]
    for _, _, stop in spans:
        chat.room(stop - 1)
    for batch in _batches([stop for _, _, stop in spans]):
        for n, scored in zip(batch, _score(chat, [spans[n] for n in batch], k), strict=True):
            found[n] = scored
    return [found[n] for n in range(len(spans))]


def answer_span(
    encoder: Encoder, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[int], int, int]:
    """The tokens of a conversation, and where its last message's are.

    Returns:
        The token ids, the place of the answer's first token, and that after its end-of-turn marker.

    Raises:
        DataError: the chat format cannot render it.
    """
    encoded, turn = encoder.encode(messages, tools), len(messages) - 1
    start = encoded.turn.index(turn)
    stop = len(encoded.input_ids) - encoded.turn[::-1].index(turn)
    places = range(start, stop)
    marker = next((n for n in places if encoded.end_of_turn[n] and encoded.input_ids[n] == encoder.stop), None)
    return encoded.input_ids, start, stop if marker is None else marker + 1


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Conversations of similar length, the longest first."""
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > MAX_TOKENS:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _score(chat: ChatModel, spans: Sequence[tuple[list[int], int, int]], k: int) -> list[TokenLogprobs]:
    """One forward pass."""
    import torch

    longest = max(stop for _, _, stop in spans)
    device, pad = chat.model.device, chat.encoder.tokenizer.pad_token_id
    ids = torch.tensor([row[:stop] + [pad] * (longest - stop) for row, _, stop in spans], device=device)
    mask = torch.tensor([[1] * stop + [0] * (longest - stop) for _, _, stop in spans], device=device)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    for row, (_, start, stop) in zip(keep, spans, strict=True):
        row[start - 1 : stop - 1] = True
    written = ids.roll(-1, 1)[keep][:, None]
    columns: list[list[Any]] = [[], [], []]
    with torch.inference_mode(), projected_positions(chat.model, keep) as selected:
        logits = selected(chat.model(input_ids=ids, attention_mask=mask, use_cache=False).logits)
        for some, tokens in zip(torch.split(logits, _ROWS), torch.split(written.to(logits.device), _ROWS), strict=True):
            for column, values in zip(columns, gather_top(some, tokens, k), strict=True):
                column += values.tolist()
    scored, at = [], 0
    for row, start, stop in spans:
        here = slice(at, at + stop - start)
        scored.append(TokenLogprobs(row[start:stop], *(column[here] for column in columns)))
        at += stop - start
    return scored

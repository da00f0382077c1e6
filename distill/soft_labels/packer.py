"""From a model's token ids and their log probabilities to the form that rows keep."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill.soft_labels.rows import LogprobsOrigin, pack_logprobs
from distill.soft_labels.vocabulary import Vocabulary

if TYPE_CHECKING:
    from distill.encode.encoder import Encoder
    from distill.models.capture import TokenLogprobs


class LogprobsPacker:
    """Packs a model's log probabilities of its answers.

    Args:
        encoder: the model's tokenizer and chat format.

    Attributes:
        vocabulary: the tokenizer's.
    """

    def __init__(self, encoder: Encoder):
        self._stop = encoder.stop
        self._special = {id for id, token in encoder.tokenizer.added_tokens_decoder.items() if token.special}
        self.vocabulary = Vocabulary(encoder.tokenizer, encoder.control_ids)

    def pack(self, kept: TokenLogprobs, origin: LogprobsOrigin) -> dict[str, Any]:
        """Pack one answer, with its end-of-turn marker where it has one.

        Args:
            kept: its tokens.
            origin: how the numbers came about; the tokenizer is added.
        """
        origin = replace(origin, raw=True, tokenizer=self.vocabulary.fingerprint, end_ids=(self._stop,))
        ended = bool(kept.ids) and kept.ids[-1] == self._stop
        octets = self.vocabulary.bytes_of(kept.ids)
        for n, id in enumerate(kept.ids[: len(kept.ids) - ended]):
            if id in self._special:
                octets[n] = b""  # it leaves no trace in the answer's text
        top = [list(zip(*pair, strict=True)) for pair in zip(kept.top_ids, kept.top_logprobs, strict=True)]
        return pack_logprobs(
            octets,
            kept.logprobs,
            ids=kept.ids,
            top=top,
            k=max(map(len, kept.top_ids), default=0),
            end=int(ended),
            origin=origin,
        )

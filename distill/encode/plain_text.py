"""Ordinary text to tokens: as the student's tokenizer encodes it, but never to a control token."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from distill.errors import DataError
from distill.types import Segment

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding
    from transformers import PreTrainedTokenizerFast

SENTINEL = "\U000f6d1b"  # private use; stands before text that does not start the input
_BRACKETED = re.compile(r"[<\[({|⟨｜].*[>\])}|⟩｜]", re.DOTALL)


class Tokens(NamedTuple):
    """An encoded text.

    Attributes:
        ids: its token ids.
        offsets: gives the characters (start, end) of each token; called only where they are needed.
        shift: the character at which the text starts in these offsets.
    """

    ids: list[int]
    offsets: Callable[[], list[tuple[int, int]]]
    shift: int = 0


class PlainText:
    """Encodes ordinary text: as the student's tokenizer does, but without ever making a control token of it.

    Attributes:
        ids: every added token's id.
        control_ids: ids of the added tokens that steer the model. Added tokens that are mere vocabulary (white space,
            a domain's words) are not among them: they are matched in content too, as the tokenizer itself does.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        import tokenizers

        added = tokenizer.added_tokens_decoder
        self.ids = {token.content: id for id, token in added.items() if token.content}
        self._tokens: dict[str, AddedToken] = {token.content: token for token in added.values() if token.content}
        self._vocabulary = {text for text, token in self._tokens.items() if not _steers(token)}
        self.control_ids = {id for text, id in self.ids.items() if text not in self._vocabulary}
        # Text that the vocabulary does not cover becomes unk: that is no way to steer, unless unk is eos or bos too.
        unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id, tokenizer.bos_token_id}
        self._forbidden = self.control_ids - unknown
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        steering = [re.escape(text) for text in longest_first if text not in self._vocabulary]
        self.controls = re.compile("|".join(steering) or r"(?!)")
        self._in_template = functools.lru_cache(4096)(self._controls_in_template)
        # Whether a text's neighbours make no difference to its tokens, nor the text to theirs.
        strips = any(token.single_word or token.lstrip or token.rstrip for token in self._tokens.values())
        self.position_free = not self._vocabulary and not strips
        # Where content may hold added tokens, or a token's neighbours decide, a stretch is searched as a whole.
        self._by_part = not self._vocabulary and not any(token.single_word for token in self._tokens.values())
        config = json.loads(tokenizer.backend_tokenizer.to_str())
        config.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(config))
        self._plain.add_special_tokens([tokenizers.AddedToken(SENTINEL, normalized=False, special=True)])

    def find_controls(self, text: str, template: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, AddedToken]]:
        """Find the added tokens in a text: leftmost, then longest, as the tokenizers library does.

        Args:
            text: a stretch of the conversation.
            template: (start, end) of the template's text in it; only there control tokens count.
        """
        at = 0
        while match := self._any.search(text, at):
            start = match.start()
            token = self._token_at(text, start, match.group(), template)
            if token is None:
                at = start + 1
                continue
            at = start + len(token.content)
            yield start, at, token

    def count_controls(self, text: str) -> int:
        """How many control tokens a template's text holds."""
        return sum(self.ids[token.content] in self.control_ids for _, _, token in self._in_template(text))

    def controls_of(self, parts: Sequence[Segment], text: str) -> Iterable[tuple[int, int, AddedToken]]:
        """The added tokens in a stretch of segments, whose `text` is given too; see `find_controls`."""
        start, found, template = 0, [], []
        for part in parts:
            end = start + len(part.text)
            if not part.content:
                template.append((start, end))
                if self._by_part:
                    found += [(a + start, b + start, token) for a, b, token in self._in_template(part.text)]
            start = end
        return found if self._by_part else self.find_controls(text, template)

    def _controls_in_template(self, text: str) -> list[tuple[int, int, AddedToken]]:
        return list(self.find_controls(text, [(0, len(text))]))

    def _token_at(self, text: str, start: int, longest: str, template: Sequence[tuple[int, int]]) -> AddedToken | None:
        """The longest added token that may begin at a place."""
        if self._fits(text, start, longest, template):
            return self._tokens[longest]
        for size in range(len(longest) - 1, 0, -1):
            word = longest[:size]
            if word in self._tokens and self._fits(text, start, word, template):
                return self._tokens[word]
        return None

    def _fits(self, text: str, start: int, word: str, template: Sequence[tuple[int, int]]) -> bool:
        end = start + len(word)
        if word not in self._vocabulary and not any(a <= start and end <= b for a, b in template):
            return False
        if not self._tokens[word].single_word:
            return True
        return not (re.search(r"\w\Z", text[:start]) or re.match(r"\w", text[end:]))

    def encode_batch(self, texts: Mapping[tuple[str, bool], bool]) -> dict[tuple[str, bool], Tokens]:
        """Encode texts.

        Args:
            texts: text and whether it starts the input → whether its tokens' characters will be asked for.
        """
        result = {}
        for wanted, encode in ((False, self._plain.encode_batch_fast), (True, self._plain.encode_batch)):
            keys = [key for key, needed in texts.items() if needed is wanted]
            prefixed = [text if first else SENTINEL + text for text, first in keys]
            for key, encoding in zip(keys, encode(prefixed, add_special_tokens=False), strict=True):
                made = _read(encoding, 0 if key[1] else 1)
                if not self._forbidden.isdisjoint(made.ids):
                    made = self._split_controls(key, made) if wanted else self.encode_batch({key: True})[key]
                result[key] = made
        return result

    def _split_controls(self, key: tuple[str, bool], tokens: Tokens) -> Tokens:
        """A vocabulary may hold a control string as an ordinary entry (Unigram does): encode it in two halves."""
        text, first = key
        bad = next(n for n, id in enumerate(tokens.ids) if id in self._forbidden)
        start, end = (place - tokens.shift for place in tokens.offsets()[bad])
        if end - start < 2:
            raise DataError(f"the text {text[start:end]!r} can only be encoded as a control token")
        halves = {(text[: start + 1], first): 0, (text[start + 1 :], False): start + 1}
        encoded = self.encode_batch(dict.fromkeys(halves, True))

        def offsets() -> list[tuple[int, int]]:
            moves = [(encoded[half], place - encoded[half].shift) for half, place in halves.items()]
            return [(a + move, b + move) for tokens, move in moves for a, b in tokens.offsets()]

        return Tokens([id for half in halves for id in encoded[half].ids], offsets)


def _read(encoding: Encoding, skip: int) -> Tokens:
    """Take an encoding apart, without the sentinel before it."""
    if not skip:
        return Tokens(encoding.ids, lambda: encoding.offsets)
    return Tokens(encoding.ids[1:], lambda: encoding.offsets[1:], 1)


def _steers(token: AddedToken) -> bool:
    """Whether an added token is a control token: a special one, or a bracketed word such as `<think>` or `[INST]`."""
    if not token.content.strip():
        return False
    return token.special or bool(_BRACKETED.fullmatch(token.content.strip()))

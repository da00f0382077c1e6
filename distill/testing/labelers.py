"""The conformance suite of labelers: what `distill.Labeler` promises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cached_property

from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.errors import DataError
from distill.plugins import make_formatter, make_plugin_manager
from distill.protocols import CollatingLabeler, Labeler
from distill.testing.checks import Check, assert_all, broken
from distill.testing.conversations import CONVERSATIONS, PLAIN
from distill.testing.tokenizers import TOKENIZERS
from distill.types import IGNORE_INDEX, Encoded

_KINDS = ("bloom", "chatml", "qwen3", "unigram")
_FORMATS = ("chat-template", "special-tokens")


def check_labeler(build: Callable[[Encoder], Labeler], *, trains_prompt: bool = False, trains_end: bool = True) -> None:
    """Hold a labeler to its contract, over formats, tokenizers and conversations.

    Args:
        build: makes the labeler for an encoder, as the spec's does: `lambda encoder: spec.build(options, encoder)`.
        trains_prompt: whether it trains what the assistant did not write, on purpose.
        trains_end: whether it trains the end-of-turn marker of an answer it trains; without, the student never stops.

    Raises:
        AssertionError: names each broken promise, the conversation, format and tokenizer, and what to do.
    """
    assert_all(labeler_checks(build, trains_prompt=trains_prompt, trains_end=trains_end))


def labeler_checks(
    build: Callable[[Encoder], Labeler], trains_prompt: bool | None = None, trains_end: bool | None = None
) -> list[Check]:
    """The checks of `check_labeler`, one by one. None: an unusual choice is only worth a remark."""
    suite = _Suite(build)
    return [
        Check("there is one label per token: the token's own id, or -100", suite.labels),
        Check("something is trained in plain conversations", suite.something),
        Check("only what the assistant wrote is trained", lambda: suite.prompt(trains_prompt)),
        Check("the end-of-turn marker of a trained answer is trained", lambda: suite.end(trains_end)),
        Check("the same conversation gives the same labels, and is left as it is", suite.pure),
        Check("its collator gives the labels that `label` shows, and none to padding", suite.collates),
    ]


class _Suite:
    """A labeler for each format and tokenizer, and what it makes of each conversation."""

    def __init__(self, build: Callable[[Encoder], Labeler]):
        self.build = build

    @cached_property
    def labelers(self) -> list[tuple[str, Encoder, Labeler]]:
        """A description for errors, the encoder, and the labeler built for it."""
        manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
        made = []
        for kind in _KINDS:
            for name in _FORMATS:
                encoder = prepare_tokenizer(TOKENIZERS[kind](), make_formatter(name, manager=manager), name)
                labeler = self.build(encoder)
                has = callable(getattr(labeler, "label", None))
                assert has, f"{type(labeler).__name__} has no method label; see `distill.Labeler`"
                made.append((f"format {name!r}, tokenizer {kind!r}", encoder, labeler))
        return made

    def labelled(self) -> Iterator[tuple[str, Encoded, list[int]]]:
        """A description, tokens and labels of each conversation that is not refused."""
        for where, encoder, labeler in self.labelers:
            for name, messages in CONVERSATIONS.items():
                try:
                    encoded = encoder.encode(messages)
                    labels = labeler.label(encoded)
                except DataError as error:
                    assert name not in PLAIN, f"conversation {name!r}, {where}: refused ({error.message})"
                    continue
                yield f"conversation {name!r}, {where}", encoded, labels

    def labels(self) -> None:
        for where, encoded, labels in self.labelled():
            size = len(encoded.input_ids)
            assert isinstance(labels, list) and len(labels) == size, (
                f"{where}: label() gave {_measure(labels)} for {size} tokens; return a list with one label per token"
            )
            for n, (label, token) in enumerate(zip(labels, encoded.input_ids, strict=True)):
                assert label in (token, IGNORE_INDEX), (
                    f"{where}: label {n} is {label!r}; it must be the token's id {token} or {IGNORE_INDEX} (labels are "
                    "not shifted)"
                )

    def something(self) -> None:
        for where, _, labels in self.labelled():
            trained = any(label != IGNORE_INDEX for label in labels[1:])
            assert trained or not any(name in where for name in PLAIN), (
                f"{where}: every label is {IGNORE_INDEX}; such a row is skipped"
            )

    def prompt(self, meant: bool | None) -> None:
        for where, encoded, labels in self.labelled():
            for n, (label, wrote) in enumerate(zip(labels, encoded.assistant_mask, strict=True)):
                if label != IGNORE_INDEX and not wrote and not meant:
                    broken(
                        f"{where}: token {n} is trained, which the assistant did not write; where that is meant, say "
                        "check_labeler(…, trains_prompt=True)",
                        remark=meant is None,
                    )

    def end(self, meant: bool | None) -> None:
        for where, encoded, labels in self.labelled():
            for turn in sorted(set(encoded.turn) - {-1}):
                tokens = [n for n, at in enumerate(encoded.turn) if at == turn and encoded.assistant_mask[n]]
                trained = [n for n in tokens if labels[n] != IGNORE_INDEX]
                if trained and not any(encoded.end_of_turn[n] for n in trained) and meant is not False:
                    broken(
                        f"{where}: answer {turn} is trained without its end-of-turn marker, so that the student never "
                        "stops; where that is meant, say check_labeler(…, trains_end=False)",
                        remark=meant is None,
                    )

    def pure(self) -> None:
        for where, encoder, labeler in self.labelers:
            encoded = encoder.encode(PLAIN["two turns"])
            before = copy.deepcopy(encoded)
            labels = list(labeler.label(encoded))
            assert encoded == before, f"{where}: label() changes the lists it is given; make a new list"
            assert labeler.label(encoded) == labels, f"{where}: a second call gives other labels"

    def collates(self) -> None:
        for where, encoder, labeler in self.labelers:
            if not isinstance(labeler, CollatingLabeler):
                continue
            rows = [encoder.encode(messages) for messages in PLAIN.values()]
            shown = [labeler.label(encoded) for encoded in rows]
            collate = labeler.collator(encoder.tokenizer.pad_token_id)
            pairs = zip(rows, shown, strict=True)
            batch = collate([{"input_ids": encoded.input_ids, "labels": labels} for encoded, labels in pairs])
            for n, labels in enumerate(shown):
                mask = batch["attention_mask"][n].tolist()
                got = [label for label, there in zip(batch["labels"][n].tolist(), mask, strict=True) if there]
                padding = [label for label, there in zip(batch["labels"][n].tolist(), mask, strict=True) if not there]
                assert got == labels, f"{where}: the collator's labels are {got}, but label() shows {labels}"
                assert set(padding) <= {IGNORE_INDEX}, f"{where}: padding is trained: {padding}"


def _measure(labels: object) -> str:
    return f"{len(labels)} labels" if isinstance(labels, list) else f"a {type(labels).__name__}"

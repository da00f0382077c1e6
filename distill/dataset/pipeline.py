"""The preparation pipeline: tokenizer, formatter, labeler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill.dataset.settings import MAX_CHARACTERS, DataSettings
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.errors import UsageError
from distill.models.load import (
    has_fixed_positions,
    load_tokenizer,
    max_positions,
    model_config,
    positions_of,
)
from distill.models.references import resolve_model
from distill.plugins import PluginManager
from distill.protocols import Labeler
from distill.soft_labels.targets import SoftLabeler
from distill.transcripts.reader import Reader, make_reader
from distill.transcripts.turns import Turns

if TYPE_CHECKING:
    from distill.transcripts.hold_out import HoldOut


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How to prepare transcripts.

    Attributes:
        encoder: for the student and its format.
        labeler: decides which tokens count.
        labeler_name: for errors.
        settings: names and options of the formatter and the labeler; part of the cached data's name.
        turns: which answers of a conversation are trained.
        reader: reads the rows of the data.
        allows: errors of the label check that the labeler intends.
        new_tokens: ids of the tokens that the format added.
        ref: the student, as `resolve_model` returns it; empty where the encoder was made elsewhere.
        hold_out: which conversations are held out; None: none.
        soft: makes soft targets of the teacher's log probabilities; None: the loss does not ask for them.
        max_characters: rows with more characters are skipped before they are tokenized.
    """

    encoder: Encoder
    labeler: Labeler
    labeler_name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    turns: Turns = "all"
    reader: Reader = field(default_factory=make_reader)
    allows: tuple[str, ...] = ()
    new_tokens: tuple[int, ...] = ()
    ref: str = ""
    hold_out: HoldOut | None = None
    soft: SoftLabeler | None = None
    max_characters: int = MAX_CHARACTERS


def length_limit(ref: str, max_length: int | None) -> int | None:
    """The most tokens of a training row; None: no limit.

    Args:
        ref: the student, as `resolve_model` returns it.
        max_length: as the user sets it; None: the student's own limit.

    Raises:
        UsageError: it is more than the student can take at all.
    """
    most = fixed_limit(ref)
    if max_length is not None and most is not None and max_length > most:
        raise UsageError(
            f"--max-length {max_length} is more than the student takes: it has {most} positions",
            f"--max-length {most}, or none, or a student that takes more",
        )
    return max_length or max_positions(ref)


def fixed_limit(ref: str) -> int | None:
    """The most tokens that a student can take at all; None: there is no such limit, or no student."""
    if not ref:
        return None
    config = model_config(ref)
    return positions_of(config) if has_fixed_positions(config) else None


def make_pipeline(settings: DataSettings, manager: PluginManager, *, soft_labels: bool = False) -> Pipeline:
    """Load the student's tokenizer, and build formatter and labeler by their names.

    Args:
        settings: the student, its format and its labels.
        manager: the plugins.
        soft_labels: whether to read the teacher's log probabilities.

    Raises:
        DistillError: what is named does not exist or does not fit.
    """
    formatter, formatter_options = settings.formatter, settings.formatter_options
    labeler, labeler_options = settings.labeler, settings.labeler_options
    manager.labelers.get(labeler)  # fail early, before anything is loaded
    made = manager.formatters.build(formatter, formatter_options)
    ref = resolve_model(settings.student, manager, settings.trust_remote_code)
    tokenizer = load_tokenizer(ref)
    known = len(tokenizer)
    encoder = prepare_tokenizer(tokenizer, made, formatter)
    return Pipeline(
        encoder,
        manager.labelers.build(labeler, labeler_options, encoder),
        labeler,
        {"formatter": [formatter, dict(formatter_options)], "labeler": [labeler, dict(labeler_options)]},
        settings.turns,
        settings.reader(manager),
        tuple(manager.labelers.get(labeler).allows),
        tuple(range(known, len(tokenizer))),
        ref,
        soft=SoftLabeler(encoder) if soft_labels else None,
        max_characters=settings.max_characters,
    )

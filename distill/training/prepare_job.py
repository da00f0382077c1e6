"""All that is known of a training before a weight is loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from distill.dataset.cache import prepare_data
from distill.dataset.findings import Findings
from distill.dataset.pipeline import make_pipeline
from distill.dataset.prepare import Prepared
from distill.encode.encoder import Encoder
from distill.errors import DataError, DistillError
from distill.models.load import max_positions
from distill.plugins import PluginManager
from distill.protocols import Labeler, Trainer
from distill.specs import make_options
from distill.training.batching import batch_sampler
from distill.training.estimate import estimate, largest_batch
from distill.training.settings import Estimate, TrainReport, TrainSettings
from distill.transcripts.hold_out import HoldOut, make_hold_out


@dataclass(frozen=True, slots=True)
class Ready:
    """All that is known before a weight is loaded.

    Attributes:
        trainer: built with its options, which it has checked.
        ref: the student, as `load_model` takes it.
        encoder: for the student and its format.
        new_tokens: ids of the tokens that the format brought.
        labeler: decides which tokens count.
        prepared: the examples, and the rows that are none.
        report: counts, and the steps to do.
        hold_out: which conversations are held out; None: none.
    """

    trainer: Trainer
    ref: str
    encoder: Encoder
    new_tokens: tuple[int, ...]
    labeler: Labeler
    prepared: Prepared
    report: TrainReport
    hold_out: HoldOut | None = None


def make_ready(settings: TrainSettings, manager: PluginManager, processes: int) -> Ready:
    """Check the settings, read the data, make and count the examples.

    Args:
        settings: what to train, on what, and how.
        manager: the plugins.
        processes: how many train together: it takes as many times fewer steps.

    Raises:
        DistillError: what is named does not exist or does not fit; a row is bad; nothing can be trained.
    """
    Findings.check_codes(settings.allow)
    manager.formatters.get(settings.formatter), manager.labelers.get(settings.labeler)  # a wrong name fails first
    trainer_spec = manager.trainers.get(settings.trainer)
    trainer = trainer_spec.build(make_options(trainer_spec, settings.trainer_options, "trainer"))
    pipeline = make_pipeline(
        settings.student,
        manager,
        settings.formatter,
        settings.formatter_options,
        settings.labeler,
        settings.labeler_options,
        settings.turns,
        settings.data_format,
    )
    if settings.hold_out is not None:
        hold_out = make_hold_out(settings.hold_out, settings.data, settings.data_format, settings.seed)
        pipeline = replace(pipeline, hold_out=hold_out)
    prepared = prepare_data(
        settings.data,
        pipeline,
        max_length=settings.max_length or max_positions(pipeline.ref),
        overlong=settings.overlong,
    )
    if pipeline.hold_out is not None:
        pipeline.hold_out.check(prepared.rows, prepared.held_out)
    if not len(prepared.examples):
        raise DataError(f"no row can be trained: {_reasons(prepared)}", "look at them with `distill check`")
    prepared.findings.raise_errors({*settings.allow, *pipeline.allows})
    report = _report(settings, prepared, processes)
    return Ready(
        trainer,
        pipeline.ref,
        pipeline.encoder,
        pipeline.new_tokens,
        pipeline.labeler,
        prepared,
        report,
        pipeline.hold_out,
    )


def estimate_of(ready: Ready, settings: TrainSettings, note: Callable[[str], None]) -> Estimate | None:
    """Estimate the training's memory and disk; None, with a note why, where this student cannot be seen through."""
    try:
        return estimate(
            ready.ref,
            settings,
            largest_batch(settings, ready.prepared.examples),
            vocabulary=len(ready.encoder.tokenizer),
            new_tokens=ready.new_tokens,
            checkpoints=1 + settings.checkpoints_kept,
        )
    except DistillError:
        raise
    except Exception as error:  # an architecture that cannot be run without its weights
        note(f"memory and disk cannot be estimated for this student: {type(error).__name__}: {error}")
        return None


def memory_hint(ready: Ready, settings: TrainSettings) -> str:
    """What to lower when memory is not enough."""
    batch, longest = settings.per_device_train_batch_size, int(ready.prepared.examples.lengths.max())
    ways = [f"--max-length (the longest example has {longest} tokens)"]
    if batch > 1:
        ways.insert(0, f"--batch-size (it is {batch}; more --accumulation makes up for it)")
    return f"lower {' or '.join(ways)}; -T gradient_checkpointing=true" + (
        "" if settings.lora else " and --lora help too"
    )


def _report(settings: TrainSettings, prepared: Prepared, processes: int) -> TrainReport:
    """What will be trained, with the steps it takes."""
    lengths = prepared.examples.lengths.tolist()
    steps = math.ceil(batch_sampler(settings, lengths, num_processes=processes).steps * settings.epochs)
    return TrainReport(
        out=str(settings.out),
        rows=prepared.rows,
        trained_rows=prepared.trained_rows,
        skipped_rows=len(prepared.skipped),
        held_out_rows=prepared.held_out,
        split_rows=prepared.expanded_rows,
        truncated=prepared.truncated,
        examples=len(prepared.examples),
        tokens=int(prepared.examples.lengths.sum()),
        trained_tokens=int(prepared.examples.trained.sum()),
        steps=_max_steps(settings) or steps,
        reasons=dict(Counter(skipped.reason for skipped in prepared.skipped)),
    )


def _max_steps(settings: TrainSettings) -> int:
    """`-T max_steps=…` goes before --epochs; 0 where it is not given."""
    try:
        return max(0, int(settings.trainer_options.get("max_steps", 0)))
    except (TypeError, ValueError):
        return 0  # the trainer says what is wrong with it


def _reasons(prepared: Prepared) -> str:
    if not prepared.skipped:
        return "there is none"
    shown = "; ".join(f"{skipped.source}: {skipped.reason}" for skipped in prepared.skipped[:3])
    more = len(prepared.skipped) - 3
    return shown + (f"; and {more} more" if more > 0 else "")

"""Planning a job: everything that is known of a training before a weight is loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distill.dataset.cache import prepare_data
from distill.dataset.findings import Findings
from distill.dataset.pipeline import Pipeline, length_limit, make_pipeline
from distill.dataset.prepare import Prepared, prepare
from distill.encode.encoder import Encoder
from distill.errors import DataError, DistillError, PluginError
from distill.models.device import best_device, bfloat16_gain, describe_gain
from distill.models.load import model_config
from distill.models.precision import saved_dtype
from distill.plugins import PluginManager
from distill.protocols import Labeler, Loss, PlanningTrainer, Trainer
from distill.runs.report import MemoryEstimate, TrainReport
from distill.training.batching import batch_sampler
from distill.training.estimate import estimate, largest_batch
from distill.training.lora_targets import Targets, plan_targets
from distill.training.losses import check_shares, explain, make_loss
from distill.training.settings import TrainSettings
from distill.training.shared_prefix import group_by_prefix
from distill.transcripts.hold_out import HoldOut, make_hold_out, read_held_out
from distill.transcripts.reader import Reader
from distill.transcripts.turns import choose_turns
from distill.types import PrefixGroup, TrainPlan

_WIDE = 256
"""Matrices take most of a step in models of at least this hidden size."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """Everything that is known of a training before a weight is loaded.

    Attributes:
        trainer: built with its options, which it has checked.
        train_plan: what the trainer says of the training; a plain loop where it says nothing.
        ref: the student, as `load_model` takes it.
        encoder: for the student and its format.
        new_tokens: ids of the tokens that the chat format adds.
        labeler: decides which tokens count.
        loss: what the student is pulled towards; None: the cross-entropy.
        prepared: the examples, and the skipped rows.
        report: counts, and the steps to do.
        reader: reads the rows of the data.
        hold_out: which conversations are held out; None: none.
        held_out: their examples, to evaluate on; None: none.
        prefix_groups: rows that begin alike and are worth batching together; empty without `--shared-prefix`.
        notes: what the user should know before the training, one line each.
    """

    trainer: Trainer
    train_plan: TrainPlan
    ref: str
    encoder: Encoder
    new_tokens: tuple[int, ...]
    labeler: Labeler
    loss: Loss | None
    prepared: Prepared
    report: TrainReport
    reader: Reader
    hold_out: HoldOut | None = None
    held_out: Prepared | None = None
    prefix_groups: Sequence[PrefixGroup] = ()
    notes: Sequence[str] = ()


def plan_job(settings: TrainSettings, manager: PluginManager, processes: int) -> JobPlan:
    """Check the settings, read the data, make and count the examples.

    Args:
        settings: what to train, on what, and how.
        manager: the plugins.
        processes: how many train together; the steps are divided by their number.

    Raises:
        DistillError: a name is unknown, an option does not fit, a row is bad, or nothing can be trained.
    """
    Findings.check_codes(settings.allow)
    manager.formatters.get(settings.formatter), manager.labelers.get(settings.labeler)  # a wrong name fails first
    trainer = manager.trainers.build(settings.trainer, settings.trainer_options)
    loss, needs = make_loss(settings.loss, settings.loss_options, manager)
    pipeline = make_pipeline(settings, manager, soft_labels=needs is not None)
    targets = None if settings.lora is None else plan_targets(pipeline.ref, settings.lora)
    if settings.hold_out is not None:
        hold_out = make_hold_out(settings.hold_out, settings.data, pipeline.reader, settings.seed)
        pipeline = replace(pipeline, hold_out=hold_out)
    max_length = length_limit(pipeline.ref, settings.max_length)
    prepared = prepare_data(settings.data, pipeline, max_length=max_length, overlong=settings.overlong)
    if pipeline.hold_out is not None:
        pipeline.hold_out.check(len(prepared.conversations), prepared.held_out)
    if not len(prepared.examples):
        raise DataError(f"no row can be trained: {_reasons(prepared)}", "look at them with `distill check`")
    if needs is not None:
        check_shares(prepared.shares, needs, settings.loss, prepared.findings)
    prepared.findings.raise_errors({*settings.allow, *pipeline.allows})
    groups = _prefix_groups(settings, prepared, pipeline.ref)
    sampler = batch_sampler(settings, prepared.examples.lengths.tolist(), groups, num_processes=processes)
    steps = math.ceil(sampler.steps * settings.epochs)
    plan = _ask_for_plan(trainer, settings.trainer, steps)
    return JobPlan(
        trainer=trainer,
        train_plan=plan,
        ref=pipeline.ref,
        encoder=pipeline.encoder,
        new_tokens=pipeline.new_tokens,
        labeler=pipeline.labeler,
        loss=loss,
        prepared=prepared,
        report=_report(settings, prepared, steps if plan.steps is None else plan.steps, plan, pipeline.ref),
        reader=pipeline.reader,
        hold_out=pipeline.hold_out,
        held_out=_held_out(settings, pipeline, max_length),
        prefix_groups=groups,
        notes=_notes(settings, pipeline, prepared, targets, loss),
    )


def _notes(
    settings: TrainSettings, pipeline: Pipeline, prepared: Prepared, targets: Targets | None, loss: Loss | None
) -> list[str]:
    """What is to be told before the training, one line each."""
    notes = []
    if pipeline.new_tokens:
        names = ", ".join(pipeline.encoder.tokenizer.convert_ids_to_tokens(list(pipeline.new_tokens))[:4])
        notes.append(
            f"{settings.student} does not know the chat format {settings.formatter!r}: it has to learn {names} from "
            "these rows (an instruction-tuned student brings a format of its own)"
        )
    notes += [f"{finding.severity}: {finding}" for finding in prepared.findings if finding.severity != "note"]
    if targets is not None and targets.note:
        notes.append(targets.note)
    if prepared.shares.rows:
        notes.append(explain(loss, prepared.shares))
    return notes


def faster_precision(plan: JobPlan) -> str | None:
    """How to train faster on this machine's CPU, where it is measured to be; a line for the user."""
    option = plan.train_plan.bfloat16_option
    if option is None or plan.train_plan.precision != "float32" or best_device() != "cpu":
        return None
    width = getattr(model_config(plan.ref).get_text_config(), "hidden_size", 0)
    gain = describe_gain(bfloat16_gain(width)) if width >= _WIDE else None
    return None if gain is None else f"{gain} on this CPU: {option} trains in mixed precision"


def _prefix_groups(settings: TrainSettings, prepared: Prepared, ref: str) -> Sequence[PrefixGroup]:
    """The rows that begin alike, for `--shared-prefix`; soft labels belong to positions that would be shared."""
    if settings.shared_prefix == "off" or prepared.examples.has_soft_targets:
        return ()
    return group_by_prefix(prepared.examples, model_config(ref).get_text_config().hidden_size)


def _held_out(settings: TrainSettings, pipeline: Pipeline, max_length: int | None) -> Prepared | None:
    """The held-out rows as examples; those that could not be trained either are left out."""
    if pipeline.hold_out is None:
        return None
    rows = read_held_out(settings.data, pipeline.reader, pipeline.hold_out)
    return prepare(
        choose_turns(rows, settings.turns),
        pipeline.encoder,
        pipeline.labeler,
        labeler_name=pipeline.labeler_name,
        max_length=max_length,
        overlong="drop",
    )


def _ask_for_plan(trainer: Trainer, name: str, steps: int) -> TrainPlan:
    """The trainer's own plan; a plain loop's where it has none.

    Raises:
        PluginError: its `plan` fails, or returns something else.
    """
    if not isinstance(trainer, PlanningTrainer):
        return TrainPlan()
    try:
        plan = trainer.plan(steps)
    except DistillError:
        raise
    except Exception as error:
        raise PluginError(f"trainer {name!r} failed in plan(): {type(error).__name__}: {error}") from error
    if not isinstance(plan, TrainPlan):
        raise PluginError(f"trainer {name!r}: plan() returned {type(plan).__name__}, not a TrainPlan")
    return plan


def estimate_of(plan: JobPlan, settings: TrainSettings, note: Callable[[str], None]) -> MemoryEstimate | None:
    """Estimate the training's memory and disk; None, with a note why, where that fails for this student."""
    if settings.packing:
        note("packing is verified when the student is loaded; memory is estimated as if it is packed")
    if plan.prefix_groups:
        note("shared prefixes are verified when the student is loaded; memory is estimated for padded rows")
    if not isinstance(plan.trainer, PlanningTrainer):
        note(f"trainer {settings.trainer!r} does not plan its memory: estimated for float32 and AdamW")
    try:
        return estimate(
            plan.ref,
            settings,
            plan.train_plan,
            largest_batch(settings, plan.prepared.examples),
            saved_in=plan.report.saved_in,
            vocabulary=len(plan.encoder.tokenizer),
            new_tokens=plan.new_tokens,
            checkpoints=1 + settings.checkpoints_kept,
        )
    except DistillError:
        raise
    except Exception as error:  # an architecture that cannot be run without its weights
        note(f"memory and disk cannot be estimated for this student: {type(error).__name__}: {error}")
        return None


def memory_hint(plan: JobPlan, settings: TrainSettings) -> str:
    """What to lower when memory is not enough."""
    batch, longest = settings.per_device_train_batch_size, int(plan.prepared.examples.lengths.max())
    lower = [f"--max-length (the longest example has {longest} tokens)"]
    if settings.batch_tokens is not None:
        lower.insert(0, f"--batch-tokens (it is {settings.batch_tokens})")
    elif batch > 1:
        lower.insert(0, f"--batch-size (it is {batch}; more --accumulation makes up for it)")
    options = [*plan.train_plan.memory_options, *([] if settings.lora else ["--lora"])]
    also = f"; or add {' or '.join(options)}" if options else ""
    return f"lower {' or '.join(lower)}{also}"


def _report(settings: TrainSettings, prepared: Prepared, steps: int, plan: TrainPlan, ref: str) -> TrainReport:
    """What will be trained."""
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
        steps=steps,
        reasons=dict(Counter(skipped.reason for skipped in prepared.skipped)),
        computed_in=plan.precision,
        saved_in=saved_dtype(ref) if settings.dtype == "auto" else settings.dtype,
    )


def _reasons(prepared: Prepared) -> str:
    if not prepared.skipped:
        return "there is none"
    shown = "; ".join(f"{skipped.source}: {skipped.reason}" for skipped in prepared.skipped[:3])
    more = len(prepared.skipped) - 3
    return shown + (f"; and {more} more" if more > 0 else "")

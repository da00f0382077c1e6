"""`train`: read, prepare, load, train, save. The trainers themselves are plugins."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill.dataset.collate import collator_for
from distill.dataset.soft_columns import SoftCollator
from distill.errors import DistillError, PluginError
from distill.files.atomic import utc_now
from distill.files.lock import owned
from distill.models.references import resolve_model
from distill.plugins import PluginManager
from distill.protocols import Collator, Trainer, TrainJob
from distill.runs.checkpoints import step_of
from distill.runs.folder import RunFolder
from distill.runs.manifest import RunManifest
from distill.runs.report import TrainReport
from distill.runs.run import Run, SkippedRow, open_run
from distill.training.checkpoints import RunCheckpoints, clean, find_newest, remove_unfinished
from distill.training.distributed import World, join_world
from distill.training.estimate import largest_batch
from distill.training.evaluation import HeldOutEvaluation
from distill.training.failures import check_finite_row, clear_failures
from distill.training.identity import check_same, describe
from distill.training.kernels.verification import causal_model
from distill.training.lora import add_adapter, check_quantization
from distill.training.losses import CheckedLoss
from distill.training.packing import PackingCollator, packed_attention, verify_packing, without_cache
from distill.training.prepare_job import JobPlan, estimate_of, faster_precision, memory_hint, plan_job
from distill.training.report import model_card, report_page, training_costs
from distill.training.settings import TrainSettings
from distill.training.shared_prefix import SharedPrefixCollator, verify_shared_prefix
from distill.training.student import gathered_student, load_student, save_student
from distill.transcripts.hold_out import read_held_out
from distill.types import PrefixGroup, TrainResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Log = Callable[[Mapping[str, float]], None]
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Run:
    """What `train` was called with, and where it runs."""

    settings: TrainSettings
    manager: PluginManager
    origins: Mapping[str, str]
    folder: RunFolder
    world: World
    on_log: Log
    note: Note


def train(
    settings: TrainSettings,
    manager: PluginManager,
    *,
    resume: bool = False,
    dry_run: bool = False,
    on_log: Log = lambda row: None,
    note: Note = lambda text: None,
    origins: Mapping[str, str] | None = None,
) -> TrainReport:
    """Fine-tune a student on transcripts and write the run folder.

    Started by `torchrun` or `accelerate launch`, the processes train together; the first alone writes and reports.

    Args:
        settings: what, on what, and how.
        manager: the plugins.
        resume: resume from the newest complete checkpoint in the run folder, to the same student that a training never
            stopped would have given; from the beginning where there is no checkpoint yet.
        dry_run: prepare, count and estimate only; no weights are loaded, nothing is written.
        on_log: called after each optimizer step with `step`, `max_steps`, `loss`, `learning_rate`, …
        note: told what is being done, a line at a time.
        origins: setting → where it came from ("command line", "default"), for the manifest.

    Returns:
        The counts of rows and tokens, steps and loss.

    Raises:
        DistillError: anything that keeps it from training; nothing half-made is left as a model.
    """
    with ExitStack() as lock, join_world() as world:
        if not world.is_main:
            on_log, note = (lambda row: None), (lambda text: None)
        run = _Run(settings, manager, origins or {}, RunFolder(settings.out), world, on_log, note)
        with world.together():
            if world.is_main and not dry_run:
                lock.enter_context(owned(settings.out))
            if resume and not dry_run and run.folder.is_finished():
                return _finished(run)
            if not resume and not dry_run:
                run.folder.check_free()
            if settings.lora is not None and settings.lora.quantize:
                check_quantization(None if not dry_run else note)
            if world.is_main:  # it tokenizes; the others find the tokens in the cache
                plan = plan_job(settings, manager, world.size)
        with world.together():
            if not world.is_main:
                plan = plan_job(settings, manager, world.size)
        for line in plan.notes:
            note(line)
        if world.is_main and (faster := faster_precision(plan)) is not None:  # it is measured
            note(faster)
        if dry_run:
            return replace(plan.report, estimate=estimate_of(plan, settings, note))
        return _train(run, plan, resume)


def _finished(run: _Run) -> TrainReport:
    """Answer `resume` for a run whose student is there: nothing is changed."""
    manifest = open_run(run.folder.path).manifest
    report = manifest.report
    ref = resolve_model(run.settings.student, run.manager, run.settings.trust_remote_code)
    now = describe(run.settings, run.manager, ref, None, report, run.origins, run.world.size)
    check_same(manifest, replace(now, examples=manifest.examples), run.folder.path)
    if manifest.state != "finished" and run.world.is_main:  # it was killed after the student was saved
        rows = run.folder.metric_rows()
        report = _with_losses(replace(report, steps=int(rows[-1]["step"])), rows, run.settings)
        _finish(run, report)
    run.note(f"{run.folder.path} is finished: nothing to do")
    return report


def _train(run: _Run, plan: JobPlan, resume: bool) -> TrainReport:
    report, folder, world = plan.report, run.folder, run.world
    run.note(report.counts)
    failures = clear_failures(memory_hint(plan, run.settings), folder.path)
    with world.together():
        manifest, newest = _look(run, plan, resume)
    (step,) = world.highest(-1 if newest is None else step_of(newest))
    with world.together(), failures("loading the student"):
        if step >= 0 and (newest is None or step_of(newest) != step):
            raise DistillError(f"{folder.path} is not the same in all processes", "it must be on a disk they all share")
        if world.is_main:
            skipped = (SkippedRow(one.id, one.source, one.reason, one.code) for one in plan.prepared.skipped)
            folder.start(manifest, skipped, None if newest is None else step)
            _write_held_out(run, plan)
            clean(folder.checkpoints, newest)
        checkpoints, job = _job(run, plan, newest)
        packed = isinstance(job.collate, PackingCollator) if run.settings.packing else None
        report = replace(report, resumed_from=None if newest is None else newest.name, packed=packed)
    began = time.monotonic()
    attention = packed_attention(job.model) if packed else nullcontext()
    with failures("training"), without_cache(job.model), attention:
        result = _fit(run, plan.trainer, job, checkpoints)
    if checkpoints.stopped_at is not None:
        raise _stopped(run, checkpoints)
    with world.together(), failures("saving the student"):
        if world.is_main:
            student = job.model
            if result.state_dict is not None:
                student = gathered_student(run.settings, plan, result.state_dict)
            _check_evaluated(run, job, student)
            report = replace(report, steps=result.steps, loss=result.loss, seconds=time.monotonic() - began)
            report = _save(run, plan, student, report)
            run.manager.notify("training_finished", run=run.settings.out, result=result)
    return report


def _check_evaluated(run: _Run, job: TrainJob, student: PreTrainedModel) -> None:
    """Take the best weights, where they were asked for; warn where the trainer evaluates nothing."""
    evaluation = job.evaluation
    if not isinstance(evaluation, HeldOutEvaluation):
        return
    if evaluation.best_step is None:
        if run.settings.keep == "best" or run.settings.eval_steps or run.settings.patience:
            run.note(
                f"warning: trainer {run.settings.trainer!r} does not evaluate held-out rows; the last student is saved"
            )
    elif (step := evaluation.restore_best(student)) is not None:
        run.note(f"keeping the student of step {step}, with the lowest held-out loss: {evaluation.best_loss:.4f}")


def _write_held_out(run: _Run, plan: JobPlan) -> None:
    settings, hold_out = run.settings, plan.hold_out
    held_out = read_held_out(settings.data, plan.reader, hold_out) if hold_out else ()
    run.folder.write_held_out(held_out, plan.report.held_out_rows)


def _look(run: _Run, plan: JobPlan, resume: bool) -> tuple[RunManifest, Path | None]:
    """Describe the training, and find the checkpoint to resume from; nothing is changed."""
    folder, newest = run.folder, None
    manifest = describe(
        run.settings, run.manager, plan.ref, plan.prepared.examples, plan.report, run.origins, run.world.size
    )
    before = folder.manifest() if resume else None
    if before is not None:
        check_same(before, manifest, folder.path)
        found = find_newest(folder.checkpoints)
        newest = found.newest
        for line in found.notes:
            run.note(line)
        resumed = (*before.resumed, newest.name if newest is not None else None)
        manifest = replace(manifest, started=before.started, resumed=resumed)
    if resume:
        run.note(f"resuming from {newest}" if newest else "there is no checkpoint yet: starting at the beginning")
    return manifest, newest


def _job(run: _Run, plan: JobPlan, newest: Path | None) -> tuple[RunCheckpoints, TrainJob]:
    settings, tokenizer, lora = run.settings, plan.encoder.tokenizer, run.settings.lora
    model = load_student(settings, plan, quantize=lora is not None and lora.quantize)
    if lora is not None:
        model = add_adapter(model, lora, plan.new_tokens)
    groups = _prefix_groups(run, plan, model)
    collate = _collator(run, plan, model)
    if groups:
        collate = SharedPrefixCollator.for_model(collate, model)
    checkpoints = RunCheckpoints(
        run.folder.checkpoints,
        run.world,
        save_steps=settings.save_steps,
        limit=settings.checkpoints_kept,
        size=3 * sum(weight.nbytes for weight in model.parameters() if weight.requires_grad),  # with Adam's moments
        resume_from=newest,
        note=run.note,
    )
    return checkpoints, TrainJob(
        model=model,
        tokenizer=tokenizer,
        examples=plan.prepared.examples,
        collate=collate,
        prefix_groups=groups,
        output_dir=run.folder.checkpoints,
        checkpoints=checkpoints,
        epochs=settings.epochs,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        batch_tokens=settings.batch_tokens,
        evaluation=_evaluation(run, plan, model, newest),
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps or math.ceil((settings.warmup_ratio or 0) * plan.report.steps),
        weight_decay=settings.weight_decay,
        loss=None if plan.loss is None else CheckedLoss(plan.loss),
    )


def _evaluation(run: _Run, plan: JobPlan, model: PreTrainedModel, newest: Path | None) -> HeldOutEvaluation | None:
    """The held-out rows to evaluate on, with what was evaluated before training was stopped."""
    settings, held_out = run.settings, plan.held_out
    if held_out is None or not len(held_out.examples):
        return None
    longest = int(held_out.examples.lengths.max())
    rows = settings.per_device_train_batch_size
    if settings.batch_tokens is not None:
        rows = max(1, settings.batch_tokens // longest)
    evaluation = HeldOutEvaluation(
        held_out.examples,
        collator_for(plan.labeler, plan.encoder.tokenizer.pad_token_id),
        model,
        run.world,
        batch_rows=rows,
        every=settings.eval_steps,
        patience=settings.patience,
        best=run.folder.paths.best if settings.keep == "best" else None,
    )
    if newest is not None:
        evaluation.resume(row for row in run.folder.metric_rows() if row["step"] <= step_of(newest))
    return evaluation


def _prefix_groups(run: _Run, plan: JobPlan, model: PreTrainedModel) -> Sequence[PrefixGroup]:
    """The rows to lay on common prefixes, where the student is verified to compute the same."""
    if run.settings.shared_prefix == "off":
        return ()
    examples = plan.prepared.examples
    if examples.has_soft_targets:
        run.note("shared prefixes: not with soft labels; rows are padded")
        return ()
    if not plan.prefix_groups:
        run.note("shared prefixes: no rows begin alike for long enough; rows are padded")
        return ()
    reason = verify_shared_prefix(model, int(examples.lengths.max()))
    if reason is not None:
        run.note(f"warning: rows are padded, prefixes are not shared: {type(causal_model(model)).__name__} {reason}")
        return ()
    rows = sum(len(group.rows) for group in plan.prefix_groups)
    run.note(f"shared prefixes: {rows} of {len(examples)} rows, on {len(plan.prefix_groups)} prefixes")
    return plan.prefix_groups


def _collator(run: _Run, plan: JobPlan, model: PreTrainedModel) -> Collator:
    """The labeler's collator; packing, where the student is verified to keep packed rows apart."""
    collate = collator_for(plan.labeler, plan.encoder.tokenizer.pad_token_id)
    if plan.prepared.examples.has_soft_targets:
        collate = SoftCollator(collate)
    if not run.settings.packing:
        return collate
    reason = verify_packing(model, largest_batch(run.settings, plan.prepared.examples).longest)
    if reason is None:
        return PackingCollator(collate)
    run.note(f"warning: rows are padded, not packed: {type(model).__name__} {reason}")
    return collate


def _fit(run: _Run, trainer: Trainer, job: TrainJob, checkpoints: RunCheckpoints) -> TrainResult:
    """Run the trainer, checking its numbers, and watching for signals."""
    with run.folder.metrics() if run.world.is_main else nullcontext(lambda row: None) as write, checkpoints.signals():

        def log(row: Mapping[str, float]) -> None:
            try:
                check_finite_row(row, checkpoints.newest())
            except DistillError as error:
                if run.world.is_main:
                    raise
                sys.exit(error.exit_code)  # every process has the same loss; the first one says so
            write(row)
            run.on_log(row)

        try:
            result = trainer.train(job, log)
        except BaseException:
            if run.world.is_main:
                remove_unfinished(run.folder.checkpoints)
            raise
    if not isinstance(result, TrainResult):
        raise PluginError(f"trainer {run.settings.trainer!r} returned {type(result).__name__}, not a TrainResult")
    resumed = checkpoints.resume_from is not None  # perhaps after its last step
    if isinstance(job.loss, CheckedLoss) and result.steps and not resumed and not job.loss.called:
        raise PluginError(
            f"trainer {run.settings.trainer!r} did not use the loss {run.settings.loss!r}",
            "it must train within distill.fast_training(job.model, job.loss)",
        )
    return result


def _stopped(run: _Run, checkpoints: RunCheckpoints) -> DistillError:
    """A signal stopped the training: raise it again for the handler that was there before, which ends the command."""
    step = checkpoints.stopped_at
    run.note(f"stopped after step {step}; the same command with --resume continues from there")
    signal.raise_signal(checkpoints.signum)
    return DistillError(f"training was stopped after step {step}", "--resume continues from there")


def _save(run: _Run, plan: JobPlan, student: PreTrainedModel, report: TrainReport) -> TrainReport:
    run.note("saving the student")
    if rows := run.folder.metric_rows():
        report = _with_losses(report, rows, run.settings)
    report = replace(report, saved_in=save_student(run.folder, run.settings, plan, student, _card(run, report)))
    _finish(run, report)
    return report


def _card(run: _Run, report: TrainReport) -> str:
    opened = open_run(run.folder.path)
    return model_card(run.settings, report, opened.manifest.student, opened.teachers)


def _report(run: _Run, manifest: RunManifest) -> str:
    finished = Run(run.folder.path, manifest)
    return report_page(finished, training_costs(finished, run.manager))


def _finish(run: _Run, report: TrainReport) -> None:
    """Write what follows the student: the pages, and the final manifest."""
    manifest = replace(open_run(run.folder.path).manifest, state="finished", finished=utc_now(), report=report)
    run.folder.write_pages(_card(run, report), _report(run, manifest))
    run.folder.finish(manifest, keep_checkpoints=run.settings.save_total_limit is not None)


def _with_losses(report: TrainReport, rows: Sequence[Mapping[str, float]], settings: TrainSettings) -> TrainReport:
    """The report with the losses of the whole training, however often it was stopped."""
    report = replace(report, loss=_mean_loss(rows))
    evaluated = [row for row in rows if "eval_loss" in row]
    if not evaluated:
        return report
    if settings.keep == "best":
        best = min(evaluated, key=lambda row: row["eval_loss"])
        return replace(report, held_out_loss=best["eval_loss"], best_step=int(best["step"]))
    return replace(report, held_out_loss=evaluated[-1]["eval_loss"])


def _mean_loss(rows: Sequence[Mapping[str, float]]) -> float:
    """The mean over all steps; a row counts for the steps since the row before."""
    total, before = 0.0, 0.0
    for row in rows:
        if "loss" in row:
            total += row["loss"] * (row["step"] - before)
            before = row["step"]
    return total / before

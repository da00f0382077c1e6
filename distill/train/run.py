"""`train`: read, prepare, load, train, save. The trainers themselves are plugins."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill.collate import collator_for
from distill.encode import Encoder
from distill.errors import DataError, DistillError, PluginError
from distill.formats import make_formatter, make_labeler
from distill.models import load_model, load_tokenizer, max_positions, resolve_model
from distill.plugins import PluginManager
from distill.prepare import Prepared, prepare
from distill.protocols import Labeler, TrainJob
from distill.specs import make_options
from distill.student import grow_embeddings, prepare_tokenizer, set_special_ids
from distill.train.batching import batch_sampler
from distill.train.folder import RunFolder
from distill.train.settings import TrainReport, TrainSettings
from distill.transcripts import read_transcripts
from distill.types import TrainResult, Transcript

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Log = Callable[[Mapping[str, float]], None]


def train(
    settings: TrainSettings,
    manager: PluginManager,
    *,
    dry_run: bool = False,
    on_log: Log = lambda row: None,
    note: Callable[[str], None] = lambda text: None,
    origins: Mapping[str, str] | None = None,
) -> TrainReport:
    """Fine-tune a student on transcripts and write the run folder.

    Args:
        settings: what, on what, and how.
        manager: the plugins.
        dry_run: prepare and count only; no weights are loaded, nothing is written.
        on_log: called after each optimizer step with `step`, `max_steps`, `loss`, `learning_rate`, …
        note: told what is being done, a line at a time.
        origins: setting → where it came from ("command line", "default"), for the manifest.

    Returns:
        The counts of rows and tokens, steps and loss.

    Raises:
        DistillError: anything that keeps it from training; nothing half-made is left as a model.
    """
    manager.formatters.get(settings.formatter), manager.labelers.get(settings.labeler)  # a wrong name fails first
    trainer_spec = manager.trainers.get(settings.trainer)
    trainer = trainer_spec.build(make_options(trainer_spec, settings.trainer_options, "trainer"))
    folder = RunFolder(settings.out)
    if not dry_run:
        folder.check_free()
    ref = resolve_model(settings.student, manager)
    formatter = make_formatter(settings.formatter, settings.formatter_options, manager)
    encoder = prepare_tokenizer(load_tokenizer(ref), formatter, settings.formatter)
    labeler = make_labeler(settings.labeler, settings.labeler_options, manager, encoder)
    prepared = prepare(
        _read(settings.data),
        encoder,
        labeler,
        labeler_name=settings.labeler,
        max_length=settings.max_length or max_positions(ref),
        overlong=settings.overlong,
    )
    report = _report(settings, prepared)
    if not prepared.examples:
        raise DataError(f"no row can be trained: {_reasons(prepared)}", "look at them with `distill show`")
    if dry_run:
        return report
    note(f"{report.trained_rows} of {report.rows} rows, {report.trained_tokens} trained tokens, {report.steps} steps")
    folder.start(settings, manager, prepared, report, origins or {})
    job = _job(settings, ref, encoder, labeler, prepared, folder)
    began = time.monotonic()
    with folder.metrics() as write:
        result = trainer.train(job, lambda row: (write(row), on_log(row)))
    if not isinstance(result, TrainResult):
        raise PluginError(f"trainer {settings.trainer!r} returned {type(result).__name__}, not a TrainResult")
    seconds = time.monotonic() - began
    note("saving the student")
    _check_weights(job.model)
    set_special_ids(job.model, encoder.tokenizer, encoder.stop_token_id())
    report = replace(report, steps=result.steps, loss=result.loss, seconds=seconds)
    folder.finish(job.model, encoder.tokenizer, settings, report)
    manager.notify("training_finished", run=settings.out, result=result)
    return report


def _read(paths: tuple[Path, ...]) -> Iterator[Transcript]:
    for path in paths:
        empty = True
        for transcript in read_transcripts(path):
            empty = False
            yield transcript
        if empty:
            raise DataError(f"{path} is empty", "give a file of transcripts; `distill collect` makes one")


def _job(
    settings: TrainSettings, ref: str, encoder: Encoder, labeler: Labeler, prepared: Prepared, folder: RunFolder
) -> TrainJob:
    from transformers import set_seed

    set_seed(settings.seed)  # new embedding rows are random
    model = load_model(ref)
    grow_embeddings(model, encoder.tokenizer)
    set_special_ids(model, encoder.tokenizer, encoder.stop_token_id())
    return TrainJob(
        model=model,
        tokenizer=encoder.tokenizer,
        examples=prepared.examples,
        collate=collator_for(labeler, encoder.tokenizer.pad_token_id),
        output_dir=folder.path / "checkpoints",
        epochs=settings.epochs,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        batch_tokens=settings.batch_tokens,
    )


def _check_weights(model: PreTrainedModel) -> None:
    """Publish nothing that holds NaN or infinity."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise DistillError(
                f"after training, {name} holds values that are not finite; no model was written",
                "lower --learning-rate",
            )


def _report(settings: TrainSettings, prepared: Prepared) -> TrainReport:
    """What will be trained, with the steps it takes."""
    lengths = [len(example.input_ids) for example in prepared.examples]
    steps = math.ceil(batch_sampler(settings, lengths).steps * settings.epochs)
    return TrainReport(
        out=str(settings.out),
        rows=prepared.rows,
        trained_rows=prepared.trained_rows,
        skipped_rows=len(prepared.skipped),
        split_rows=prepared.split,
        truncated=prepared.truncated,
        examples=len(prepared.examples),
        tokens=sum(lengths),
        trained_tokens=sum(example.trained_tokens for example in prepared.examples),
        steps=steps,
        reasons=dict(Counter(skipped.reason for skipped in prepared.skipped)),
    )


def _reasons(prepared: Prepared) -> str:
    if not prepared.skipped:
        return "there is none"
    shown = "; ".join(f"{skipped.source}: {skipped.reason}" for skipped in prepared.skipped[:3])
    more = len(prepared.skipped) - 3
    return shown + (f"; and {more} more" if more > 0 else "")

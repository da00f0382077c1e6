"""The conformance suite of trainers: what `distill.Trainer` promises, on a tiny student."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from distill.dataset.collate import PaddingCollator
from distill.dataset.prepare import prepare
from distill.encode.tokenizer import prepare_tokenizer
from distill.models.special_tokens import set_special_ids
from distill.plugins import make_formatter, make_plugin_manager
from distill.protocols import PlanningTrainer, Trainer, TrainJob
from distill.testing.checks import Check, assert_all, broken
from distill.testing.conversations import CONVERSATIONS
from distill.testing.students import tiny_llama
from distill.testing.tokenizers import TOKENIZERS
from distill.types import IGNORE_INDEX, Encoded, TrainPlan, TrainResult, Transcript

_CHATS = ("one turn", "two turns", "system", "other scripts")
EPOCHS = 3


def tiny_job(output_dir: Path, *, seed: int = 0, masked: bool = True) -> TrainJob:
    """A job as trainers get it: a random Llama of a few thousand weights, four chats in one batch, three epochs.

    Args:
        output_dir: a folder for the trainer's files.
        seed: of weights and training.
        masked: whether only the assistant's tokens count, or all.
    """
    formatter = make_formatter("chat-template", manager=make_plugin_manager(environ={"DISTILL_PLUGINS": ""}))
    encoder = prepare_tokenizer(TOKENIZERS["chatml"](), formatter, "chat-template")
    transcripts = [Transcript(name, CONVERSATIONS[name]) for name in _CHATS]
    prepared = prepare(transcripts, encoder, _Masked() if masked else _Copy())
    model = tiny_llama(encoder.tokenizer, seed=seed)
    set_special_ids(model, encoder.tokenizer, encoder.stop_token_id())
    return TrainJob(
        model=model,
        tokenizer=encoder.tokenizer,
        examples=prepared.examples,
        collate=PaddingCollator(encoder.tokenizer.pad_token_id),
        output_dir=output_dir,
        epochs=EPOCHS,
        per_device_train_batch_size=len(prepared.examples),
        gradient_accumulation_steps=1,
        learning_rate=1e-3,
        seed=seed,
    )


class _Masked:
    def label(self, encoded: Encoded) -> list[int]:
        marks = zip(encoded.input_ids, encoded.assistant_mask, strict=True)
        return [token if wrote else IGNORE_INDEX for token, wrote in marks]


class _Copy:
    def label(self, encoded: Encoded) -> list[int]:
        return list(encoded.input_ids)


def check_trainer(build: Callable[[], Trainer], *, trains: bool = True) -> None:
    """Hold a trainer to its contract: it is built and run a few times on `tiny_job`s.

    Args:
        build: makes the trainer, as the spec's does: `lambda: spec.build(options)`.
        trains: whether it means to change the weights; one that only writes a data set does not.

    Raises:
        AssertionError: names each broken promise, and what to do.
    """
    assert_all(trainer_checks(build, trains=trains))


def trainer_checks(build: Callable[[], Trainer], trains: bool | None = None) -> list[Check]:
    """The checks of `check_trainer`, one by one. `trains=None`: to leave the weights alone is worth a remark."""
    suite = _Suite(build, trains)
    return [
        Check("it reports its steps and loss as a TrainResult", suite.result),
        Check("standard output is left to the command", suite.silent),
        Check("it changes the weights, in place, to finite ones", suite.weights),
        Check("each step is logged, with step, loss and learning_rate", suite.logged),
        Check("its first loss is the mean over the labels that count, and over no others", suite.loss),
        Check("the same seed gives the same losses", suite.repeats),
        Check("its plan, where it has one, is what it does", suite.plan),
    ]


@dataclass(frozen=True, slots=True)
class _Run:
    """One training: what it was given, said, logged and gave back."""

    before: float
    changed: bool
    finite: bool
    result: TrainResult
    log: list[Mapping[str, float]]
    out: str


class _Suite:
    """Trainings of one trainer, each done once, by the first check that needs it."""

    def __init__(self, build: Callable[[], Trainer], trains: bool | None):
        self.build = build
        self.trains = trains

    @cached_property
    def masked(self) -> _Run:
        return self._run(masked=True)

    @cached_property
    def unmasked(self) -> _Run:
        return self._run(masked=False)

    def _run(self, masked: bool) -> _Run:
        import torch

        trainer = self.build()
        has = callable(getattr(trainer, "train", None))
        assert has, f"{type(trainer).__name__} has no method train; see `distill.Trainer`"
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as out:
            job = tiny_job(Path(folder) / "checkpoints", masked=masked)
            with torch.no_grad():
                job.model.get_output_embeddings().weight.mul_(20)  # sure of itself, so that each token's loss differs
            expected = _loss(job)
            old = {name: weight.detach().clone() for name, weight in job.model.named_parameters()}
            log: list[Mapping[str, float]] = []
            result = trainer.train(job, log.append)
            new = {name: weight.detach().cpu() for name, weight in job.model.named_parameters()}
            same = old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
            finite = all(bool(weight.isfinite().all()) for weight in new.values())
        return _Run(expected, not same, finite, result, log, out.getvalue())

    def result(self) -> None:
        result = self.masked.result
        assert isinstance(result, TrainResult), f"train() returned a {type(result).__name__}, not a TrainResult"
        if self.masked.changed:
            assert result.steps == EPOCHS, f"{EPOCHS} epochs of one batch are {EPOCHS} steps, not {result.steps}"
            assert result.loss is not None and math.isfinite(result.loss), f"the loss is {result.loss}"

    def silent(self) -> None:
        assert not self.masked.out, f"it prints {self.masked.out[:200]!r}; print to sys.stderr, or not at all"

    def weights(self) -> None:
        assert self.masked.finite, "the weights hold NaN or infinity"
        if not self.masked.changed and self.trains is not False:
            broken("the weights are as before; train job.model itself", remark=self.trains is None)

    def logged(self) -> None:
        if not self.masked.changed:
            return
        steps = [row.get("step") for row in self.masked.log]
        assert steps == list(range(1, EPOCHS + 1)), f"on_log saw the steps {steps}, not 1 to {EPOCHS}"
        for row in self.masked.log:
            missing = {"loss", "learning_rate"} - set(row)
            assert not missing, f"the log of step {row['step']} has no {', '.join(sorted(missing))}"

    def loss(self) -> None:
        for what, run in (("masked", self.masked), ("all tokens", self.unmasked)):
            if not run.changed:
                return
            first = run.log[0]["loss"]
            assert math.isclose(first, run.before, rel_tol=5e-3), (
                f"labels {what}: the first loss is {first:.4f}, but the mean over the labels that are not "
                f"{IGNORE_INDEX} is {run.before:.4f}; make batches with job.collate, and take the labels as they are"
            )

    def repeats(self) -> None:
        first, again = ([row["loss"] for row in run.log] for run in (self.masked, self._run(masked=True)))
        assert first == again, f"losses {first}, and then {again}; seed with job.seed"

    def plan(self) -> None:
        trainer = self.build()
        if not isinstance(trainer, PlanningTrainer):
            return
        plan = trainer.plan(EPOCHS)
        assert isinstance(plan, TrainPlan), f"plan() returned a {type(plan).__name__}, not a TrainPlan"
        done = self.masked.result.steps
        assert plan.steps in (None, done), f"plan() names {plan.steps} steps, but train() did {done}"


def _loss(job: TrainJob) -> float:
    """The mean loss of the one batch, before training."""
    import torch

    batch = job.collate([{"input_ids": row.input_ids, "labels": row.labels} for row in job.examples])
    with torch.inference_mode():
        logits = job.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return torch.nn.functional.cross_entropy(flat, batch["labels"][:, 1:].reshape(-1)).item()

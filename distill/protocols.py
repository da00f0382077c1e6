"""Protocols for plugin components: what a plugin's teacher, formatter, labeler or trainer must offer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from distill.types import (
    Answer,
    Encoded,
    Example,
    ExportJob,
    Message,
    PrefixGroup,
    Request,
    Segment,
    SoftBatch,
    TrainPlan,
    TrainResult,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Collator = Callable[[Sequence[Mapping[str, Any]]], "dict[str, Tensor]"]
"""Rows `{input_ids, labels}` in; a batch `{input_ids, attention_mask, labels}`, each (rows, longest), out.

With `train --packing` the batch is one row, with `position_ids` in place of the mask; give the model all of it.
"""


@runtime_checkable
class Teacher(Protocol):
    """Answers one request at a time. The collector calls `ask` for many requests at once."""

    def ask(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer the request.

        `async def` runs on the collector's event loop; a plain `def` runs in a worker thread.
        An optional `close()` (plain or async) is called once, when the collection ends. An optional `servers()`, called
        before it, gives counts per server (`{"http://…": {"answered": 9, "failed": 1}}`) for the summary.

        Raises:
            TeacherError: no answer; its flags tell whether to retry and whether to stop the run.
        """
        ...


@runtime_checkable
class BatchTeacher(Protocol):
    """Answers many requests in one call: for models that run in this process.

    Attributes:
        batch_size: the most requests of one call.
    """

    batch_size: int

    def ask_batch(self, requests: Sequence[Request]) -> Sequence[Answer | Exception]:
        """Answer the requests, in their order; called from one worker thread, never twice at a time.

        Returns:
            For each request an Answer, or the TeacherError that takes its place.
        """
        ...


@runtime_checkable
class BatchFileTeacher(Protocol):
    """A teacher whose questions and answers can also go through files: `collect --batch` and `--batch-answers`.

    Both methods are offered beside `ask`. A file's format is that of OpenAI's batches: one JSON object per line, whose
    `custom_id` is the row's id.
    """

    def batch_request(self, id: str, request: Request) -> Mapping[str, Any]:
        """The line that asks the request, with `id` as its `custom_id`."""
        ...

    def batch_answer(self, row: Mapping[str, Any]) -> Answer:
        """The answer in a line of an answer file.

        Raises:
            TeacherError: the line holds none.
        """
        ...


@runtime_checkable
class ScoringTeacher(Protocol):
    """A teacher that can read answers which are there already, and tell how likely it finds them.

    Attributes:
        batch_size: the most requests per call.
    """

    batch_size: int

    def score_batch(self, requests: Sequence[Request], logprobs: int) -> Sequence[Mapping[str, Any] | Exception]:
        """Score answers.

        Args:
            requests: each ends with the answer to score.
            logprobs: how many likeliest tokens per place.

        Returns:
            Per request, what `distill.pack_logprobs` makes, with `LogprobsOrigin(scored=True)`; or a DistillError.
        """
        ...


@runtime_checkable
class ScoringServer(Protocol):
    """As `ScoringTeacher`, one answer at a time: for servers."""

    async def score(self, request: Request, logprobs: int) -> Answer:
        """Give the answer with which the request ends, with its `logprobs` and the `usage` of this request.

        Raises:
            TeacherError: it could not be scored; its flags tell whether to retry and whether to stop the run.
        """
        ...


@runtime_checkable
class Formatter(Protocol):
    """Turns a conversation into text, and tells who wrote each piece. It never tokenizes."""

    def special_tokens(self, tokenizer: PreTrainedTokenizerFast) -> Sequence[str]:
        """Name the tokens the format needs as single control tokens; the engine adds the missing ones."""
        ...

    def chat_template(self, tokenizer: PreTrainedTokenizerFast) -> str | dict[str, str] | None:
        """Give the format as a Jinja chat template, which is saved with the student.

        It must render the same text as `segments`; the engine verifies it. None: the format has no such template,
        and the student can be used only where this plugin is installed. A format with several templates gives them
        by name, `default` and perhaps `tool_use`, as transformers keeps them.
        """
        ...

    def segments(
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerFast,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[Segment]:
        """Render the conversation.

        Args:
            messages: the conversation.
            tokenizer: the student's, for the spelling of its special tokens; not to tokenize with.
            tools: tool definitions in OpenAI's shape.
            add_generation_prompt: whether to end where the assistant starts to write. For messages up to an
                assistant message, the result must be a prefix of the segments of the conversation with that message.

        Raises:
            DataError: this conversation cannot be put in this format (the row is counted and named).
        """
        ...


@runtime_checkable
class Labeler(Protocol):
    """Decides which tokens count in the loss."""

    def label(self, encoded: Encoded) -> list[int]:
        """Label a conversation.

        Returns:
            As many labels as `input_ids`, unshifted: the token's own id where it counts, -100 where it does not.
        """
        ...


@runtime_checkable
class CollatingLabeler(Labeler, Protocol):
    """A labeler whose labels are made when a batch is collated; `label` shows what they will be for one row."""

    def collator(self, pad_token_id: int) -> Collator:
        """Give the collator the trainer is to use instead of the padding one."""
        ...


Verdict = Literal["go on", "save", "stop"]
"""After an optimizer step: continue; write a checkpoint and continue; write a checkpoint and stop."""


class Checkpoints(Protocol):
    """Where a training may stop, and from where it resumes, exactly.

    Attributes:
        resume_from: a checkpoint the trainer wrote, whole and verified, to resume from; None: start at the beginning.
    """

    resume_from: Path | None

    def after_step(self, step: int, *, max_steps: int, epoch_end: bool) -> Verdict:
        """Say what to do; to be called after each optimizer step, in every process.

        Args:
            step: optimizer steps done since the training began, before it was ever stopped.
            max_steps: how many there will be at its end.
            epoch_end: whether the step was an epoch's last.
        """
        ...

    def seal(self, folder: Path) -> None:
        """Make a checkpoint count: to be called, in every process, when all its files are written.

        Args:
            folder: `TrainJob.output_dir / f"checkpoint-{step}"`.
        """
        ...


class NoCheckpoints:
    """For a training that is neither stopped nor resumed."""

    resume_from: Path | None = None

    def after_step(self, step: int, *, max_steps: int, epoch_end: bool) -> Verdict:
        """Always continues."""
        return "go on"

    def seal(self, folder: Path) -> None:
        """Does nothing: no checkpoint is ever written."""


class Evaluation(Protocol):
    """Held-out rows to measure the student on while it is trained."""

    @property
    def stop(self) -> bool:
        """Whether training is to end here: the held-out loss has not improved for `--patience` evaluations."""
        ...

    def due(self, step: int, *, epoch_end: bool) -> bool:
        """Whether to evaluate after this optimizer step; the same in every process.

        Args:
            step: optimizer steps done since the training began, before it was ever stopped.
            epoch_end: whether the step was an epoch's last, or the training's.
        """
        ...

    def measure(self, step: int) -> Mapping[str, float]:
        """Evaluate `TrainJob.model`; to be called in every process.

        The model is left unchanged. Where `--keep best` is given, its weights are kept if they are the best so far.

        Returns:
            `eval_loss` and `eval_agreement`, to be passed to `on_log` together with `step`.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrainJob:
    """All a trainer needs: the model is loaded, the examples are labelled and checked.

    Attributes:
        model: the student, its embedding table already large enough for the tokenizer.
        tokenizer: the student's tokenizer.
        examples: the training rows, in order; every one has at least one trained token.
        collate: makes a batch of rows `{input_ids, labels}`.
        output_dir: a folder for the trainer's own files, its checkpoints above all.
        epochs: passes over the examples.
        per_device_train_batch_size: sequences per device and forward pass.
        gradient_accumulation_steps: forward passes per optimizer step.
        learning_rate: the peak learning rate.
        seed: for shuffling and dropout.
        batch_tokens: instead of a number of sequences, the token budget per device and forward pass, padding included.
        checkpoints: when to write one, when to stop, and what to resume from.
        evaluation: held-out rows to measure the student on; None: there are none.
        lr_scheduler_type: the learning rate's schedule, by transformers' name (`linear`, `cosine`, `constant`, …).
        warmup_steps: optimizer steps in which the learning rate rises from 0 to its peak.
        weight_decay: of the optimizer, for weights that are no biases or norms.
        loss: what the student is pulled towards, for `distill.fast_training(model, loss)`; None: the cross-entropy.
        prefix_groups: rows that begin alike, for `--shared-prefix`; `distill.data_loader` batches them together.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    examples: Sequence[Example]
    collate: Collator
    output_dir: Path
    epochs: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    seed: int
    batch_tokens: int | None = None
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    evaluation: Evaluation | None = None
    lr_scheduler_type: str = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    loss: Loss | None = None
    prefix_groups: Sequence[PrefixGroup] = ()

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example; where the examples are on disk, without reading them."""
        known = getattr(self.examples, "lengths", None)
        return [len(example.input_ids) for example in self.examples] if known is None else known.tolist()


@runtime_checkable
class Loss(Protocol):
    """What the student's distribution is pulled towards, position by position.

    A loss is called with the positions that count only, some at a time; the sums are added up and divided by the number
    of trained tokens of the optimizer step, for every loss alike. The calls of a batch come in the order of its
    positions, and no chunk (`SoftBatch.size`) is spread over two of them.
    """

    def sum(self, logits: Tensor, labels: Tensor, soft: SoftBatch | None) -> Tensor:
        """Sum the loss over some positions.

        Args:
            logits: (positions, vocabulary), of the student; they may be overwritten.
            labels: (positions,), the token that follows each position.
            soft: the teacher's part; None where the loss does not ask for it (`LossSpec.soft_labels`).

        Returns:
            A scalar in float32, which can be differentiated once.
        """
        ...


@runtime_checkable
class ExplainingLoss(Loss, Protocol):
    """A loss that tells the user what it does with the data at hand."""

    def explain(self, rows: int, plain_rows: int) -> str:
        """Tell it in a clause.

        Args:
            rows: training rows with soft targets.
            plain_rows: those of them whose answers were sampled at temperature 1 and top-p 1.
        """
        ...


@runtime_checkable
class Trainer(Protocol):
    """Fine-tunes the student in place."""

    def train(self, job: TrainJob, on_log: Callable[[Mapping[str, float]], None]) -> TrainResult:
        """Train `job.model` on `job.examples`.

        `distill.data_loader(job)` gives batches of similar length. `with distill.fast_training(job.model, job.loss):`
        around the loop brings in the job's loss, and makes its steps take less time and memory. The built-in trainers
        use both.

        Args:
            job: the model, the data and the settings.
            on_log: to be called after each optimizer step with at least `step`, `loss` and `learning_rate`, and after
                each evaluation with `step` and what `job.evaluation.measure` returned. It raises when a value is not
                finite; let it through.
        """
        ...


@runtime_checkable
class PlanningTrainer(Trainer, Protocol):
    """A trainer that can describe a training beforehand. Without it, `--dry-run` assumes a plain loop."""

    def plan(self, steps: int) -> TrainPlan:
        """Describe the training that the trainer's options make.

        Args:
            steps: optimizer steps of `--epochs`.
        """
        ...


@runtime_checkable
class Exporter(Protocol):
    """Writes a trained student in a shape that another program loads."""

    def export(self, job: ExportJob) -> Sequence[str]:
        """Write files into `job.out`.

        Verify what was written as far as it can be read back: an export that is not the student is an error.

        Returns:
            Notes for the user, one line each: what was verified, and what could not be.

        Raises:
            DistillError: the student cannot be written in this shape; nothing is left at `--out`.
        """
        ...

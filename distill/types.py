"""Value types shared by all packages: frozen, and free of any framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

IGNORE_INDEX = -100
"""The label of a token that does not count in the loss (PyTorch's and Hugging Face's value)."""

ROLES = ("system", "user", "assistant", "tool")

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks.
        content: the text; None only where there are tool calls or a refusal instead.
        reasoning_content: the reasoning a teacher gave before its answer.
        tool_calls: the calls in OpenAI's shape.
        tool_call_id: which call a `tool` message answers.
        name: an author's name, where the API has one.
        refusal: the text of a refusal.
        train: whether an assistant message counts in the loss (`weight: 0` or `train: false` in a file clear it).
        reasoning_details: the reasoning in a server's own parts, signatures and encrypted parts included: what goes
            back to the server. It is never trained; `reasoning_content` is its text.
    """

    role: Role
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None
    train: bool = True
    reasoning_details: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row was read: `str(source)` is `file:line`, as errors print it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a teacher is asked: `messages` first, then each of `followups` after the answer before it.

    Attributes:
        messages: the conversation up to the first answer.
        followups: user messages, each asked after the answer to the one before.
        tools: tool definitions in OpenAI's shape.
        id: the user's own name for it.
        metadata: whatever the user wants to keep with the row.
        source: where it was read.
        params: parameters of this prompt alone, such as `temperature`; they count before the common ones.
        teacher_messages: what only the teacher sees, before `messages`: a long task description, examples. The student
            is neither trained on it nor given it.
    """

    messages: Sequence[Message]
    followups: Sequence[Message] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    teacher_messages: Sequence[Message] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """One finished conversation with its metadata: one JSONL line."""

    id: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Params:
    """How a teacher is to answer; part of a transcript's id.

    Attributes:
        max_tokens: the longest answer, in the teacher's tokens; None leaves it to the teacher.
        temperature: 0 is greedy; None leaves it to the teacher.
        seed: the sampling seed; sample number `n` of a prompt uses `seed + n`.
        extra: further parameters of a prompt, such as `top_p` or `response_format`, by the server's names. Only
            teachers whose spec sets `any_params` see them.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a teacher: the conversation so far, ending before the answer."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    params: Params = Params()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A teacher's answer to one request.

    Attributes:
        message: the assistant message.
        finish_reason: `stop`, `length` (a cut answer), `tool_calls`, `content_filter` or the server's own word for it.
        usage: token counts as the server gave them.
        model: the model id as answered.
        logprobs: of each token of the answer, as `distill.pack_logprobs` makes it. Goes into the row's
            `metadata.logprobs`, one object per answer.
    """

    message: Message
    finish_reason: str | None = "stop"
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    logprobs: Mapping[str, Any] | Sequence[Any] | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered conversation and who wrote it.

    Attributes:
        text: the piece; joined, the pieces are the whole text.
        content: True for a message's own text (it never becomes a control token), False for the template's.
        role: whose message it belongs to; None for template text between messages.
        turn: index of the message it belongs to in the conversation; -1 for none.
        end_of_turn: True for the template text by which an assistant message ends, where generation stops.
        reasoning: True for an assistant's thinking before its answer, and the template's text that frames it.
    """

    text: str
    content: bool = False
    role: Role | None = None
    turn: int = -1
    end_of_turn: bool = False
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation in tokens. All lists have one entry per token.

    Attributes:
        input_ids: the token ids.
        assistant_mask: 1 where the assistant wrote the token, its end-of-turn marker included; else 0.
        end_of_turn: 1 where the token belongs to an assistant's end-of-turn marker; else 0.
        turn: index of the message whose text the token holds; -1 for template text.
        reasoning: 1 where the token belongs to an assistant's thinking before its answer; else 0.
    """

    input_ids: list[int]
    assistant_mask: list[int]
    end_of_turn: list[int]
    turn: list[int]
    reasoning: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class SoftTargets:
    """What the teacher held likely at the tokens of a row.

    A token's kind says how it relates to the teacher's tokens: 0 it has no teacher, 1 (exact) it is one of the
    teacher's tokens, 2 (chunk) it is part of a stretch that several tokens of either side make up.

    Attributes:
        kind: (tokens,) int8.
        size: (tokens,) int16: at the last token of a chunk (of one token, where exact), how many tokens it has; else 0.
        logprob: (tokens,) float32: at the same places, the teacher's log-likelihood of the chunk; NaN: not known.
        ids: (exact tokens, K) int32: the likeliest tokens there, as the student's ids, likeliest first; -1: none.
        logprobs: (exact tokens, K) float32: their log probabilities, of the teacher's whole distribution.
        plain: whether the answers are samples of that very distribution (temperature 1, top-p 1).
    """

    kind: np.ndarray
    size: np.ndarray
    logprob: np.ndarray
    ids: np.ndarray
    logprobs: np.ndarray
    plain: bool

    def cut(self, length: int) -> SoftTargets:
        """Only the first `length` tokens."""
        exact = int((self.kind[:length] == 1).sum())
        columns = (self.kind[:length], self.size[:length], self.logprob[:length])
        return SoftTargets(*columns, self.ids[:exact], self.logprobs[:exact], self.plain)


@dataclass(frozen=True, slots=True, eq=False)
class SoftBatch:
    """The soft targets of a batch's positions, for a `Loss`; see `SoftTargets` for what the values mean.

    All are tensors on one device, with one entry per position that counts, in the order of the logits.

    Attributes:
        kind: (positions,) int8.
        size: (positions,) int16. A chunk's positions are next to each other and never in different calls.
        logprob: (positions,) float32.
        ids: (positions, K) int32; all -1 where a position has no likeliest tokens, and -1 only after the last of them.
        logprobs: (positions, K) float32.
        plain: (positions,) bool.
    """

    kind: Tensor
    size: Tensor
    logprob: Tensor
    ids: Tensor
    logprobs: Tensor
    plain: Tensor

    def __getitem__(self, positions: Any) -> SoftBatch:
        """Some positions: a slice or a mask."""
        columns = (self.kind, self.size, self.logprob, self.ids, self.logprobs, self.plain)
        return SoftBatch(*(column[positions] for column in columns))


@dataclass(frozen=True, slots=True)
class Example:
    """One training row.

    Attributes:
        input_ids: the tokens.
        labels: unshifted; -100 where a token does not count in the loss.
        id: of the transcript.
        source: where the transcript was read.
        soft: what the teacher held likely, where the loss asks for it and the transcript tells it.
    """

    input_ids: list[int]
    labels: list[int]
    id: str
    source: Source | None = None
    soft: SoftTargets | None = None

    @property
    def trained_tokens(self) -> int:
        """How many tokens count in the loss."""
        return count_trained(self.labels)


def count_trained(labels: Sequence[int]) -> int:
    """How many tokens of a row count in the loss. The first token never does: nothing comes before it."""
    first = bool(len(labels)) and labels[0] != IGNORE_INDEX
    return len(labels) - labels.count(IGNORE_INDEX) - first


@dataclass(frozen=True, slots=True)
class CollectRun:
    """What an observer of `transcript_collected` learns about the collection."""

    out: Path
    teacher: str


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a trainer reports.

    Attributes:
        steps: optimizer steps done.
        loss: the mean training loss; None: it trained nothing.
        metrics: whatever else it measured.
        state_dict: the weights, where the model itself was left in pieces (FSDP); None: they are in the model.
    """

    steps: int
    loss: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    state_dict: Mapping[str, Any] | None = None


Precision = Literal["float32", "bfloat16", "float16"]
"""What a forward pass computes in."""


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What a trainer knows of a training before a weight is loaded: `--dry-run` estimates memory and disk by it.

    The defaults describe a plain loop: float32 and AdamW.

    Attributes:
        steps: optimizer steps; 0 for a trainer that changes no weight. None: those of `--epochs`.
        precision: of the forward pass; weights and gradients are float32 in any case.
        checkpointing: whether activations are computed again for the backward pass instead of being kept.
        optimizer_bytes: what the optimizer keeps per trained weight, in bytes; AdamW's two moments are 8.
        memory_options: options of the trainer that reduce its memory, as the user writes them.
        bfloat16_option: the option that has the trainer compute in bfloat16, as the user writes it; None: there is
            none, or the user has decided.
    """

    steps: int | None = None
    precision: Precision = "float32"
    checkpointing: bool = False
    optimizer_bytes: float = 8
    memory_options: Sequence[str] = ()
    bfloat16_option: str | None = None


@dataclass(frozen=True, slots=True)
class ExportJob:
    """A student to export.

    Attributes:
        model: the student's folder: safetensors, tokenizer, chat template, generation config. It is not to be changed.
        out: an empty folder to write into; when the export succeeds, it appears as `--out`.
        name: the run's name.
        note: call it with a line about each step that takes time.
        trust_remote_code: whether Python code that comes with the student may run.
    """

    model: Path
    out: Path
    name: str
    note: Callable[[str], None]
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class DataExportJob:
    """A data set to export: what `export_data(job)` is given, which an exporter may have beside `export`.

    Attributes:
        data: the file of transcripts. It is not to be changed.
        card: its card, in Markdown.
        out: an empty folder to write into; when the export succeeds, it appears as `--out`.
        name: the data set's name.
        note: call it with a line about each step that takes time.
    """

    data: Path
    card: str
    out: Path
    name: str
    note: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PrefixGroup:
    """Training rows with a common beginning, which are batched together.

    Attributes:
        rows: their numbers.
        shared: how many first tokens they have in common, none of them trained.
        own: how many other tokens of such rows should be in one batch at most.
    """

    rows: tuple[int, ...]
    shared: int
    own: int = 2**62

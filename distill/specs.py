"""What registration hooks return: a name, a one-line summary, the options and how to build it. Nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill.options import NoOptions
from distill.protocols import BatchTeacher, Exporter, Formatter, Labeler, Loss, Teacher, Trainer
from distill.types import Source, Transcript

SourcedRow = tuple[Source, dict[str, Any]]
"""A row, and where it was read."""


@dataclass(frozen=True)
class HTTPTeacherOptions:
    """Options of a teacher that asks a server, and all that distill itself reads from a teacher's options.

    A teacher's options need not inherit from this class: what counts is the names. Where options have a field or a
    property of one of these names, it means what is said here; where they lack it, distill goes without.

    Attributes:
        base_url: the server; `--base-url` sets it.
        api_key_env: the environment variable that holds the key; `distill doctor` tells whether it is set.
        timeout: seconds for a whole request, its answer included; `--timeout` sets it.
        headers: further headers of each request; `$NAME` in a value is an environment variable.

    Further names that are read where options have them:

    * `api_url` (a property): the server that is asked in the end; its published prices are looked up by it;
    * `max_tokens`: the longest answer where `--max-tokens` does not say: estimates and budgets use it;
    * `logprobs`: how many of the most likely tokens to keep; `--logprobs` sets it;
    * any field declared with `field(metadata={"params": True})` changes the answers: where it differs from its
      default it becomes a part of each row's id and of its `metadata.params`.
    """

    base_url: str | None = None
    api_key_env: str = ""
    timeout: float = 120.0
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise ValueError("timeout must be a number of seconds above 0")

    @property
    def api_url(self) -> str | None:
        """The server that is asked."""
        return self.base_url


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher the user may name: `--teacher NAME[:MODEL]`.

    Attributes:
        name: what the user writes.
        summary: one line for `distill plugins`.
        build: called once per collection with (options, MODEL or None), and the plugin manager where `loads_models`.
        options: a dataclass; its fields are the keys of `-T key=value`. What distill reads from it: see
            `HTTPTeacherOptions`.
        loads_models: the teacher runs a model in this process. MODEL may then be the name of a registered model, and
            arrives as that model's path; `build` has a third argument, the plugin manager, for
            `distill.make_formatter(name, options, manager)`: the same plugins as the rest of the command, loaded once.
        any_params: the teacher honours `Request.params.extra`, parameters such as `top_p` that a prompt row may have.
            Otherwise a prompt with such parameters is refused.
        server: the server that is asked where the user names none; comparisons look its published prices up.
    """

    name: str
    summary: str
    build: Callable[..., Teacher | BatchTeacher]
    options: type = NoOptions
    loads_models: bool = False
    any_params: bool = False
    server: str | None = None


@dataclass(frozen=True, slots=True)
class FormatterSpec:
    """A chat format the user may name: `--formatter NAME`. `options` gives the keys of `-F key=value`."""

    name: str
    summary: str
    build: Callable[[Any], Formatter]
    options: type = NoOptions


@dataclass(frozen=True, slots=True)
class LabelerSpec:
    """A labeler the user may name: `--labeler NAME`. `options` gives the keys of `-L key=value`.

    `build` is called with (options, encoder). The encoder, a `distill.Encoder`, shows how the chosen formatter and
    tokenizer encode a conversation, for a labeler that must know it.

    Attributes:
        allows: errors of the label check that are this labeler's purpose, such as `partial-answer` for one that leaves
            out a part of answers: `check` and `train` accept them as with `--allow`.
    """

    name: str
    summary: str
    build: Callable[[Any, Any], Labeler]
    options: type = NoOptions
    allows: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TrainerSpec:
    """A trainer the user may name: `--trainer NAME`. `options` gives the keys of `-T key=value`.

    `options=dict` takes any key, with its value read as JSON where it is JSON; `build` checks them.

    Attributes:
        option_help: for `options=dict`: the keys worth knowing, with their meanings, for `distill plugins --options`.
    """

    name: str
    summary: str
    build: Callable[[Any], Trainer]
    options: type = NoOptions
    option_help: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExporterSpec:
    """An exporter the user may name: `distill export RUN --to NAME`. `options` gives the keys of `-O key=value`."""

    name: str
    summary: str
    build: Callable[[Any], Exporter]
    options: type = NoOptions


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A local model the user may name as `--student NAME`, `--teacher NAME` or in `distill generate NAME`.

    Attributes:
        path: called when the model is needed; gives a folder that `from_pretrained` loads. If making it takes
            long, it should report that on standard error.
        hub_id: the model's name on the Hugging Face Hub, for the student's model card; None: it is not there.
        license: the model's licence, as the Hub names it, e.g. `apache-2.0`; None: not known.
    """

    name: str
    summary: str
    path: Callable[[], Path]
    hub_id: str | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True)
class DialectSpec:
    """A data format the user may name: `--from NAME`, and `--to NAME` where it can be written.

    Null columns are left out of a row before any of these functions sees it. Columns that `columns` does not name are
    kept in the row's metadata, unless they mean something else (preferences, ratings, images): such rows are refused.

    Attributes:
        name: what the user writes.
        summary: the keys of its rows, for errors and `distill plugins`.
        matches: whether a row has this format, by its keys. No two formats should match the same row.
        read: called with (row, its `file:line`); gives the row in the canonical format, `messages` and maybe `id`,
            `tools`, `metadata`, whose messages may be spelled as OpenAI's or Anthropic's APIs have them. Raises
            `distill.DataError` for a malformed row, `distill.RefusedRow` for one that is not to be learnt from.
        columns: the columns that `read` understands.
        write: transcript → row, without what the format cannot hold; raises `distill.DataError` where it cannot hold
            the transcript at all. None: the format is only read.
        parts: the transcripts that a transcript is written as, one row each; None: itself.
        is_part: whether a row is not a conversation but a part of one, such as an event of a session file. It is asked
            for the first row of a file; None: rows never are.
        join: the rows of such a file → canonical rows, one per conversation, each with its source. A row with
            `__refused__`, a reason, is refused.
    """

    name: str
    summary: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str], dict[str, Any]]
    columns: Collection[str]
    write: Callable[[Transcript], dict[str, Any]] | None = None
    parts: Callable[[Transcript], list[Transcript]] | None = None
    is_part: Callable[[Mapping[str, Any]], bool] | None = None
    join: Callable[[Iterable[SourcedRow]], Iterator[SourcedRow]] | None = None


SoftNeeds = Literal["tokens", "chunks"]
"""What a loss needs of the teacher: likeliest tokens where tokenizers agree, or likelihoods of stretches of text."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """A loss the user may name: `--loss NAME`. `options` gives the keys of `-O key=value`.

    Attributes:
        soft_labels: what it needs of the teacher's log probabilities: `tokens`, most trained tokens must be tokens of
            the teacher's too; `chunks`, stretches of text are enough. None: it looks at the written tokens only.
    """

    name: str
    summary: str
    build: Callable[[Any], Loss]
    options: type = NoOptions
    soft_labels: SoftNeeds | None = None


Spec = TeacherSpec | FormatterSpec | LabelerSpec | TrainerSpec | LossSpec | ExporterSpec | ModelSpec | DialectSpec


def __getattr__(name: str) -> Any:
    """`make_options` and `parse_pairs` were here until 0.1; plugin packages may import them from here still."""
    if name in ("make_options", "parse_pairs"):
        import warnings

        from distill import options

        warnings.warn(f"import {name} from distill.options", DeprecationWarning, stacklevel=2)
        return getattr(options, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

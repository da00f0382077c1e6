"""Prompts to transcripts, and a look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill.api.arguments import plugins_of, settings_of
from distill.plugins import PluginManager

if TYPE_CHECKING:
    from distill.collection import CollectSummary
    from distill.collection.prompts import PromptInput
    from distill.collection.score import ScoreSummary
    from distill.dataset.check import CheckReport
    from distill.dataset.preview import Preview
    from distill.transcripts.convert import ConvertReport
    from distill.transcripts.sources import Data


# [[[cog
# from api_parameters import *
# ]]]
# [[[end]]]


def collect(
    prompts: PromptInput,
    *,
    out: str | Path,
    # [[[cog parameters(CollectSettings) ]]]
    teacher: str,
    base_url: Sequence[str] = (),
    teacher_options: Mapping[str, Any] | None = None,
    concurrency: int = 16,
    rpm: float | None = None,
    tpm: float | None = None,
    timeout: float | None = None,
    retries: int = 5,
    patience: float = 600.0,
    max_usd: float | None = None,
    price: str | None = None,
    system: str | None = None,
    teacher_system: str | None = None,
    samples: int = 1,
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    logprobs: int | None = None,
    limit: int | None = None,
    shard: str | None = None,
    allow_unknown: bool = False,
    append: bool = False,
    max_usd_total: float | None = None,
    # [[[end]]]
    progress: bool = True,
    manager: PluginManager | None = None,
) -> CollectSummary:
    """Ask a teacher all prompts, and add its answers to a file of transcripts.

    Rows that are in the file are not asked for again: calling this again resumes an interrupted collection.

    Args:
        prompts: a file, or a list of texts, rows or `distill.Prompt`.
        out: the JSONL file of transcripts.
        progress: whether to show how far it is.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill collect`.

    Raises:
        DistillError: something does not fit, or the teacher failed for good; the answers until then are saved.
    """
    from distill.collection import CollectSettings
    from distill.collection import collect as run

    settings = settings_of(CollectSettings, locals())
    return run(prompts, out, settings, plugins_of(manager), progress=progress)


def score(
    data: Data,
    *,
    out: str | Path,
    # [[[cog parameters(ScoreSettings) ]]]
    teacher: str,
    base_url: Sequence[str] = (),
    teacher_options: Mapping[str, Any] | None = None,
    concurrency: int = 16,
    rpm: float | None = None,
    tpm: float | None = None,
    timeout: float | None = None,
    retries: int = 5,
    patience: float = 600.0,
    max_usd: float | None = None,
    price: str | None = None,
    logprobs: int = 20,
    limit: int | None = None,
    # [[[end]]]
    # [[[cog parameters(ReadSettings) ]]]
    data_format: str | None = None,
    split_thinking: bool = False,
    ignore_columns: Sequence[str] = (),
    # [[[end]]]
    progress: bool = True,
    manager: PluginManager | None = None,
) -> ScoreSummary:
    """Add a teacher's log probabilities to the answers of transcripts, and write the rows to a file.

    Rows that are in the file are not scored again: calling this again resumes an interrupted scoring.

    Args:
        data: the transcripts.
        out: the JSONL file of scored transcripts.
        progress: whether to show how far it is.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill score`.

    Raises:
        DistillError: something does not fit, or the teacher failed for good; the rows until then are saved.
    """
    from distill.collection.score import score as run
    from distill.collection.settings import ScoreSettings
    from distill.transcripts.settings import ReadSettings

    manager, given = plugins_of(manager), locals()
    reader = settings_of(ReadSettings, given).reader(manager)
    return run(data, out, settings_of(ScoreSettings, given), manager, reader=reader, progress=progress)


def check(
    data: Data,
    *,
    # [[[cog parameters(DataSettings) ]]]
    data_format: str | None = None,
    split_thinking: bool = False,
    ignore_columns: Sequence[str] = (),
    student: str = "bigscience/bloom-560m",
    trust_remote_code: bool = False,
    formatter: str = "chat-template",
    formatter_options: Mapping[str, Any] | None = None,
    labeler: str = "masked",
    labeler_options: Mapping[str, Any] | None = None,
    turns: Literal["all", "last"] = "all",
    max_length: int | None = None,
    max_characters: int = 4000000,
    allow: Sequence[str] = (),
    # [[[end]]]
    against: Data = (),
    manager: PluginManager | None = None,
) -> CheckReport:
    """Verify that the data will be trained as intended, with this student, chat format and labeler.

    Args:
        data: the transcripts.
        against: hold-out data, none of whose prompts may appear in `data`.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill check`.
    """
    from distill.dataset.check import check as run
    from distill.dataset.findings import Findings
    from distill.dataset.pipeline import length_limit, make_pipeline
    from distill.dataset.settings import DataSettings

    settings = settings_of(DataSettings, locals())
    Findings.check_codes(settings.allow)
    pipeline = make_pipeline(settings, plugins_of(manager), soft_labels=True)
    return run(
        data,
        pipeline,
        max_length=length_limit(pipeline.ref, settings.max_length),
        against=against,
        allow=settings.allow,
    )


def show(
    data: Data,
    rows: int | None = 3,
    *,
    # [[[cog parameters(DataSettings, leave_out=["max_length", "allow"]) ]]]
    data_format: str | None = None,
    split_thinking: bool = False,
    ignore_columns: Sequence[str] = (),
    student: str = "bigscience/bloom-560m",
    trust_remote_code: bool = False,
    formatter: str = "chat-template",
    formatter_options: Mapping[str, Any] | None = None,
    labeler: str = "masked",
    labeler_options: Mapping[str, Any] | None = None,
    turns: Literal["all", "last"] = "all",
    max_characters: int = 4000000,
    # [[[end]]]
    html: str | Path | None = None,
    manager: PluginManager | None = None,
) -> Preview:
    """Show rows token by token, exactly as the trainer gets them; in a notebook, in colour.

    Args:
        data: the transcripts.
        rows: how many to show; None: all.
        html: also write a web page of them to this file.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill show`.
    """
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.preview import Preview, show_data
    from distill.dataset.preview_page import write_data_page
    from distill.dataset.settings import DataSettings

    settings = settings_of(DataSettings, locals())
    pipeline = make_pipeline(settings, plugins_of(manager))
    if html is not None:
        write_data_page(data, pipeline, settings, Path(html), rows)
    return Preview(show_data(data, pipeline, rows))


def convert(
    data: Data,
    out: str | Path,
    to: str,
    *,
    # [[[cog parameters(ReadSettings) ]]]
    data_format: str | None = None,
    split_thinking: bool = False,
    ignore_columns: Sequence[str] = (),
    # [[[end]]]
    force: bool = False,
    manager: PluginManager | None = None,
) -> ConvertReport:
    """Convert conversations to another data format, and report what it cannot hold.

    Args:
        data: the conversations.
        out: the file of JSON lines to create.
        to: the data format to write: canonical, openai, sharegpt, alpaca, prompt-completion or a plugin's.
        force: replace `out` if it exists.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill convert`.
    """
    from distill.transcripts.convert import convert_file
    from distill.transcripts.settings import ReadSettings

    settings = settings_of(ReadSettings, locals())
    return convert_file(data, out, to, plugins_of(manager), settings, overwrite=force)

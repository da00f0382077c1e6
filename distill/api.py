"""The Python API: every command as a function, with typed arguments and results.

`import distill` offers them as `distill.collect(…)` and so on. The options have the names and defaults of the command
line; each function's parameters are written from the settings classes by cog (`make docs`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distill.files.text import printable
from distill.plugins import PluginManager, make_plugin_manager
from distill.progress import PartProgress, StepProgress
from distill.settings import options_of, origins_of, settings_from
from distill.types import Message

if TYPE_CHECKING:
    from distill.collection import CollectSummary
    from distill.collection.prompts import PromptInput
    from distill.comparison import Comparison
    from distill.dataset.check import CheckReport
    from distill.dataset.preview import Preview
    from distill.diagnosis import Probe
    from distill.exporters import Exported
    from distill.models.generate import ChatModel, Generation, TraceStep
    from distill.recipes import RecipeReport
    from distill.runs import Run, TrainReport
    from distill.training import TrainSettings
    from distill.transcripts.convert import ConvertReport
    from distill.transcripts.sources import Data

S = TypeVar("S")

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
    base_url: str | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    system: str | None = None,
    samples: int = 1,
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    logprobs: int | None = None,
    limit: int | None = None,
    append: bool = False,
    concurrency: int = 16,
    rpm: float | None = None,
    tpm: float | None = None,
    timeout: float | None = None,
    retries: int = 5,
    max_usd: float | None = None,
    price: str | None = None,
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

    settings = _settings(CollectSettings, locals())
    return run(prompts, out, settings, _plugins(manager), progress=progress)


def check(
    data: Data,
    *,
    # [[[cog parameters(DataSettings) ]]]
    student: str = "bigscience/bloom-560m",
    data_format: str | None = None,
    formatter: str = "chat-template",
    formatter_options: Mapping[str, Any] | None = None,
    labeler: str = "masked",
    labeler_options: Mapping[str, Any] | None = None,
    turns: Literal["all", "last"] = "all",
    max_length: int | None = None,
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
    from distill.dataset.pipeline import make_pipeline
    from distill.dataset.settings import DataSettings
    from distill.models.load import max_positions

    settings = _settings(DataSettings, locals())
    Findings.check_codes(settings.allow)
    pipeline = make_pipeline(settings, _plugins(manager))
    return run(
        data,
        pipeline,
        max_length=settings.max_length or max_positions(pipeline.ref),
        against=against,
        allow=settings.allow,
    )


def show(
    data: Data,
    rows: int | None = 3,
    *,
    # [[[cog parameters(DataSettings, leave_out=["max_length", "allow"]) ]]]
    student: str = "bigscience/bloom-560m",
    data_format: str | None = None,
    formatter: str = "chat-template",
    formatter_options: Mapping[str, Any] | None = None,
    labeler: str = "masked",
    labeler_options: Mapping[str, Any] | None = None,
    turns: Literal["all", "last"] = "all",
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

    settings = _settings(DataSettings, locals())
    pipeline = make_pipeline(settings, _plugins(manager))
    if html is not None:
        write_data_page(data, pipeline, settings, Path(html), rows)
    return Preview(show_data(data, pipeline, rows))


def train(
    data: Data,
    *,
    # [[[cog parameters(TrainSettings) ]]]
    out: str | Path,
    student: str = "bigscience/bloom-560m",
    data_format: str | None = None,
    formatter: str = "chat-template",
    formatter_options: Mapping[str, Any] | None = None,
    labeler: str = "masked",
    labeler_options: Mapping[str, Any] | None = None,
    turns: Literal["all", "last"] = "all",
    max_length: int | None = None,
    allow: Sequence[str] = (),
    hold_out: str | int | None = None,
    seed: int = 0,
    trainer: str = "hf",
    trainer_options: Mapping[str, Any] | None = None,
    overlong: Literal["error", "drop", "truncate"] = "error",
    epochs: float = 3.0,
    learning_rate: float = 5e-05,
    batch_size: int = 8,
    batch_tokens: int | None = None,
    accumulation: int = 1,
    packing: bool = False,
    save_steps: int | None = None,
    save_total_limit: int | None = None,
    lora: bool = False,
    lora_rank: int | None = None,
    lora_alpha: int | None = None,
    lora_dropout: float | None = None,
    lora_targets: Sequence[str] = (),
    qlora: bool | None = False,
    # [[[end]]]
    resume: bool = False,
    progress: bool = True,
    manager: PluginManager | None = None,
) -> Run:
    """Fine-tune a student on transcripts, and write the run folder.

    Args:
        data: the transcripts.
        resume: resume from the newest complete checkpoint in `out`.
        progress: whether to show how far it is, and what is being done.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill train`.

    Returns:
        The finished run: `run.report` counts rows and tokens, `run.model_dir` is the student.
    """
    from distill.runs import open_run
    from distill.training import TrainSettings
    from distill.training import train as run

    words = _given(TrainSettings, locals())
    settings = settings_from(TrainSettings, words, data=data)
    origins = origins_of(TrainSettings, words, "argument")
    with StepProgress(progress) as on_log:
        run(settings, _plugins(manager), resume=resume, on_log=on_log, note=_noter(progress), origins=origins)
    return open_run(settings.out)


def plan_training(settings: TrainSettings, manager: PluginManager | None = None) -> TrainReport:
    """Count rows, tokens and steps, and estimate memory and disk: `distill train --dry-run`. Nothing is written.

    Args:
        settings: what to train, on what, and how.
        manager: the plugins; default: those that are installed.
    """
    from distill.training import train as run

    return run(settings, _plugins(manager), dry_run=True)


def compare(
    run: str | Path,
    data: Data | None = None,
    *,
    # [[[cog parameters(CompareSettings) ]]]
    data_format: str | None = None,
    base: str | None = None,
    teacher: str | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    judge: str | None = None,
    judge_options: Mapping[str, Any] | None = None,
    max_tokens: int = 256,
    batch_size: int = 16,
    limit: int | None = None,
    seed: int = 0,
    # [[[end]]]
    progress: bool = True,
    manager: PluginManager | None = None,
) -> Comparison:
    """Compare a student with its base, on conversations it was not trained on.

    Args:
        run: the run folder.
        data: hold-out conversations; None: those that training held out.
        progress: whether to show how far it is, and what is being done.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill compare`.
    """
    from distill.comparison import CompareSettings
    from distill.comparison import compare as measure

    settings = _settings(CompareSettings, locals())
    with PartProgress(progress) as on_progress:
        return measure(
            Path(run),
            () if data is None else data,
            _plugins(manager),
            settings,
            note=_noter(progress),
            on_progress=on_progress if progress else None,
        )


def load_model(
    model: str | Path,
    *,
    formatter: str | None = None,
    formatter_options: Mapping[str, Any] | None = None,
    manager: PluginManager | None = None,
) -> ChatModel:
    """Load a student, or any local model, to ask it many times.

    Args:
        model: a run folder, a model folder, a `.gguf` file, a Hub id or a plugin's model.
        formatter: the chat format to ask in; default: the one saved with the model, or ChatML.
        formatter_options: the formatter's options.
        manager: the plugins; default: those that are installed.
    """
    from distill.models.generate import ChatModel
    from distill.models.load import resolve_model
    from distill.runs.run import ChatFormat, saved_format

    manager = _plugins(manager)
    chosen = saved_format(model) if formatter is None else ChatFormat(formatter)
    made = manager.formatters.build(chosen.name, {**chosen.options, **(formatter_options or {})})
    return ChatModel.load(resolve_model(str(model), manager), made, chosen.name)


def generate(
    model: str | Path | ChatModel,
    prompts: str | Sequence[str],
    *,
    # [[[cog parameters(GenerateSettings) ]]]
    system: str | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    formatter: str | None = None,
    formatter_options: Mapping[str, Any] | None = None,
    # [[[end]]]
    manager: PluginManager | None = None,
) -> list[Generation]:
    """Let a student, or any local model, answer prompts.

    Args:
        model: what `load_model` takes, or what it made.
        prompts: one prompt, or several that are answered in one batch.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill generate`.

    Returns:
        One answer per prompt.
    """
    from distill.models.settings import GenerateSettings

    settings = _settings(GenerateSettings, locals())
    if isinstance(model, (str, Path)):
        model = load_model(
            model, formatter=settings.formatter, formatter_options=settings.formatter_options, manager=manager
        )
    before = [Message("system", settings.system)] if settings.system else []
    asked = [[*before, Message("user", text)] for text in ([prompts] if isinstance(prompts, str) else prompts)]
    return model.generate(asked, max_tokens=settings.max_tokens, temperature=settings.temperature, seed=settings.seed)


def trace(
    model: str | Path | ChatModel,
    prompt: str,
    answer: str,
    *,
    system: str | None = None,
    manager: PluginManager | None = None,
) -> list[TraceStep]:
    """Show, token by token, what a model would write after each prefix of a conversation.

    Args:
        model: what `load_model` takes, or what it made.
        prompt: the user's message.
        answer: the assistant's message.
        system: a system message before them.
        manager: the plugins; default: those that are installed.
    """
    chat = load_model(model, manager=manager) if isinstance(model, (str, Path)) else model
    before = [Message("system", system)] if system else []
    return chat.trace([*before, Message("user", prompt), Message("assistant", answer)])


def export(
    run: str | Path,
    to: str,
    *,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
    manager: PluginManager | None = None,
) -> Exported:
    """Write a student in a format that other programs load.

    Args:
        run: the run folder.
        to: the exporter: merged, gguf, ollama, or a plugin's.
        out: the folder to create.
        options: the exporter's options, e.g. `{"outtype": "q8_0"}` for gguf.
        progress: whether to tell what is being done.
        manager: the plugins; default: those that are installed.
    """
    from distill.exporters import export as write

    return write(run, to, Path(out), _plugins(manager), options or {}, note=_noter(progress))


def convert(
    data: Data, out: str | Path, to: str, *, data_format: str | None = None, force: bool = False
) -> ConvertReport:
    """Convert conversations to another data format, and report what it cannot hold.

    Args:
        data: the conversations.
        out: the file of JSON lines to create.
        to: the data format to write: canonical, openai, sharegpt, alpaca or prompt-completion.
        data_format: the data format of the input rows; None: detected row by row.
        force: replace `out` if it exists.
    """
    from distill.transcripts.convert import convert_file

    return convert_file(data, out, to, data_format, overwrite=force)


def run(
    recipe: str | Path, *, dry_run: bool = False, progress: bool = True, manager: PluginManager | None = None
) -> RecipeReport:
    """Run a recipe: collect, check, train and compare, each step only if something has changed for it.

    Args:
        recipe: the YAML file.
        dry_run: check everything, and report what would run and why.
        progress: whether to show how far it is, and what is being done.
        manager: the plugins; default: those that are installed.
    """
    from distill.recipes import Watch, run_recipe

    with StepProgress(progress) as on_log, PartProgress(progress) as on_compare:
        watch = Watch(_noter(progress), on_log, progress, on_compare if progress else None)
        return run_recipe(recipe, _plugins(manager), dry_run=dry_run, watch=watch)


def doctor(*, self_test: bool = False, manager: PluginManager | None = None) -> list[Probe]:
    """Diagnose the environment: versions, devices, disk, keys, plugins. It contacts nothing.

    Args:
        self_test: also train a tiny random student for one step, on the CPU.
        manager: the plugins; default: those that are installed.
    """
    from distill.diagnosis import examine

    return list(examine(_plugins(manager), self_test=self_test))


def _plugins(manager: PluginManager | None) -> PluginManager:
    return make_plugin_manager() if manager is None else manager


def _settings(settings: type[S], arguments: Mapping[str, Any], **others: Any) -> S:
    """Make a settings object of a function's arguments."""
    return settings_from(settings, _given(settings, arguments), **others)


def _given(settings: type[Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are options, and not at their defaults."""
    words = {option.name: option for option in options_of(settings)}
    return {
        name: value
        for name, value in arguments.items()
        if name in words and value is not None and value is not False and value != words[name].usual
    }


def _noter(shown: bool) -> Callable[[str], None]:
    """Writes a line to standard error, above a bar that is there."""

    def note(text: str) -> None:
        from tqdm.auto import tqdm

        if shown:
            tqdm.write(printable(text), file=sys.stderr)

    return note

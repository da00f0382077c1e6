"""Transcripts to a student: train it, compare it, ask it, export it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill.api.arguments import given, noter, plugins_of, settings_of
from distill.plugins import PluginManager
from distill.progress import PartProgress, StepProgress
from distill.runs import open_run
from distill.settings import origins_of, settings_from
from distill.types import Message

if TYPE_CHECKING:
    from distill.chat.session import Session
    from distill.comparison import Comparison, Comparisons
    from distill.exporters import Exported
    from distill.models.generate import ChatModel, Generation, TraceStep
    from distill.runs import Run, TrainReport
    from distill.training import TrainSettings
    from distill.transcripts.sources import Data


# [[[cog
# from api_parameters import *
# ]]]
# [[[end]]]


def train(
    data: Data,
    *,
    # [[[cog parameters(TrainSettings) ]]]
    out: str | Path,
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
    hold_out: str | int | None = None,
    seed: int = 0,
    trainer: str = "hf",
    trainer_options: Mapping[str, Any] | None = None,
    loss: str = "cross-entropy",
    loss_options: Mapping[str, Any] | None = None,
    dtype: Literal["auto", "bfloat16", "float32"] = "auto",
    overlong: Literal["error", "drop", "truncate"] = "error",
    epochs: float = 3.0,
    batch_size: int = 8,
    batch_tokens: int | None = None,
    accumulation: int = 1,
    packing: bool = False,
    learning_rate: float = 5e-05,
    lr_scheduler_type: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
    ] = "linear",
    warmup_steps: int | None = None,
    warmup_ratio: float | None = None,
    weight_decay: float = 0.0,
    eval_steps: int | None = None,
    keep: Literal["last", "best"] = "last",
    patience: int | None = None,
    shared_prefix: Literal["off", "auto"] = "off",
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
    from distill.training import train as run

    settings, origins = _train_settings(locals())
    with StepProgress(progress) as on_log:
        run(settings, plugins_of(manager), resume=resume, on_log=on_log, note=noter(progress), origins=origins)
    return open_run(settings.out)


def _train_settings(arguments: Mapping[str, Any]) -> tuple[TrainSettings, Mapping[str, str]]:
    """The settings in `train`'s arguments, and where each came from."""
    from distill.training import TrainSettings

    words = given(TrainSettings, arguments)
    settings = settings_from(TrainSettings, words, data=arguments["data"])
    return settings, {"data": "argument", **origins_of(TrainSettings, words, "argument")}


def plan_training(settings: TrainSettings, manager: PluginManager | None = None) -> TrainReport:
    """Count rows, tokens and steps, and estimate memory and disk: `distill train --dry-run`. Nothing is written.

    Args:
        settings: what to train, on what, and how.
        manager: the plugins; default: those that are installed.
    """
    from distill.training import train as run

    return run(settings, plugins_of(manager), dry_run=True)


def compare(
    run: str | Path,
    data: Data = (),
    *,
    # [[[cog parameters(CompareSettings) ]]]
    data_format: str | None = None,
    split_thinking: bool = False,
    ignore_columns: Sequence[str] = (),
    base: str | None = None,
    teacher: str | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    prompted_base: bool = False,
    judge: str | None = None,
    judge_options: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
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
        data: hold-out conversations; none: those that training held out.
        progress: whether to show how far it is, and what is being done.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill compare`.
    """
    from distill.comparison import CompareSettings
    from distill.comparison import compare as measure

    settings = settings_of(CompareSettings, locals())
    with PartProgress(progress) as on_progress:
        return measure(
            run,
            data,
            plugins_of(manager),
            settings,
            note=noter(progress),
            on_progress=on_progress if progress else None,
        )


def compare_runs(
    runs: Sequence[str | Path],
    data: Data = (),
    *,
    # [[[cog parameters(CompareSettings) ]]]
    data_format: str | None = None,
    split_thinking: bool = False,
    ignore_columns: Sequence[str] = (),
    base: str | None = None,
    teacher: str | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    prompted_base: bool = False,
    judge: str | None = None,
    judge_options: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    max_tokens: int = 256,
    batch_size: int = 16,
    limit: int | None = None,
    seed: int = 0,
    # [[[end]]]
    progress: bool = True,
    manager: PluginManager | None = None,
) -> Comparisons:
    """Compare several students: each with its base, and with the first one, on the same conversations.

    Args:
        runs: the run folders.
        data: hold-out conversations; none: those that training held out for the first run.
        progress: whether to show how far it is, and what is being done.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill compare`.
    """
    from distill.comparison import CompareSettings
    from distill.comparison import compare_runs as measure

    settings = settings_of(CompareSettings, locals())
    with PartProgress(progress) as on_progress:
        return measure(
            runs,
            data,
            plugins_of(manager),
            settings,
            note=noter(progress),
            on_progress=on_progress if progress else None,
        )


def load_chat_model(
    model: str | Path,
    *,
    formatter: str | None = None,
    formatter_options: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    manager: PluginManager | None = None,
) -> ChatModel:
    """Load a student, or any local model, to ask it many times.

    Args:
        model: a run folder, a model folder, a `.gguf` file, a Hub id or a plugin's model.
        formatter: the chat format to ask in; default: the one saved with the model, or ChatML.
        formatter_options: the formatter's options.
        trust_remote_code: run Python code that comes with the model.
        manager: the plugins; default: those that are installed.
    """
    from distill.models.generate import ChatModel
    from distill.models.references import resolve_model
    from distill.runs.run import ChatFormat, saved_format

    manager = plugins_of(manager)
    chosen = saved_format(model) if formatter is None else ChatFormat(formatter)
    made = manager.formatters.build(chosen.name, {**chosen.options, **(formatter_options or {})})
    return ChatModel.load(resolve_model(str(model), manager, trust_remote_code), made, chosen.name)


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
    trust_remote_code: bool = False,
    # [[[end]]]
    manager: PluginManager | None = None,
) -> list[Generation]:
    """Let a student, or any local model, answer prompts.

    Args:
        model: what `load_chat_model` takes, or what it made.
        prompts: one prompt, or several that are answered in one batch.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill generate`.

    Returns:
        One answer per prompt.
    """
    from distill.models.settings import GenerateSettings

    settings = settings_of(GenerateSettings, locals())
    if isinstance(model, (str, Path)):
        model = load_chat_model(
            model,
            formatter=settings.formatter,
            formatter_options=settings.formatter_options,
            trust_remote_code=settings.trust_remote_code,
            manager=manager,
        )
    before = [Message("system", settings.system)] if settings.system else []
    asked = [[*before, Message("user", text)] for text in ([prompts] if isinstance(prompts, str) else prompts)]
    return model.generate(asked, max_tokens=settings.max_tokens, temperature=settings.temperature, seed=settings.seed)


def trace(
    model: str | Path | ChatModel,
    prompt: str,
    answer: str,
    *,
    reasoning: str | None = None,
    system: str | None = None,
    manager: PluginManager | None = None,
) -> list[TraceStep]:
    """Show, token by token, what a model would write after each prefix of a conversation.

    Args:
        model: what `load_chat_model` takes, or what it made.
        prompt: the user's message.
        answer: the assistant's message.
        reasoning: the thought before it.
        system: a system message before them.
        manager: the plugins; default: those that are installed.
    """
    chat = load_chat_model(model, manager=manager) if isinstance(model, (str, Path)) else model
    before = [Message("system", system)] if system else []
    return chat.trace([*before, Message("user", prompt), Message("assistant", answer, reasoning)])


@contextmanager
def open_chat(
    model: str | Path,
    *,
    # [[[cog parameters(ChatSettings) ]]]
    system: str | None = None,
    max_tokens: int = 512,
    temperature: float = 0.0,
    seed: int = 0,
    formatter: str | None = None,
    formatter_options: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    teacher: str | None = None,
    base_url: str | None = None,
    teacher_options: Mapping[str, Any] | None = None,
    save: str | Path = "chat.jsonl",
    # [[[end]]]
    manager: PluginManager | None = None,
) -> Iterator[Session]:
    """Load a student to talk with: `with distill.open_chat("run") as session: session.handle("Hello", show=print)`.

    Args:
        model: a run folder, a model folder, a `.gguf` file, a Hub id or a plugin's model.
        manager: the plugins; default: those that are installed.

    The other arguments are the options of `distill chat`.
    """
    from distill.chat.session import Session, TeacherLine
    from distill.chat.settings import ChatSettings
    from distill.collection import make_teacher
    from distill.runs import is_run, open_run
    from distill.types import Params

    settings = settings_of(ChatSettings, locals(), model=str(model))
    manager = plugins_of(manager)
    line = None
    if settings.teacher is not None:
        named = make_teacher(manager, settings.teacher, settings.teacher_options, base_url=settings.base_url)
        line = TeacherLine(named, Params(temperature=settings.temperature or None))
    teachers = open_run(model).teachers if is_run(model) else []
    suggestion = f"start with --teacher {teachers[0]}, whose answers it was trained on" if teachers else ""
    chat = load_chat_model(
        model,
        formatter=settings.formatter,
        formatter_options=settings.formatter_options,
        trust_remote_code=settings.trust_remote_code,
        manager=manager,
    )
    with closing(line) if line is not None else nullcontext():
        yield Session(chat, settings, line, suggestion)


def export(
    run: str | Path,
    to: str,
    *,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
    manager: PluginManager | None = None,
) -> Exported:
    """Write a student in a format that other programs load, or publish a data set.

    Args:
        run: the run folder; or a file of transcripts, with an exporter that publishes data sets, such as hub.
        to: the exporter: merged, gguf, ollama, or a plugin's.
        out: the folder to create.
        options: the exporter's options, e.g. `{"outtype": "q8_0"}` for gguf.
        trust_remote_code: run Python code that comes with the student.
        progress: whether to tell what is being done.
        manager: the plugins; default: those that are installed.
    """
    from distill.exporters import export as write

    manager = plugins_of(manager)
    return write(run, to, Path(out), manager, options or {}, trust_remote_code=trust_remote_code, note=noter(progress))

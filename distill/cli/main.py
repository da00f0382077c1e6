"""`distill`: builds the command line, runs it, and turns errors into `Error: …`, `Hint: …` and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType

import click

import distill
from distill.cli import (
    chat,
    check,
    collect,
    compare,
    completion,
    convert,
    doctor,
    export,
    generate,
    merge,
    plugins,
    quickstart,
    score,
    show,
    train,
    view,
)
from distill.cli import run as run_command
from distill.cli.mistakes import explain
from distill.cli.terminal import colours_asked_for, printable
from distill.errors import DistillError, Terminated, UsageError, one_line
from distill.files.text import has_lone_surrogate
from distill.plugins import PluginManager, make_plugin_manager
from distill.progress import QUIET

COMMANDS = (
    collect.command,
    merge.command,
    score.command,
    convert.command,
    check.command,
    show.command,
    train.command,
    generate.command,
    compare.command,
    view.command,
    chat.command,
    export.command,
    plugins.command,
    run_command.command,
    quickstart.command,
    doctor.command,
    completion.command,
)


def build_cli(manager: PluginManager) -> click.Group:
    """Make the command line over the given plugins; commands find the manager as `context.obj`."""

    @click.group(
        context_settings={"help_option_names": ["-h", "--help"], "obj": manager, "max_content_width": 110},
        epilog="Start with `distill quickstart`, or `distill collect --help`.",
    )
    @click.version_option(distill.__version__, prog_name="distill")
    @click.option("--plugin", metavar="FILE.py", multiple=True, expose_value=False, help="Load a file as a plugin.")
    @click.option("--debug", is_flag=True, expose_value=False, help="Show log messages, and tracebacks of errors.")
    @click.option("-v", "--verbose", is_flag=True, expose_value=False, help="Show what distill does in more detail.")
    @click.option("-q", "--quiet", is_flag=True, help="Show no notes and no progress, only results and errors.")
    @click.pass_context
    def cli(context: click.Context, quiet: bool) -> None:
        """Fine-tune a small student on a large teacher's chat transcripts."""
        context.color = colours_asked_for()
        token = QUIET.set(quiet)
        context.call_on_close(lambda: QUIET.reset(token))

    for command in COMMANDS:
        cli.add_command(command)
    cli.add_command(_help)
    manager.add_commands(cli)
    return cli


@click.command("help", hidden=True)
@click.argument("words", nargs=-1, metavar="[COMMAND]…")
@click.pass_context
def _help(context: click.Context, words: tuple[str, ...]) -> None:
    """`distill help train` is `distill train --help`."""
    assert context.parent is not None
    found, place = context.parent.command, context.parent
    for word in words:
        inner = found.get_command(place, word) if isinstance(found, click.Group) else None
        if inner is None:
            raise click.UsageError(f"No such command {word!r}.", place)
        found, place = inner, click.Context(inner, parent=place, info_name=word)
    click.echo(found.get_help(place))


_LIBRARIES = ("accelerate", "datasets", "huggingface_hub", "peft", "torch", "transformers", "trl")


def _check_words(argv: Sequence[str]) -> None:
    """Refuse words that no file of a run could hold.

    Raises:
        UsageError: a word is not valid UTF-8.
    """
    for word in argv:
        if has_lone_surrogate(word):
            raise UsageError(f"the argument {word!r} is not valid UTF-8", "rename the file, or set a UTF-8 locale")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `distill` with the given words; returns the exit code: 0, 1, 2, or 128 + the signal's number."""
    argv = list(sys.argv[1:] if argv is None else argv)
    files, flags = _leading_options(argv)
    debug = "--debug" in flags
    _log_to_stderr(debug, verbose=bool(flags & {"-v", "--verbose"}))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # all cores, and no warning about forks
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch on Linux: large pages for large tensors
    previous = {signum: signal.signal(signum, _terminated) for signum in _ending_signals()}
    try:
        _check_words(argv)
        manager = make_plugin_manager(files)
        cli = build_cli(manager)
        for record in manager.failed():
            click.echo(f"distill: {record.owner} is not loaded: {printable(record.error or '')}", err=True)
        result = cli.main(argv, prog_name="distill", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except DistillError as error:
        if debug:
            raise
        _show(error)
        return error.exit_code
    except click.UsageError as error:
        _show(explain(error))
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Terminated as error:
        click.echo("Terminated.", err=True)
        return 128 + error.signum
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:  # `distill show … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if debug:
            raise
        where, what = error.filename, error.strerror or one_line(error)
        hint = None if where else "`distill --debug` shows where it happened"
        _show(DistillError(f"{where}: {what}" if where else what, hint))
        return 1
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _show(error: DistillError) -> None:
    click.echo(f"Error: {printable(error.message)}", err=True)
    if error.hint:
        click.echo(f"Hint: {printable(error.hint)}", err=True)


def _ending_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP unless it is ignored (under nohup): the terminal may close, the work goes on."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, *hangup]


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise Terminated(signum)


def _log_to_stderr(debug: bool, verbose: bool) -> None:
    """Distill's own warnings, a line each; its news with `--verbose`; with `--debug` other libraries' messages, too."""
    if debug:
        logging.basicConfig(level=logging.DEBUG)
        return
    logger = logging.getLogger("distill")
    logger.handlers = [logging.StreamHandler()]
    logger.handlers[0].setFormatter(logging.Formatter("distill: %(message)s"))
    logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    _quieten_libraries()


def _quieten_libraries() -> None:
    """Keep the advice of libraries off the terminal, unless the user has set how much of it to show."""
    for name in ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY"):  # read when the library is first imported
        os.environ.setdefault(name, "error")
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=rf"({'|'.join(_LIBRARIES)})(\.|$)")


def _leading_options(argv: Sequence[str]) -> tuple[list[str], set[str]]:
    """The `--plugin` files and the flags before the command: plugins must be loaded before click can parse."""
    files, flags = [], set()
    words = iter(argv)
    for word in words:
        if word == "--plugin":
            files.append(next(words, ""))
        elif word.startswith("--plugin="):
            files.append(word.removeprefix("--plugin="))
        elif word.startswith("-"):
            flags.add(word)
        else:
            break
    return [file for file in files if file], flags

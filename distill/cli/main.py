"""`distill`: builds the command line, runs it, and turns errors into `Error: …`, `Hint: …` and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

import distill
from distill.cli import (
    chat,
    check,
    collect,
    compare,
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
)
from distill.cli import run as run_command
from distill.cli.terminal import printable
from distill.errors import DistillError, Terminated
from distill.plugins import PluginManager, make_plugin_manager

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
    chat.command,
    export.command,
    plugins.command,
    run_command.command,
    quickstart.command,
    doctor.command,
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
    def cli() -> None:
        """Fine-tune a small student on a large teacher's chat transcripts."""

    for command in COMMANDS:
        cli.add_command(command)
    manager.add_commands(cli)
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run `distill` with the given words; returns the exit code: 0, 1, 2, or 128 + the signal's number."""
    argv = list(sys.argv[1:] if argv is None else argv)
    files, debug = _leading_options(argv)
    _log_to_stderr(debug)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # all cores, and no warning about forks
    previous = {signum: signal.signal(signum, _terminated) for signum in _ending_signals()}
    try:
        manager = make_plugin_manager(files)
        cli = build_cli(manager)
        for record in manager.failed():
            click.echo(f"distill: {record.owner} is not loaded: {printable(record.error or '')}", err=True)
        result = cli.main(argv, prog_name="distill", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except DistillError as error:
        if debug:
            raise
        click.echo(f"Error: {printable(error.message)}", err=True)
        if error.hint:
            click.echo(f"Hint: {printable(error.hint)}", err=True)
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
        if debug or error.filename is None:
            raise
        click.echo(f"Error: {printable(f'{error.filename}: {error.strerror}')}", err=True)
        return 1
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _ending_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP unless it is ignored (under nohup): the terminal may close, the work goes on."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, *hangup]


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise Terminated(signum)


def _log_to_stderr(debug: bool) -> None:
    """Distill's own warnings, a line each; with `--debug` everything, other libraries' messages included."""
    if debug:
        logging.basicConfig(level=logging.DEBUG)
        return
    logger = logging.getLogger("distill")
    logger.handlers = [logging.StreamHandler()]
    logger.handlers[0].setFormatter(logging.Formatter("distill: %(message)s"))
    logger.propagate = False


def _leading_options(argv: Sequence[str]) -> tuple[list[str], bool]:
    """The `--plugin` files and `--debug` before the command: plugins must be loaded before click can parse."""
    files, debug = [], False
    words = iter(argv)
    for word in words:
        if word == "--plugin":
            files.append(next(words, ""))
        elif word.startswith("--plugin="):
            files.append(word.removeprefix("--plugin="))
        elif word == "--debug":
            debug = True
        elif not word.startswith("-"):
            break
    return [file for file in files if file], debug


def run() -> None:
    """The console script."""
    sys.exit(main())

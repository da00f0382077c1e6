"""Packages that do everything wrong a plugin can do, to be pip-installed together. The benchmark uses them too."""

from __future__ import annotations

import textwrap
from pathlib import Path

_REGISTERS = """
import distill

def spec(name="wanted"):
    return distill.FormatterSpec(name, "for a test", build=lambda options: None)

"""

# name → what is in its module, and what `distill plugins` says of it.
BROKEN: dict[str, tuple[str, str]] = {
    "import-error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax-error": ("def broken(:", "SyntaxError: invalid syntax"),
    "system-exit": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "os-error": ("open('/no/such/file')", "FileNotFoundError: "),
    "stale": ("", "ModuleNotFoundError: No module named 'gone_for_good'"),
    "no-attribute": ("", "AttributeError: module 'no_attribute_plugin' has no attribute 'plugin'"),
    "misspelt": (
        _REGISTERS + "@distill.hookimpl\ndef register_formater():\n    return [spec()]",
        "PluginValidationError: unknown hook 'register_formater'",
    ),
    "wrong-type": (
        _REGISTERS + "@distill.hookimpl\ndef register_formatters():\n    return ['wanted']",
        "register_formatters returned a str, not a FormatterSpec",
    ),
    "none": (
        _REGISTERS + "@distill.hookimpl\ndef register_formatters():\n    pass",
        "register_formatters returned NoneType, not FormatterSpecs",
    ),
    "half-way": (
        _REGISTERS + "@distill.hookimpl\ndef register_formatters():\n    yield spec()\n    1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "duplicate": (
        _REGISTERS + "@distill.hookimpl\ndef register_formatters():\n    return [spec(), spec('chat-template')]",
        "formatter 'chat-template' is already registered by plugin 'formatters'",
    ),
    "takes-command": (
        "import click, distill\n\n"
        "@distill.hookimpl\ndef register_commands(cli):\n    cli.add_command(click.Command('train'))",
        "command 'train' is already registered by distill itself",
    ),
}

# Loaded, and up to something all the same.
RUDE: dict[str, str] = {
    "prints": "print('hello from a plugin')",
    "sleeps": "import time\ntime.sleep(0.3)",
    "signals": (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, lambda *args: None)"
    ),
    "moody-teacher": """
        import distill

        class Moody:
            def ask(self, request):
                if "bad" in request.messages[-1].content:
                    raise KeyError("not in the mood")
                return distill.Answer(distill.Message("assistant", "fine"))

        @distill.hookimpl
        def register_teachers():
            return [distill.TeacherSpec("moody", "", build=lambda options, model: Moody())]
        """,
    "wrong-labels": """
        import distill

        class Short:
            def label(self, encoded):
                return encoded.input_ids[1:]

        class Foreign:
            def label(self, encoded):
                return [token + 1 for token in encoded.input_ids]

        @distill.hookimpl
        def register_labelers():
            return [
                distill.LabelerSpec("short", "", build=lambda options, encoder: Short()),
                distill.LabelerSpec("foreign", "", build=lambda options, encoder: Foreign()),
            ]
        """,
    "lying-formatter": """
        import distill

        class Liar:
            def special_tokens(self, tokenizer):
                return []

            def chat_template(self, tokenizer):
                return None

            def segments(self, messages, tokenizer, *, tools=None, add_generation_prompt=False):
                segments = []
                for turn, message in enumerate(messages):
                    role = "assistant" if "lie" in message.content else message.role
                    segments.append(distill.Segment(message.content, True, role, turn))
                    if message.role == "assistant":
                        segments.append(distill.Segment(tokenizer.eos_token, False, "assistant", turn, True))
                return segments

        @distill.hookimpl
        def register_formatters():
            return [distill.FormatterSpec("liar", "", build=lambda options: Liar())]
        """,
    "failing-observer": """
        import distill

        @distill.hookimpl
        def transcript_collected(transcript):
            raise OSError("disk full")

        @distill.hookimpl
        def training_finished(run):
            raise SystemExit(7)
        """,
}

_ENTRY = {"stale": "gone_for_good", "no-attribute": "no_attribute_plugin:plugin"}


def write_sources(folder: Path) -> list[Path]:
    """Write the source of a package `distill-NAME` for each of BROKEN and RUDE."""
    packages = []
    for name, source in [*((name, source) for name, (source, _) in BROKEN.items()), *RUDE.items()]:
        module = name.replace("-", "_") + "_plugin"
        package = folder / f"distill-{name}"
        package.mkdir(parents=True)
        (package / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        (package / "pyproject.toml").write_text(
            textwrap.dedent(f"""
                [build-system]
                requires = ["setuptools"]
                build-backend = "setuptools.build_meta"
                [project]
                name = "distill-{name}"
                version = "1.0"
                [project.entry-points.distill]
                {name} = "{_ENTRY.get(name, module)}"
                [tool.setuptools]
                py-modules = ["{module}"]
            """),
            encoding="utf-8",
        )
        packages.append(package)
    return packages

"""Packages that do everything wrong a plugin can do, to be pip-installed together. The benchmark uses them too."""

from __future__ import annotations

import textwrap
import zipfile
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


def write_wheels(folder: Path, without: tuple[str, ...] = ()) -> list[Path]:
    """Write a wheel `distill-NAME` for each of BROKEN and RUDE: pip installs them at once, with nothing to build."""
    sources = {name: source for name, (source, _) in BROKEN.items()} | RUDE
    return [_wheel(folder, name, textwrap.dedent(sources[name])) for name in sources if name not in without]


def _wheel(folder: Path, name: str, source: str) -> Path:
    module, info = name.replace("-", "_") + "_plugin", f"distill_{name.replace('-', '_')}-1.0.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: distill-{name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[distill]\n{name} = {_ENTRY.get(name, module)}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    path = folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path

"""`distill collect` as people type it: the teacher's name and options, the summary, and what may not happen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import distill
from distill.collection import make_teacher
from distill.errors import UsageError
from distill.plugins import PluginRecord


class Silent:
    """A teacher that only remembers what it was built with."""

    def __init__(self, options, model):
        self.options, self.model = options, model

    def ask(self, request):
        raise NotImplementedError


def built_local(options, model, manager):
    """One that runs a model is given the plugins too."""
    assert "own" in manager.teachers
    return Silent(options, model)


@pytest.fixture
def manager(tmp_path):
    """Teachers `own` (no options), `local` (loads models), the built-in ones, and a model `tiny`."""
    (tmp_path / "weights").mkdir()

    class Plugin:
        @distill.hookimpl
        def register_teachers(self):
            own = distill.TeacherSpec("own", "", Silent)
            return [own, distill.TeacherSpec("local", "", built_local, loads_models=True)]

        @distill.hookimpl
        def register_models(self):
            return [distill.ModelSpec("tiny", "", lambda: tmp_path / "weights")]

    manager = distill.make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    manager.load(PluginRecord("mine", "file"), Plugin)
    return manager


def test_name_and_model(manager, tmp_path):
    weights = str(tmp_path / "weights")
    for name, model in {
        "own": None,
        "own:m": "m",
        "own:a/b:c": "a/b:c",
        "own:tiny": "tiny",
        "local:tiny": weights,
        "local:x": "x",
    }.items():
        teacher = make_teacher(manager, name)
        assert (teacher.name, teacher.owner, teacher.build().model) == (name, "plugin 'mine'", model)


def test_a_models_name_alone_means_transformers(manager, tmp_path):
    teacher = make_teacher(manager, "tiny", {"batch_size": "3"})
    assert teacher.name == "tiny" and teacher.options.batch_size == 3
    assert teacher.build()._ref == str(tmp_path / "weights")


@pytest.mark.parametrize(
    ("name", "options", "kwargs", "says"),
    [
        ("gpt-5", {}, {}, "unknown teacher 'gpt-5'"),
        ("opnai:m", {}, {}, "unknown teacher 'opnai'"),
        ("openai:m", {"time": "1"}, {}, "'time'"),
        ("openai:m", {"timeout": "soon"}, {}, "timeout"),
        ("openai:m", {"timeout": "0"}, {}, "timeout"),
        ("openai:m", {"body": "[1]"}, {}, "body"),
        ("openai:m", {"max_tokens_field": "tokens"}, {}, "max_tokens_field"),
        ("openai:m", {"base_url": "x"}, {"base_url": "y"}, "both given"),
        ("own", {}, {"base_url": "x"}, "no --base-url"),
        ("transformers:x", {}, {"timeout": 3.0}, "no --timeout"),
    ],
)
def test_names_and_options_that_do_not_fit(manager, name, options, kwargs, says):
    with pytest.raises(UsageError) as caught:
        make_teacher(manager, name, options, **kwargs)
    assert says in caught.value.message


def test_options_reach_the_teacher(manager):
    options = make_teacher(manager, "openai:m", {"body": '{"a": 1}'}, base_url="http://x/v1", timeout=3.5).options
    assert (options.base_url, options.timeout, options.body) == ("http://x/v1", 3.5, {"a": 1})


@pytest.mark.parametrize("name", ["openai", "openai:", "replay", "transformers"])
def test_a_teacher_without_its_model(cli, prompts, out, name):
    ran = cli("collect", prompts(1), "--teacher", name, "--out", out)
    assert ran.code == 2 and f"--teacher {name.strip(':')}:" in ran.err


def test_the_summary_for_people(cli, prompts, out, server):
    words = ["collect", prompts(["a", "b", "a"]), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
    ran = cli(*words)
    assert (ran.code, ran.out) == (0, "")
    assert f"{out}: 2 written, 1 duplicate (2 requests, 6 tokens in and 4 out" in ran.err


def test_rows_of_other_prompts_are_told(cli, prompts, out, server):
    """Another --system asks for all again; what the old one gave stays, and is named."""
    words = ["collect", "--teacher", "openai:m", "--base-url", server.url, "--out", out]
    cli(*words, prompts(["a", "b", "c"]))
    ran = cli(*words, prompts(["a", "b", "c", "d"]), "--system", "s")
    assert "4 written" in ran.err and f"{out} also has 3 rows of other prompts" in ran.err
    assert cli(*words, prompts(["a", "b", "c"]), "--json").summary["others"] == 4
    assert "also has" not in cli(*words, prompts(["a", "b", "c"]), "--limit", 1).err


def test_text_of_others_cannot_drive_the_terminal(cli, prompts, tmp_path):
    plugin = tmp_path / "evil.py"
    plugin.write_text(
        "import distill\n"
        "class Evil:\n"
        "    async def ask(self, request):\n"
        "        fatal = 'fatal' in request.messages[0].content\n"
        "        raise distill.TeacherError('\\x1b]0;owned\\x07 \\u202e', fatal=fatal)\n"
        "@distill.hookimpl\n"
        "def register_teachers():\n"
        "    return [distill.TeacherSpec('evil', '', lambda options, model: Evil())]\n"
    )
    for text in ("a", "fatal"):
        ran = cli(
            "--plugin", plugin, "collect", prompts([text]), "--teacher", "evil", "--out", tmp_path / f"{text}.jsonl"
        )
        assert ran.code == 1 and "owned" in ran.err
        assert "\x1b" not in ran.err and "\u202e" not in ran.err


@pytest.mark.parametrize(
    "words", [[], ["--samples", 0], ["--temperature", -1], ["--retries", -1], ["--nonsense"], ["-T", "novalue"]]
)
def test_usage_errors(cli, prompts, out, words):
    base = ["collect", prompts(1), "--teacher", "openai:m", *(["--out", out] if words else [])]
    assert cli(*base, *words).code == 2
    assert not out.exists()


def test_nothing_heavy_is_imported(prompts, out, server):
    code = (
        "import sys; from distill.cli.main import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'datasets', 'trl', 'peft', 'accelerate', 'numpy'} & set(sys.modules); "
        "print(sorted(heavy)); sys.exit(code)"
    )
    words = ["collect", prompts(2), "--teacher", "openai:m", "--base-url", server.url, "--out", out]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert len(Path(out).read_text().splitlines()) == 2

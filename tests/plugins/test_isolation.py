"""A plugin cannot break the tool: whatever it does wrong is one line, and stops only a command that names it."""

from __future__ import annotations

import json
import textwrap

import pytest
from plugin_packages import distill, make_up, pip_install

FORMATTERS = """
import distill

def spec(name):
    return distill.FormatterSpec(name, "for a test", build=lambda options: None)
"""

HEALTHY = (
    FORMATTERS
    + """
@distill.hookimpl
def register_formatters():
    return [spec("fine")]
"""
)

# What a broken plugin does → what `distill plugins` says of it. Each would have registered the formatter `wanted`.
BROKEN = {
    "imports a missing module": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax error": ("def broken(:", "SyntaxError: invalid syntax (broken_plugin.py, line 1)"),
    "exits": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "exits without a word": ("raise SystemExit", "SystemExit"),
    "OSError": ("open('/no/such/file')", "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
    "message of many lines": (r"raise ValueError('one\ntwo\x1b[31m')", "ValueError: one"),
    "misspelt hook": (
        FORMATTERS + "@distill.hookimpl\ndef register_formater():\n    return [spec('wanted')]",
        "PluginValidationError: unknown hook 'register_formater'",
    ),
    "hook with an unknown argument": (
        FORMATTERS + "@distill.hookimpl\ndef register_formatters(config):\n    return [spec('wanted')]",
        "PluginValidationError: ",
    ),
    "returns None": (
        FORMATTERS + "@distill.hookimpl\ndef register_formatters():\n    pass",
        "register_formatters returned NoneType, not FormatterSpecs",
    ),
    "returns one spec": (
        FORMATTERS + "@distill.hookimpl\ndef register_formatters():\n    return spec('wanted')",
        "register_formatters returned FormatterSpec, not FormatterSpecs",
    ),
    "returns something else": (
        FORMATTERS + "@distill.hookimpl\ndef register_formatters():\n    return [spec('wanted'), 'wanted']",
        "register_formatters returned a str, not a FormatterSpec",
    ),
    "returns another kind": (
        FORMATTERS + "@distill.hookimpl\ndef register_labelers():\n    return [spec('wanted')]",
        "register_labelers returned a FormatterSpec, not a LabelerSpec",
    ),
    "raises half-way": (
        FORMATTERS + "@distill.hookimpl\ndef register_formatters():\n    yield spec('wanted')\n    1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "raises in its second hook": (
        FORMATTERS
        + "@distill.hookimpl\ndef register_formatters():\n    return [spec('wanted')]\n"
        + "@distill.hookimpl\ndef register_trainers():\n    raise LookupError('no trainers today')",
        "LookupError: no trainers today",
    ),
    "name of a built-in": (
        FORMATTERS
        + "@distill.hookimpl\ndef register_formatters():\n    return [spec('wanted'), spec('chat-template')]",
        "formatter 'chat-template' is already registered by plugin 'formatters'",
    ),
    "a name twice": (
        FORMATTERS + "@distill.hookimpl\ndef register_formatters():\n    return [spec('wanted'), spec('wanted')]",
        "formatter 'wanted' is registered twice by this plugin",
    ),
    "takes a command": (
        FORMATTERS
        + "import click\n"
        + "@distill.hookimpl\ndef register_formatters():\n    return [spec('wanted')]\n"
        + "@distill.hookimpl\ndef register_commands(cli):\n    cli.add_command(click.Command('plugins'))",
        "command 'plugins' is already registered by distill itself",
    ),
    "exits in register_commands": (
        FORMATTERS
        + "@distill.hookimpl\ndef register_formatters():\n    return [spec('wanted')]\n"
        + "@distill.hookimpl\ndef register_commands(cli):\n    raise SystemExit(3)",
        "SystemExit: 3",
    ),
    "no summary": (
        FORMATTERS
        + "@distill.hookimpl\ndef register_formatters():\n"
        + "    return [distill.FormatterSpec('wanted', None, build=print)]",
        "formatter 'wanted': its summary is not text",
    ),
}


def records(result):
    """The rows of `distill plugins --json`, by plugin."""
    return {record["name"]: record for record in map(json.loads, result.stdout.splitlines())}


def check_isolated(folder, name, error, owner):
    """The four things that hold beside a broken plugin, in as many runs."""
    line = f"distill: {owner} is not loaded: "

    shown = distill("plugins", "--json", path=[folder])
    assert shown.returncode == 0
    assert shown.stderr.startswith(line) and shown.stderr.count("\n") == 1
    found = records(shown)
    assert found[name]["error"].startswith(error)
    assert (found[name]["registers"], found[name]["hooks"]) == ({}, [])
    assert found["healthy"]["error"] is None
    assert found["healthy"]["registers"] == {"formatter": ["fine"]}

    for words in (["--help"], ["plugins"]):
        result = distill(*words, path=[folder])
        assert (result.returncode, result.stderr) == (0, shown.stderr)
    assert f"    broken: {error}" in result.stdout

    data = folder / "data.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    result = distill("show", data, "--student", folder, "--formatter", "wanted", path=[folder])
    assert result.returncode == 2
    assert "Error: unknown formatter 'wanted'" in result.stderr
    assert f"Not loaded: {owner} ({error}" in result.stderr.split("Hint: ")[1]


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin(tmp_path, case):
    source, error = BROKEN[case]
    make_up(tmp_path, "healthy", HEALTHY)
    make_up(tmp_path, "broken", source, version="1.2")
    check_isolated(tmp_path, "broken", error, "plugin 'broken' of distill-broken 1.2")


def test_stale_entry_point(tmp_path):
    make_up(tmp_path, "healthy", HEALTHY)
    make_up(tmp_path, "gone", None)
    error = "ModuleNotFoundError: No module named 'gone_plugin'"
    check_isolated(tmp_path, "gone", error, "plugin 'gone' of distill-gone 1.0")


def test_entry_point_to_a_missing_attribute(tmp_path):
    make_up(tmp_path, "healthy", HEALTHY)
    make_up(tmp_path, "empty", "", value="empty_plugin:plugin")
    error = "AttributeError: module 'empty_plugin' has no attribute 'plugin'"
    check_isolated(tmp_path, "empty", error, "plugin 'empty' of distill-empty 1.0")


def test_broken_plugin_that_pip_installed(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "broken_plugin.py").write_text("raise RuntimeError('not today')")
    (source / "pyproject.toml").write_text(
        textwrap.dedent("""
            [build-system]
            requires = ["setuptools"]
            build-backend = "setuptools.build_meta"
            [project]
            name = "distill-pip-installed"
            version = "3.1"
            [project.entry-points.distill]
            broken = "broken_plugin"
            [tool.setuptools]
            py-modules = ["broken_plugin"]
        """)
    )
    site = tmp_path / "site"
    pip_install(site, source)
    make_up(site, "healthy", HEALTHY)
    check_isolated(site, "broken", "RuntimeError: not today", "plugin 'broken' of distill-pip-installed 3.1")


def test_two_packages_with_the_same_name_registered(tmp_path):
    make_up(tmp_path, "afirst", HEALTHY, version="2.0")
    make_up(tmp_path, "zsecond", HEALTHY)
    result = distill("plugins", "--json", path=[tmp_path])
    assert result.stderr == (
        "distill: plugin 'zsecond' of distill-zsecond 1.0 is not loaded: "
        "formatter 'fine' is already registered by plugin 'afirst' of distill-afirst 2.0\n"
    )


def test_two_packages_with_the_same_entry_point(tmp_path):
    make_up(tmp_path, "healthy", HEALTHY)
    other = make_up(tmp_path, "other", HEALTHY.replace("fine", "finer"))
    (other / "distill_other-1.0.dist-info/entry_points.txt").write_text("[distill]\nhealthy = other_plugin\n")
    result = distill("plugins", "--json", path=[tmp_path])
    assert result.stderr == (
        "distill: plugin 'healthy' of distill-other 1.0 is not loaded: "
        "its name is taken by plugin 'healthy' of distill-healthy 1.0\n"
    )


def test_one_module_under_two_names(tmp_path):
    """The second is refused, and the first keeps all its hooks."""
    observer = "\n@distill.hookimpl\ndef training_finished(run, result):\n    pass\n"
    folder = make_up(tmp_path, "healthy", HEALTHY + observer)
    (folder / "distill_healthy-1.0.dist-info/entry_points.txt").write_text(
        "[distill]\nhealthy = healthy_plugin\nsecond = healthy_plugin\n"
    )
    found = records(distill("plugins", "--json", path=[tmp_path]))
    assert found["healthy"]["error"] is None
    assert found["healthy"]["hooks"] == ["training_finished"]
    assert "already registered under" in found["second"]["error"]


def test_an_older_version_further_down_the_path_is_not_loaded(tmp_path):
    new = make_up(tmp_path / "new", "healthy", HEALTHY, version="2.0")
    old = make_up(tmp_path / "old", "healthy", "1 / 0", version="1.0", value="healthy_plugin:other")
    result = distill("plugins", "--json", path=[new, old])
    assert result.stderr == ""
    assert records(result)["healthy"]["version"] == "2.0"


@pytest.mark.parametrize("damage", ["no METADATA", "entry points that are none", "entry points that are no text"])
def test_damaged_metadata_of_a_package(tmp_path, damage):
    make_up(tmp_path, "healthy", HEALTHY)
    info = make_up(tmp_path, "damaged", FORMATTERS) / "distill_damaged-1.0.dist-info"
    if damage == "no METADATA":
        (info / "METADATA").unlink()
    elif damage == "entry points that are none":
        (info / "entry_points.txt").write_text("[distill]\nno equals sign\n")
    else:
        (info / "entry_points.txt").write_bytes(b"\xff\xfe[\0")
    result = distill("plugins", "--json", path=[tmp_path])
    assert (result.returncode, result.stderr) == (0, "")
    assert records(result)["healthy"]["registers"] == {"formatter": ["fine"]}


def test_what_a_plugin_prints_stays_off_standard_output(tmp_path):
    source = HEALTHY + textwrap.dedent("""
        print("at import")

        @distill.hookimpl
        def register_teachers():
            print("when registering")
            return []

        @distill.hookimpl
        def register_commands(cli):
            print("with commands")
    """)
    make_up(tmp_path, "chatty", source)
    result = distill("plugins", "--json", path=[tmp_path])
    assert records(result)["chatty"]["error"] is None
    assert result.stderr.splitlines() == ["at import", "when registering", "with commands"]


def test_commands_of_plugins(tmp_path):
    source = """
import click, distill

@distill.hookimpl
def register_commands(cli):
    @cli.command("greet")
    @click.pass_obj
    def greet(manager):
        "Say hello."
        print("hello from", type(manager).__name__)
        raise distill.DataError("greetings.txt:3: no such name", "try another")
"""
    make_up(tmp_path, "afirst", source)
    make_up(tmp_path, "zsecond", source)
    result = distill("greet", path=[tmp_path])
    assert (result.returncode, result.stdout) == (1, "hello from PluginManager\n")
    assert result.stderr.splitlines() == [
        "distill: plugin 'zsecond' of distill-zsecond 1.0 is not loaded: "
        "command 'greet' is already registered by plugin 'afirst' of distill-afirst 1.0",
        "Error: greetings.txt:3: no such name",
        "Hint: try another",
    ]
    assert "Say hello." in distill("--help", path=[tmp_path]).stdout


def test_choosing_plugins(tmp_path):
    make_up(tmp_path, "healthy", HEALTHY)
    make_up(tmp_path, "broken", "1 / 0")

    def loaded(**variables):
        result = distill("plugins", "--json", path=[tmp_path], **variables)
        found = records(result)
        assert result.stderr.count("not loaded") == ("broken" in found)
        assert {"teachers", "formatters", "labelers", "trainers"} <= set(found)  # the built-in ones always are
        return {
            name for name, record in found.items() if record["distribution"] in ("distill-healthy", "distill-broken")
        }

    assert loaded() == {"healthy", "broken"}
    assert loaded(DISTILL_PLUGINS="healthy") == {"healthy"}
    assert loaded(DISTILL_PLUGINS=" healthy , broken,") == {"healthy", "broken"}
    assert loaded(DISTILL_PLUGINS="") == set()
    assert loaded(DISTILL_DISABLE="broken") == {"healthy"}
    assert loaded(DISTILL_DISABLE="formatters,broken") == {"healthy"}
    assert loaded(DISTILL_PLUGINS="healthy", DISTILL_DISABLE="healthy") == set()


def test_a_file_as_plugin(tmp_path):
    file = tmp_path / "my plugin.py"
    file.write_text(HEALTHY)
    for words in (["--plugin", file, "plugins", "--json"], [f"--plugin={file}", "plugins", "--json"]):
        result = distill(*words)
        assert (result.returncode, result.stderr) == (0, "")
        record = records(result)[str(file)]
        assert (record["origin"], record["registers"]) == ("file", {"formatter": ["fine"]})


@pytest.mark.parametrize(
    ("name", "source", "error"),
    [
        ("broken.py", "def", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("missing.py", None, "no such file: missing.py"),
        ("data.json", "{}", "data.json is not a Python file"),
    ],
)
def test_a_broken_file_as_plugin(tmp_path, name, source, error):
    if source is not None:
        (tmp_path / name).write_text(source)
    result = distill("--plugin", name, "plugins", "--json", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == f"distill: plugin {name!r} is not loaded: {error}\n"
    assert records(result)[name]["error"] == error


def test_signals_are_not_a_plugins_failure(tmp_path):
    file = tmp_path / "slow.py"
    for signal, code in (("SIGTERM", 143), ("SIGINT", 130)):
        file.write_text(f"import os, signal; os.kill(os.getpid(), signal.{signal})")
        result = distill("--plugin", file, "plugins")
        assert (result.returncode, result.stdout) == (code, "")

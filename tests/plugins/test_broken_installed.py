"""Packages that do everything wrong, pip-installed together: the tool works, and blames each by name and row."""

from __future__ import annotations

import json
import signal

import pytest
from broken_plugins import BROKEN, RUDE, write_wheels
from plugin_packages import distill, pip_install

from distill.cli.main import main


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All of them, installed by pip in one go."""
    target = tmp_path_factory.mktemp("broken")
    pip_install(target, *write_wheels(tmp_path_factory.mktemp("wheels")))
    return target


@pytest.fixture
def cli(site, monkeypatch, capsys):
    """Run `distill` in this process, with all of them installed; gives exit code, output, and errors but the usual."""
    monkeypatch.syspath_prepend(str(site))

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, [line for line in err.splitlines() if not is_usual(line)]

    return run


def is_usual(line):
    """What standard error holds at the start of every command: a line for each broken plugin, and one that prints."""
    return (line.startswith("distill: plugin ") and " is not loaded: " in line) or line == "hello from a plugin"


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def chats(tmp_path):
    """Three conversations; the format `liar` lies about the second."""
    file = tmp_path / "chats.jsonl"
    said = ["truth", "a lie", "truth again"]
    messages = [[{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}] for text in said]
    file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in messages))
    return file


def test_each_is_one_line_in_the_help_of_everything(site):
    done = distill("--help", path=[site])
    assert done.returncode == 0 and "collect" in done.stdout
    assert "hello from a plugin" not in done.stdout
    lines = done.stderr.splitlines()
    assert all(is_usual(line) for line in lines)
    for name, (_, error) in BROKEN.items():
        (line,) = [line for line in lines if f"plugin {name!r} of distill-{name} 1.0 is not loaded: " in line]
        assert error in line
    assert len(lines) == len(BROKEN) + 1


def test_the_listing_tells_all(site):
    done = distill("plugins", "--json", path=[site])
    assert done.returncode == 0
    found = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    for name, (_, error) in BROKEN.items():
        assert error in found[name]["error"]
        assert (found[name]["registers"], found[name]["hooks"]) == ({}, [])
    for name in RUDE:
        assert found[name]["error"] is None
    assert found["sleeps"]["seconds"] > 0.25
    assert not any("wanted" in names for row in found.values() for names in row["registers"].values())
    timing = distill("plugins", "--timing", path=[site]).stdout
    (line,) = [line for line in timing.splitlines() if line.startswith("sleeps ")]
    assert float(line.split()[-2]) > 250 and line.endswith(" ms")


def test_collecting_works_beside_them(cli, tmp_path, chats):
    (tmp_path / "prompts.txt").write_text("truth\n")
    code, _, err = cli(
        "collect", tmp_path / "prompts.txt", "--teacher", f"replay:{chats}", "--out", tmp_path / "out.jsonl"
    )
    assert code == 0 and len(rows(tmp_path / "out.jsonl")) == 1
    assert "distill: plugin 'failing-observer' failed in transcript_collected: OSError: disk full" in err


def test_training_works_beside_them(cli, tmp_path, chats, bloom):
    code, out, err = cli("train", chats, "--student", bloom, "--epochs", "1", "--out", tmp_path / "run", "--json")
    assert code == 0, err
    assert json.loads(out)["trained_rows"] == 3
    assert (tmp_path / "run/model/config.json").is_file()
    assert "distill: plugin 'failing-observer' failed in training_finished: SystemExit: 7" in err


def test_a_teacher_that_raises_for_some_prompts(cli, tmp_path):
    (tmp_path / "prompts.txt").write_text("good one\nbad one\ngood two\n")
    out = tmp_path / "out.jsonl"
    code, _, err = cli("collect", tmp_path / "prompts.txt", "--teacher", "moody", "--out", out)
    assert code == 1
    assert [row["messages"][0]["content"] for row in rows(out)] in (["good one", "good two"], ["good two", "good one"])
    (failed,) = rows(tmp_path / "out.jsonl.failed.jsonl")
    blame = "plugin 'moody-teacher' of distill-moody-teacher 1.0 failed: KeyError: 'not in the mood'"
    assert failed["error"] == blame
    assert failed["source"]["line"] == 2
    assert any(blame in line for line in err)


@pytest.mark.parametrize(
    ("labeler", "complaint"),
    [("short", "expected one label per token"), ("foreign", "is neither the token's id")],
)
def test_a_labeler_that_returns_wrong_lengths_or_ids(cli, tmp_path, chats, bloom, labeler, complaint):
    code, _, err = cli("train", chats, "--student", bloom, "--labeler", labeler, "--out", tmp_path / "run", "--dry-run")
    assert code == 1
    (error,) = [line for line in err if line.startswith("Error: ")]
    assert f"labeler {labeler!r} on {chats}:1: " in error and complaint in error
    assert not (tmp_path / "run").exists()


def test_a_formatter_that_lies_about_roles(cli, tmp_path, chats, bloom):
    code, _, err = cli("train", chats, "--student", bloom, "--formatter", "liar", "--out", tmp_path / "run")
    assert code == 1
    (error,) = [line for line in err if line.startswith("Error: ")]
    assert f"{chats}:2: formatter 'liar' attributes message 0 to assistant, but its role is user" in error


def test_whoever_does_not_ask_for_them_is_not_stopped(cli, chats, bloom):
    code, out, err = cli("show", chats, "--student", bloom, "--json")
    assert (code, err, len(out.splitlines())) == (0, [], 3)


def test_signal_handlers_of_a_plugin_do_not_stay(cli):
    """Ctrl-C stays the user's: in the tool (SIGTERM is its own while it runs) and after it."""
    before = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
    assert cli("plugins")[0] == 0
    assert [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)] == before


def test_a_signal_stops_the_tool_beside_a_plugin_that_ignores_it(site, tmp_path):
    file = tmp_path / "late.py"
    file.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nimport time\ntime.sleep(60)")
    done = distill("--plugin", file, "plugins", path=[site])
    assert (done.returncode, done.stdout) == (143, "")

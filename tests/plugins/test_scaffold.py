"""`distill plugins new`: what it writes installs, is found, passes its own tests and is clean, whatever its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from plugin_packages import distill, environment, pip_install

from distill import DistillError, UsageError
from distill.cli.main import main
from distill.scaffold import KINDS, LONGEST, new_plugin

NAMES = {
    "formatter": "shout",
    "labeler": "a-b-1",
    "teacher": "message",  # as a class and a variable of the templates
    "trainer": "distant-relative",
    "exporter": "shelf",
    "loss": "grief",
    "dialect": "quiz",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A new package of each kind."""
    assert set(NAMES) == set(KINDS)
    folder = tmp_path_factory.mktemp("new")
    return [new_plugin(name, kind, folder) for kind, name in NAMES.items()]


@pytest.fixture(scope="module")
def site(packages, tmp_path_factory):
    """All of them installed by pip."""
    target = tmp_path_factory.mktemp("site")
    pip_install(target, *packages)
    return target


def test_they_are_found_once_installed(site, packages):
    done = distill("plugins", "--json", path=[site])
    assert done.stderr == ""
    found = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    for kind, package in zip(NAMES, packages, strict=True):
        name = package.name.removeprefix("distill-")
        row = found[name]
        assert (row["registers"], row["distribution"], row["version"]) == ({kind: [name]}, package.name, "0.1.0")
        assert (row["error"], row["heavy"]) == (None, [])


def test_their_own_tests_pass(site, packages, tmp_path):
    for package in packages:
        shutil.copytree(package / "tests", tmp_path / package.name)
    words = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env=environment([site]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout and "warning" not in done.stdout


@pytest.mark.parametrize("words", [["check"], ["format", "--check"]], ids=" ".join)
def test_they_are_clean(packages, words, tmp_path):
    longest = "a-very-" + "o" * (LONGEST - 7)
    packages = [*packages, *(new_plugin(f"{longest[:-9]}{kind}", kind, tmp_path) for kind in KINDS)]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "--no-cache", *packages], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_nothing_of_the_template_is_left(packages):
    for package in packages:
        name = package.name.removeprefix("distill-")
        for file in package.rglob("*"):
            assert "my_plugin" not in file.name and not file.name.endswith("-tpl")
            if file.is_file():
                text = file.read_text(encoding="utf-8")
                assert not any(word in text for word in ("my-plugin", "my_plugin", "MyPlugin", "KIND"))
                assert name in text or name.replace("-", "_") in text
        assert {file.name for file in package.iterdir()} == {
            "README.md", "pyproject.toml", "tests", f"distill_{name.replace('-', '_')}.py"
        }  # fmt: skip


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "loud", "--kind", "formatter"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "distill-loud/README.md",
        "distill-loud/distill_loud.py",
        "distill-loud/pyproject.toml",
        "distill-loud/tests/test_distill_loud.py",
    ]
    assert err == "next: pip install -e distill-loud && distill plugins check loud\n"
    before = (tmp_path / "distill-loud/distill_loud.py").read_bytes()
    assert main(["plugins", "new", "distill-loud", "--kind", "labeler"]) == 1
    assert capsys.readouterr().err.splitlines()[0] == "Error: distill-loud exists already"
    assert (tmp_path / "distill-loud/distill_loud.py").read_bytes() == before
    assert main(["plugins", "new", "quiet", "--kind", "teacher", "--in", "some/where"]) == 0
    assert (tmp_path / "some/where/distill-quiet/distill_quiet.py").is_file()
    assert main(["plugins", "new", "quiet", "--kind", "model"]) == 2
    assert main(["plugins", "new", "quiet"]) == 2


@pytest.mark.parametrize(
    "name", ["", "Loud", "1up", "a_b", "a--b", "-a", "a-", "a b", "../a", "a" * (LONGEST + 1), "é"]
)
def test_names_that_cannot_be_a_packages_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be the name of a plugin"):
        new_plugin(name, "formatter", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_taken_are_refused(tmp_path, manager):
    with pytest.raises(UsageError, match="labeler 'masked' is registered by plugin 'labelers' already"):
        new_plugin("masked", "labeler", tmp_path, manager)
    with pytest.raises(UsageError, match="there is a plugin 'labelers' already"):
        new_plugin("labelers", "teacher", tmp_path, manager)
    with pytest.raises(UsageError, match="unknown kind of plugin 'lodeler'"):
        new_plugin("x", "lodeler", tmp_path, manager)
    assert new_plugin("masked", "teacher", tmp_path, manager).is_dir()  # another kind's name is free


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DistillError, match="cannot be written: "):
        new_plugin("x", "teacher", tmp_path / "file")

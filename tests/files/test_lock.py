"""One process writes; another one is refused and learns who it is, or is warned where there are no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distill.errors import DistillError
from distill.files.atomic import whole_folder
from distill.files.jsonl import Appender
from distill.files.lock import owned

HOLD = """
import sys, pathlib
from distill.files.lock import owned
with owned(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that owns a path until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_named(tmp_path):
    target = tmp_path / "new" / "run"
    with hold(target) as process:
        who = rf" \(process {process.pid}\)" if Path("/proc/locks").is_file() else ""
        with pytest.raises(DistillError, match=rf"run: another process is writing to it{who}$"), owned(target):
            pass
        process.stdin.close()
    with owned(target):
        pass
    assert list(target.parent.iterdir()) == []


def test_a_killed_holder_holds_nothing(tmp_path):
    process = hold(tmp_path / "run")
    process.kill()
    process.wait()
    with owned(tmp_path / "run"):
        pass


def test_only_one_of_many_owns_it_at_a_time(tmp_path):
    """The lock's file is deleted at each end: nobody may hold a deleted one beside a new one."""
    inside, most, refused = [], [], []

    def work():
        for _ in range(200):
            try:
                with owned(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except DistillError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) + len(refused) == 800


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog, number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with Appender(tmp_path / "out.jsonl") as appender, owned(tmp_path / "run"):
        appender.append({"a": 1})
    assert len(caplog.messages) == 2
    assert "cannot be locked" in caplog.messages[0] and "no other process writes to it" in caplog.messages[0]
    assert (tmp_path / "out.jsonl").read_text() == '{"a": 1}\n'


def test_a_folder_that_somebody_made_first_is_an_error(tmp_path):
    target = tmp_path / "model"

    def race(replaceable):
        with whole_folder(target, replaceable=replaceable) as made:
            (made / "mine").touch()
            target.mkdir(exist_ok=True)
            (target / "theirs").touch()

    with pytest.raises(DistillError, match="another process has made it meanwhile"):
        race(replaceable=False)
    race(replaceable=True)
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

"""`distill doctor`: independent checks, whatever is broken; no secret is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import namedtuple

import pytest

from distill import diagnosis as doctor
from distill.cli.main import main
from distill.diagnosis import examine
from distill.plugins import make_plugin_manager

SECRET = "sk-hunter2hunter2hunter2"


@pytest.fixture
def quick(monkeypatch):
    """No process of its own is started: they import torch."""
    device = {"kind": "cuda", "gpus": [{"name": "H100", "free": 70e9, "total": 80e9}], "bf16": True, "threads": 2}
    monkeypatch.setattr(doctor, "_in_a_process", lambda code, *words: (json.dumps(device), None))
    monkeypatch.setenv("DISTILL_PLUGINS", "")


def probes(*files: object, **words: bool) -> dict[str, doctor.Probe]:
    """All that is found, by name."""
    manager = make_plugin_manager(files, environ={"DISTILL_PLUGINS": ""})
    return {probe.name: probe for probe in examine(manager, **words)}


def test_it_looks_at_everything(quick):
    found = probes()
    assert {probe.area for probe in found.values()} == {
        "python",
        "packages",
        "devices",
        "disk",
        "keys",
        "hub",
        "plugins",
    }
    assert found["cuda:0"].detail == "H100, 70.0 GB of 80.0 GB free, bf16"
    assert [probe for probe in found.values() if probe.state == "broken"] == []


def test_no_secret_is_shown(quick, monkeypatch, capsys):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    for name in ("HTTPS_PROXY", "http_proxy", "HF_ENDPOINT", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, f"http://me:{SECRET}@proxy.example")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for words in (["doctor"], ["doctor", "--json"], ["--debug", "doctor"]):
        main(words)
        said = "".join(capsys.readouterr())
        assert "OPENAI_API_KEY" in said and "HTTPS_PROXY" in said
        assert SECRET[:4] not in said and "hunter2" not in said and "proxy.example" not in said


def test_a_cuda_build_on_a_machine_without_a_gpu_is_a_warning(quick, monkeypatch, capsys):
    device = {"kind": "cpu", "gpus": [], "bf16": None, "threads": 2, "cuda": "12.8", "bfloat16_gain": 1.0}
    monkeypatch.setattr(doctor, "_in_a_process", lambda code, *words: (json.dumps(device), None))
    (warning,) = [
        probe for probe in examine(make_plugin_manager(environ={})) if (probe.area, probe.name) == ("devices", "torch")
    ]
    assert warning.state == "warning" and "built for CUDA 12.8, but there is no GPU: " in warning.detail
    assert "GB" in warning.detail and "whl/cpu" in warning.hint
    device["cuda"] = None
    assert "torch" not in {probe.name for probe in examine(make_plugin_manager(environ={})) if probe.area == "devices"}


@pytest.mark.parametrize(("gain", "told"), [(1.2, False), (4.6, True)])
def test_a_cpu_that_is_faster_in_bfloat16_is_told(quick, monkeypatch, gain, told):
    device = {"kind": "cpu", "gpus": [], "bf16": None, "threads": 2, "cuda": None, "bfloat16_gain": gain}
    monkeypatch.setattr(doctor, "_in_a_process", lambda code, *words: (json.dumps(device), None))
    assert ("4.6 times as fast in bfloat16 (train -T bf16=true)" in probes()["accelerator"].detail) == told


@pytest.mark.parametrize(
    ("states", "last"),
    [
        (["ok", "unset"], "All is well."),
        (["ok", "warning"], "1 warning: see the lines with ✗ and !"),
        (["broken", "warning", "warning"], "1 broken, 2 warnings: see the lines with ✗ and !"),
    ],
)
def test_it_ends_in_a_summary(monkeypatch, capsys, states, last):
    found = [doctor.Probe("keys", f"KEY_{n}", state, "…") for n, state in enumerate(states)]
    monkeypatch.setattr(doctor, "examine", lambda manager, self_test: found)
    assert main(["doctor"]) == ("broken" in states)
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_key_that_is_not_set_is_not_ticked(quick, monkeypatch, capsys):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    main(["doctor"])
    assert "  – ANTHROPIC_API_KEY: not set (teacher anthropic)" in capsys.readouterr().out.splitlines()


def test_keys_are_those_that_teachers_read(quick, monkeypatch, tmp_path):
    plugin = tmp_path / "keyed.py"
    plugin.write_text(
        "import dataclasses, distill\n\n\n@dataclasses.dataclass\nclass Options:\n    api_key_env: str = 'MY_KEY'\n\n\n"
        "@distill.hookimpl\ndef register_teachers():\n"
        "    return [distill.TeacherSpec('keyed', '', lambda options, model: None, Options)]\n"
    )
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    monkeypatch.delenv("MY_KEY", raising=False)
    found = probes(plugin)
    assert found["MY_KEY"].detail == "not set (teacher keyed)"
    assert (found["OPENAI_API_KEY"].state, found["OPENAI_API_KEY"].detail) == (
        "warning",
        "set, but empty (teacher openai)",
    )


def test_a_broken_plugin_is_named_with_its_reason(quick, tmp_path, capsys):
    plugin = tmp_path / "bad.py"
    plugin.write_text("import no_such_module\n")
    assert main(["--plugin", str(plugin), "doctor", "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (broken,) = (row for row in rows if row["state"] == "broken")
    assert broken["area"] == "plugins" and "no_such_module" in broken["detail"] and broken["hint"]


def test_versions_outside_the_range_and_packages_that_lack_are_broken(quick, monkeypatch):
    wanted = ["click>=99", "no-such-package>=1.0", "pluggy>=1.0", "bitsandbytes>=0.1; extra == 'qlora'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    found = probes()
    assert found["click"].state == "broken" and "distill needs >=99" in found["click"].detail
    assert found["no-such-package"].hint == "pip install 'no-such-package>=1.0'"
    assert found["pluggy"].state == "ok"


def test_a_full_disk_and_a_folder_that_cannot_be_written(quick, monkeypatch, tmp_path):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10e9, 9e9, 1e9))
    assert probes()["working folder"].state == "warning"
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert probes()["working folder"].state == "broken"


def test_a_look_that_fails_is_a_finding_and_the_others_go_on(quick, monkeypatch, capsys):
    def fail(*args):
        raise RuntimeError("no such file: /proc")

    monkeypatch.setattr(doctor, "_memory", fail)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "this check failed: RuntimeError: no such file" in said
    assert "plugins" in said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('no libcudart.so')", "ImportError: no libcudart.so"),
        ("import os; os.abort()", "its process was killed by signal 6"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_a_finding(tmp_path, code, said):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(code)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "DISTILL_PLUGINS": ""}
    command = [sys.executable, "-m", "distill", "doctor", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    broken = [row for row in rows if row["state"] == "broken"]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [(row["area"], row["name"]) for row in broken] == [("packages", "torch"), ("devices", "torch")]
    assert all(said in row["detail"] for row in broken)


@pytest.mark.slow
def test_the_self_test_trains_a_student():
    (found,) = list(doctor._self_test())
    assert found.state == "ok", found
    assert "trained for one step" in found.detail

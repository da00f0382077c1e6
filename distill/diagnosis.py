"""Environment diagnosis: versions, devices, disk, keys, plugins, and whether training works.

The checks are independent: one that fails is a finding like any other. What may crash or hang (torch, a GPU's driver)
is checked in a process of its own. Nothing is contacted, and no secret is shown.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from distill.errors import one_line
from distill.models.device import describe_gain
from distill.models.references import cache_dir
from distill.plugins import PluginManager

PACKAGE = "distill-chat"

_LOW_DISK = 5e9
"""Bytes; a student of a billion parameters and its checkpoints need more."""

_TIMEOUT = 180
"""Seconds for a process of its own; importing torch from a slow disk takes a minute."""

_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"

_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "peft", "trl")

_IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, flush=True)
    importlib.import_module(name)
"""

_DEVICES = """
import json, torch
from distill.models.device import best_device, bfloat16_gain
found = []
if torch.cuda.is_available():
    for n in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(n)
        found.append({"name": torch.cuda.get_device_name(n), "free": free, "total": total})
kind = best_device()
bf16 = torch.cuda.is_bf16_supported() if kind == "cuda" else None
facts = {"kind": kind, "gpus": found, "bf16": bf16, "threads": torch.get_num_threads(), "cuda": torch.version.cuda}
facts["bfloat16_gain"] = bfloat16_gain(1024) if kind == "cpu" else 1
print(json.dumps(facts))
"""

_SELF_TEST = """
import json, pathlib, sys, tempfile
from distill.plugins import make_plugin_manager
from distill.testing import save_student, tiny_bloom
from distill.training import TrainSettings, train
with tempfile.TemporaryDirectory() as folder:
    at = pathlib.Path(folder)
    save_student(*tiny_bloom(), at / "student")
    row = {"messages": [{"role": "user", "content": "dog?"}, {"role": "assistant", "content": "perro"}]}
    (at / "data.jsonl").write_text(json.dumps(row))
    settings = TrainSettings(str(at / "student"), (at / "data.jsonl",), at / "run", epochs=1,
                             trainer_options={"use_cpu": "true"})
    report = train(settings, make_plugin_manager(environ={"DISTILL_PLUGINS": ""}))
    assert report.steps == 1 and (at / "run" / "model" / "model.safetensors").is_file(), report
    print(json.dumps({"loss": report.loss}))
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that was checked.

    Attributes:
        area: python, packages, devices, disk, keys, hub, plugins, self-test.
        name: the thing.
        state: broken: something will not work; warning: something may not; unset: an optional thing is not there.
        detail: what was found, on one line.
        hint: how to fix it.
    """

    area: str
    name: str
    state: Literal["ok", "unset", "warning", "broken"]
    detail: str
    hint: str | None = None


def examine(manager: PluginManager, *, self_test: bool = False) -> Iterator[Probe]:
    """Check everything, one thing after the other.

    Args:
        manager: the plugins, including those that failed.
        self_test: also train a tiny random student for one step on the CPU.
    """
    looks: list[tuple[str, Callable[[], Iterator[Probe]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("packages", _imports),
        ("devices", _devices),
        ("disk", _disk),
        ("keys", lambda: _keys(manager)),
        ("hub", _hub),
        ("plugins", lambda: _plugins(manager)),
    ]
    if self_test:
        looks.append(("self-test", _self_test))
    for area, look in looks:
        try:
            yield from look()
        except Exception as error:  # a check that fails is a finding, and the others still run
            yield Probe(area, area, "broken", f"this check failed: {one_line(error)}")


def _python() -> Iterator[Probe]:
    yield Probe("python", "python", "ok", f"{platform.python_version()} ({sys.executable}), {platform.platform()}")
    with_distill = _version(PACKAGE)
    if with_distill is None:
        hint = "pip install it: entry points and version ranges are in its metadata"
        yield Probe("python", PACKAGE, "warning", "runs from its source, not installed", hint)
    else:
        yield Probe("python", PACKAGE, "ok", with_distill)


def _packages() -> Iterator[Probe]:
    """The dependencies, in the versions that the package declares."""
    from packaging.requirements import Requirement

    if _version(PACKAGE) is None:
        return
    for requirement in map(Requirement, metadata.requires(PACKAGE) or ()):
        optional = "extra" in str(requirement.marker)
        if requirement.marker and not optional and not requirement.marker.evaluate():
            continue
        found, wanted = _version(requirement.name), str(requirement.specifier)
        hint = f"pip install '{requirement.name}{wanted}'"
        if found is None and not optional:
            yield Probe("packages", requirement.name, "broken", f"not installed; distill needs {wanted}", hint)
        elif found is not None and not requirement.specifier.contains(found, prereleases=True):
            yield Probe("packages", requirement.name, "broken", f"{found}; distill needs {wanted}", hint)
        elif found is not None:
            yield Probe("packages", requirement.name, "ok", f"{found} ({wanted})")


def _imports() -> Iterator[Probe]:
    """Whether the libraries can be imported; those after one that cannot are not tried: they need it."""
    libraries = [library for library in _LIBRARIES if _version(library)]
    tried, error = _in_a_process(_IMPORTS, *libraries)
    if error is None:
        yield Probe("packages", "imports", "ok", ", ".join(libraries))
    else:
        detail, hint = f"it cannot be imported: {error}", f"pip install --force-reinstall {tried}"
        yield Probe("packages", tried or "imports", "broken", detail, hint)


def _devices() -> Iterator[Probe]:
    memory = _memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Probe("devices", "cpu", "ok", f"{cores} cores, {_size(memory)} of memory")
    out, error = _in_a_process(_DEVICES)
    if error is not None:
        hint = "pip install --force-reinstall torch; with a GPU, in the version of its driver"
        yield Probe("devices", "torch", "broken", error, hint)
        return
    found = json.loads(out)
    for n, gpu in enumerate(found["gpus"]):
        bf16 = "bf16" if found["bf16"] else "no bf16: training is in float32"
        detail = f"{gpu['name']}, {_size(gpu['free'])} of {_size(gpu['total'])} free, {bf16}"
        yield Probe("devices", f"cuda:{n}", "ok", detail)
    if found["kind"] == "cpu":
        detail = f"none: training runs on the CPU, with {found['threads']} threads"
        if (gain := describe_gain(found["bfloat16_gain"])) is not None:
            detail += f"; {gain} (train -T bf16=true)"
        yield Probe("devices", "accelerator", "unset", detail)
        if found.get("cuda"):
            detail = (
                f"built for CUDA {found['cuda']}, but there is no GPU: {_size(_cuda_size())} that are of no use here"
            )
            hint = "with a GPU, check its driver; without one: pip install torch --index-url " + _CPU_WHEELS
            yield Probe("devices", "torch", "warning", detail, hint)
    elif not found["gpus"]:
        yield Probe("devices", "accelerator", "ok", found["kind"])


def _cuda_size() -> int:
    """Bytes on disk of torch and of the CUDA libraries that came with it."""
    packages = [one for one in metadata.distributions() if (one.name or "").startswith(("torch", "nvidia-", "triton"))]
    return sum(file.size or 0 for package in packages for file in package.files or ())


def _disk() -> Iterator[Probe]:
    from huggingface_hub import constants

    hub = Path(constants.HF_HUB_CACHE)
    for name, path in (("working folder", Path.cwd()), ("distill's cache", cache_dir()), ("models' cache", hub)):
        path = path.expanduser()
        there = next(one for one in (path, *path.parents) if one.exists())
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK):
            yield Probe("disk", name, "broken", f"{path} cannot be written", "choose another, or fix its permissions")
        elif free < _LOW_DISK:
            hint = "students and checkpoints take gigabytes: `distill train --dry-run` estimates how many"
            yield Probe("disk", name, "warning", f"{_size(free)} free at {path}", hint)
        else:
            yield Probe("disk", name, "ok", f"{_size(free)} free at {path}")


def _keys(manager: PluginManager) -> Iterator[Probe]:
    """Whether the keys that teachers read are set; never their values."""
    names = {"HF_TOKEN": "the hub's private models"}
    for spec in manager.teachers:
        for option in dataclasses.fields(spec.options) if dataclasses.is_dataclass(spec.options) else ():
            if option.name == "api_key_env" and isinstance(option.default, str):
                names[option.default] = f"teacher {spec.name}"
    for name, used_by in sorted(names.items()):
        value = os.environ.get(name)
        if value is not None and not value.strip():
            yield Probe("keys", name, "warning", f"set, but empty ({used_by})", f"unset it, or export {name}=…")
        elif value:
            yield Probe("keys", name, "ok", f"set ({used_by})")
        else:
            yield Probe("keys", name, "unset", f"not set ({used_by})")


def _hub() -> Iterator[Probe]:
    offline = [
        name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name) not in (None, "", "0")
    ]
    if offline:
        detail = f"offline, by {' and '.join(offline)}: only models on this machine are found"
    else:
        where = "HF_ENDPOINT" if os.environ.get("HF_ENDPOINT") else "huggingface.co"
        detail = f"models that are not on this machine are fetched from {where}; it was not contacted"
    yield Probe("hub", "hub", "ok", detail)
    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    if proxies:
        yield Probe("hub", "proxy", "ok", f"set by {', '.join(sorted(proxies))}")


def _plugins(manager: PluginManager) -> Iterator[Probe]:
    for record in manager.records:
        if record.error:
            way = f"pip install -U {record.distribution}, or leave" if record.distribution else "fix it, or leave"
            hint = f"{way} it out: DISTILL_DISABLE={record.name}" if record.origin == "entry point" else "fix the file"
            yield Probe("plugins", record.name, "broken", record.error, hint)
    loaded = [record.name for record in manager.records if not record.error and record.origin != "builtin"]
    yield Probe("plugins", "loaded", "ok", ", ".join(loaded) or "none but the built-in ones")


def _self_test() -> Iterator[Probe]:
    out, error = _in_a_process(_SELF_TEST)
    if error is not None:
        yield Probe("self-test", "training", "broken", error, "what is broken above may be the reason")
        return
    loss = json.loads(out)["loss"]
    yield Probe("self-test", "training", "ok", f"a tiny student was trained for one step and saved (loss {loss:.3f})")


def _in_a_process(code: str, *words: str) -> tuple[str, str | None]:
    """Run Python code in a process of its own; gives the last line it printed, and what went wrong."""
    environ: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code, *words]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {_TIMEOUT} s: a driver or a disk hangs"
    out, err = (_last_line(text) for text in (done.stdout, done.stderr))
    if done.returncode < 0:
        return out, f"its process was killed by signal {-done.returncode}"
    return out, (err or f"exit code {done.returncode}") if done.returncode else None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its container's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(machine, int(text)) if text.isdecimal() else machine


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"

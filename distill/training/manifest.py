"""`run.json`: all that made a run what it is, and what has changed since."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from distill.dataset.table import Examples
from distill.errors import DistillError
from distill.files.atomic import sha256_of, utc_now
from distill.models.device import best_device
from distill.plugins import PluginManager
from distill.training.settings import TrainReport, TrainSettings

_VERSIONS = ("distill-chat", "torch", "transformers", "trl", "datasets", "accelerate", "peft", "tokenizers")

# Settings that a resumed training may have otherwise; `data` and `student` are compared by their content.
_FREE = {"out", "data", "student", "save_steps", "save_total_limit", "allow"}


def describe(
    settings: TrainSettings,
    manager: PluginManager,
    ref: str,
    examples: Examples | None,
    report: TrainReport,
    origins: Mapping[str, str],
    processes: int,
) -> dict[str, Any]:
    """Say what a training is made of.

    Args:
        settings, manager: what is trained, and by what.
        examples: the rows; None: they were not read.
        ref: the student as it is loaded.
        report: counts of rows and tokens.
        origins: setting → where it came from ("command line", "default").
        processes: how many train together.

    Returns:
        The content of `run.json`, as JSON gives it back.
    """
    manifest = {
        "state": "training",
        "started": utc_now(),
        "command": sys.argv[1:],
        "settings": resolved(settings, origins),
        "plugins": {
            kind: _owner(manager, kind, getattr(settings, kind)) for kind in ("formatter", "labeler", "trainer")
        },
        "versions": versions(),
        "device": {"kind": best_device(), "processes": processes},
        "student": {"name": settings.student, "sha256": digest_of_model(ref)},
        "data": [{"file": str(path), "sha256": sha256_of(path)} for path in settings.data],
        "examples": {"count": report.examples, "sha256": examples and examples.digest()},
        "report": asdict(report),
    }
    return json.loads(json.dumps(manifest, ensure_ascii=False))


def identity(settings: TrainSettings, manager: PluginManager, ref: str) -> dict[str, Any]:
    """All that makes a training, in one process, the one it is, before its data are read: label → value.

    Two trainings with equal identities give the same student; `check_same` asks for no more than that.
    """
    counts = TrainReport("", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    manifest = describe(settings, manager, ref, None, counts, {}, 1)
    student = manifest["student"]
    return {
        **{f"data {n}": f"sha256:{one['sha256']}" for n, one in enumerate(manifest["data"], 1)},
        "student": f"sha256:{student['sha256']}" if student["sha256"] else student["name"],
        **{name: one["value"] for name, one in manifest["settings"].items() if name not in _FREE},
        **{f"plugin of the {kind}": _short(one) for kind, one in manifest["plugins"].items()},
        **{f"version of {name}": version for name, version in manifest["versions"].items() if name != "python"},
        "device": manifest["device"]["kind"],
    }


def resolved(settings: TrainSettings, origins: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Each setting's value, as JSON holds it, and where it came from."""
    return {
        one.name: {"value": _plain(getattr(settings, one.name)), "origin": origins.get(one.name, "default")}
        for one in fields(settings)
    }


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    """Refuse to resume what would not be the same training.

    Args:
        old: the manifest of the run that was stopped.
        new: of the one that shall go on.
        folder: the run, for the error.

    Raises:
        DistillError: names every difference.
    """
    found = list(_differences(old, new))
    if found:
        raise DistillError(
            f"{folder} cannot be resumed, it would be another training: {'; '.join(found)}",
            "run it as it was begun, or train anew in another --out",
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[str]:
    for name, setting in new["settings"].items():
        was = old["settings"].get(name, {}).get("value")
        if name not in _FREE and was != setting["value"]:
            yield f"{name} is {json.dumps(setting['value'])}, was {json.dumps(was)}"
    was, now = ([one["sha256"] for one in manifest["data"]] for manifest in (old, new))
    if len(was) != len(now):
        yield f"{len(now)} files of data, were {len(was)}"
    else:
        yield from (
            f"{one['file']} is not the file it was"
            for one, sha in zip(new["data"], was, strict=True)
            if one["sha256"] != sha
        )
    if _identity(old["student"]) != _identity(new["student"]):
        yield f"the student {new['student']['name']} is not the one it was ({old['student']['name']})"
    for group in ("versions", "device", "plugins"):
        for name, value in new[group].items():
            before = old[group].get(name)
            if before != value and name != "python":
                yield f"{group}: {name} is {_short(value)}, was {_short(before)}"
    if was == now and old["examples"] != new["examples"]:
        yield "the same data gives other tokens or labels (the tokenizer, the format or a plugin has changed)"


def _identity(student: Mapping[str, Any]) -> str:
    return student["sha256"] or student["name"]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(value[key]) for key in ("name", "distribution", "version") if value.get(key))
    return str(value)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {key: _plain(item) for key, item in asdict(value).items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else dict(value) if isinstance(value, Mapping) else value


def _owner(manager: PluginManager, kind: str, name: str) -> dict[str, str | None]:
    record = manager.registries[kind].owner(name)
    return {"name": name, "plugin": record.name, "distribution": record.distribution, "version": record.version}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a student depends on."""
    found = {"python": sys.version.split()[0]}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def digest_of_model(ref: str, files: Sequence[str] = ("config.json", "*.safetensors")) -> str | None:
    """A hash of a local model, by default of its weights and config; None for one of the hub: its name stands for it.

    Args:
        ref: as `resolve_model` returns it; all of it where it is a file.
        files: patterns of the names of a folder's files that count.
    """
    path = Path(ref)
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        return None
    digest = sha256()
    for file in sorted({file for pattern in files for file in path.glob(pattern) if file.is_file()}):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()

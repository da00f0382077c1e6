"""What makes a training the one it is: its manifest, and whether an interrupted one may be resumed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from distill.dataset.table import Examples
from distill.errors import DistillError
from distill.files.atomic import sha256_of, utc_now
from distill.models.device import best_device
from distill.plugins import PluginManager
from distill.runs.manifest import (
    BaseModel,
    DataFile,
    Device,
    ExampleSet,
    PluginRecord,
    RunManifest,
    resolved_settings,
)
from distill.runs.report import TrainReport
from distill.settings import options_of
from distill.training.provenance import base_model, git_state, requirements
from distill.training.settings import TrainSettings

_VERSIONS = ("distill-chat", "torch", "transformers", "trl", "datasets", "accelerate", "peft", "tokenizers")

_KINDS = ("formatter", "labeler", "trainer", "loss")

_FREE = {"out", "data", "student", "save-steps", "save-total-limit", "allow", "trust-remote-code"}
"""Settings that a resumed training may change; `data` and `student` are compared by their content."""


def describe(
    settings: TrainSettings,
    manager: PluginManager,
    ref: str,
    examples: Examples | None,
    report: TrainReport,
    origins: Mapping[str, str],
    processes: int,
) -> RunManifest:
    """The manifest of a training that begins now.

    Args:
        settings, manager: what is trained, and by which plugins.
        ref: the student as it is loaded.
        examples: the rows; None: they were not read.
        report: counts of rows and tokens.
        origins: setting → where it came from ("command line", "default").
        processes: how many train together.
    """
    return RunManifest(
        state="training",
        started=utc_now(),
        command=tuple(sys.argv[1:]),
        settings=resolved_settings(settings, origins),
        plugins={kind: _owner(manager, kind, getattr(settings, kind)) for kind in _KINDS},
        versions=versions(),
        requirements=requirements(),
        git=git_state(),
        device=Device(best_device(), processes),
        student=base_model(settings.student, digest_of_model(ref), manager),
        data=tuple(DataFile(str(source), source.digest()) for source in settings.sources),
        examples=ExampleSet(report.examples, examples.digest() if examples is not None else None),
        report=report,
    )


def identity(settings: TrainSettings, manager: PluginManager, ref: str) -> dict[str, Any]:
    """All that makes a training, in one process, the one it is, before its data are read: label → value.

    Two trainings with equal identities give the same student; `check_same` asks for no more than that.
    """
    counts = TrainReport("", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    manifest = describe(settings, manager, ref, None, counts, {}, 1)
    student = manifest.student
    return {
        **{f"data {n}": f"sha256:{one.sha256}" for n, one in enumerate(manifest.data, 1)},
        "student": f"sha256:{student.sha256}" if student.sha256 else student.name,
        **{name: one.value for name, one in manifest.settings.items() if name not in _FREE},
        **{f"plugin of the {kind}": _plugin(one) for kind, one in manifest.plugins.items()},
        **{f"version of {name}": version for name, version in manifest.versions.items() if name != "python"},
        "device": manifest.device.kind,
    }


def usual_settings() -> dict[str, Any]:
    """The default of each setting that has one, by its option's name, as JSON holds it."""
    found = {}
    for option in options_of(TrainSettings):
        if not option.required:
            found[option.key] = False if option.nested else json.loads(json.dumps(option.usual))
    return found


def check_same(old: RunManifest, new: RunManifest, folder: Path) -> None:
    """Refuse to resume what would not be the same training.

    Args:
        old: the manifest of the interrupted run.
        new: of the one that is to continue it.
        folder: the run, for the error.

    Raises:
        DistillError: names every difference.
    """
    found = list(_differences(old, new))
    if found:
        raise DistillError(
            f"cannot resume {folder}: {'; '.join(found)}",
            "run the command as it was first run, or train again with another --out",
        )


def _differences(old: RunManifest, new: RunManifest) -> Iterator[str]:
    usual = usual_settings()
    for name, setting in new.settings.items():
        was = old.value(name, usual.get(name))  # an older distill did not have it, and did what is now the default
        if name not in _FREE and was != setting.value:
            yield f"{name} changed ({json.dumps(was)} → {json.dumps(setting.value)})"
    was, now = ([one.sha256 for one in manifest.data] for manifest in (old, new))
    if len(was) != len(now):
        yield f"the number of data files changed ({len(was)} → {len(now)})"
    else:
        for one, sha256 in zip(new.data, was, strict=True):
            if one.sha256 != sha256:
                yield f"{one.file} changed"
    if _content(old.student) != _content(new.student):
        yield f"the student changed ({old.student.name} → {new.student.name})"
    yield from _changes("version of", old.versions, new.versions, but=("python",))
    yield from _changes("device", {"kind": old.device.kind}, {"kind": new.device.kind})
    yield from _changes("device", {"processes": old.device.processes}, {"processes": new.device.processes})
    plugins = ({kind: _plugin(one) for kind, one in manifest.plugins.items()} for manifest in (old, new))
    yield from _changes("plugin of the", *plugins)
    if was == now and old.examples != new.examples:
        yield "the same data give other tokens or labels (the tokenizer, the format or a plugin has changed)"


def _changes(label: str, old: Mapping[str, Any], new: Mapping[str, Any], but: Iterable[str] = ()) -> Iterator[str]:
    for name, value in new.items():
        before = old.get(name)
        if before != value and name not in but:
            yield f"{label} {name} changed ({before} → {value})"


def _content(student: BaseModel) -> str:
    return student.sha256 or student.name


def _plugin(one: PluginRecord) -> str:
    return " ".join(filter(None, (one.name, one.distribution, one.version)))


def _owner(manager: PluginManager, kind: str, name: str) -> PluginRecord:
    record = manager.registries[kind].owner(name)
    return PluginRecord(name, record.name, record.distribution, record.version)


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
    """A hash of a local model, by default of its weights and config; None for a Hub model: its name identifies it.

    Args:
        ref: as `resolve_model` returns it; all of it where it is a file.
        files: patterns of the names of the files that count, in a folder.
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

"""`run.json` as a type: what a run was made of, and its state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from distill.errors import DataError
from distill.files.atomic import whole_file
from distill.runs.report import TrainReport
from distill.transcripts.sources import DataSource, as_sources

_NEEDED = ("student", "formatter", "seed")
"""Settings that every run has, and that readers rely on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting's value, as JSON holds it, and where it came from (`command line`, `recipe`, `default`)."""

    value: Any
    origin: str = "default"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of transcripts the run was trained on."""

    file: str
    sha256: str

    def source(self) -> DataSource:
        """Where its rows are read again.

        Raises:
            DataError: it is gone, or was data in memory.
        """
        if self.file.startswith("<"):
            raise DataError(f"{self.file} was data in memory, which cannot be read again")
        (source,) = as_sources(self.file)
        if source.path is not None and not source.path.is_file():
            raise DataError(f"{self.file} is gone")
        return source


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """The plugin that provided a component, and the package it came from."""

    name: str
    plugin: str
    distribution: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """What it was trained on: `cpu`, `cuda`, …, and how many processes."""

    kind: str
    processes: int


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The student before training.

    Attributes:
        name: as the user wrote it.
        sha256: of its weights; None for a model of the Hub.
        hub_id: its name on the Hub; None: it is not known to be there.
        license: its licence, as the Hub names it; None: not known.
    """

    name: str
    sha256: str | None
    hub_id: str | None = None
    license: str | None = None


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """The tokens and labels that were trained; no hash where the rows were not read."""

    count: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class GitState:
    """The commit that a run was started at.

    Attributes:
        commit: its hash.
        dirty: whether tracked files had changes that are not committed.
    """

    commit: str
    dirty: bool


@dataclass(frozen=True, slots=True)
class RunManifest:
    """All that makes a run what it is.

    Attributes:
        state: `training` until the student is saved, then `finished`.
        started: when, in UTC.
        settings: name → value and origin.
        data: the training data.
        student: the model it was trained from.
        report: the counts, and the result once it is finished.
        command: the command's words.
        plugins: kind → the plugin that provided it.
        versions: package → version, of those that training depends on.
        requirements: every installed package, as `name==version`.
        git: the repository of the working folder; None: it is in none.
        device: what it was trained on.
        examples: the tokens and labels.
        resumed: for each `--resume`, the checkpoint it continued from; None: from the beginning.
        finished: when, in UTC; None before.
    """

    state: Literal["training", "finished"]
    started: str
    settings: Mapping[str, Setting]
    data: tuple[DataFile, ...]
    student: BaseModel
    report: TrainReport
    command: tuple[str, ...] = ()
    plugins: Mapping[str, PluginRecord] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    git: GitState | None = None
    device: Device = Device("cpu", 1)
    examples: ExampleSet | None = None
    resumed: tuple[str | None, ...] = ()
    finished: str | None = None

    def value(self, name: str, default: Any = None) -> Any:
        """A setting's value; `default` for one that the distill that made the run did not have."""
        return self.settings[name].value if name in self.settings else default

    @classmethod
    def read(cls, path: Path) -> RunManifest:
        """Read and check a manifest.

        Args:
            path: the `run.json`.

        Raises:
            DataError: it cannot be read, or is damaged.
        """
        from pydantic import TypeAdapter, ValidationError

        hint = "restore it from a backup, or remove the run folder and train again"
        try:
            found = TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}", hint) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}", hint) from None
        if missing := [name for name in _NEEDED if name not in found.settings]:
            raise DataError(f"{path} is damaged: the setting {missing[0]} is missing", hint)
        return found

    def write(self, path: Path) -> None:
        """Write the manifest, atomically."""
        with whole_file(path) as file:
            file.write(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def resolved_settings(settings: Any, origins: Mapping[str, str]) -> dict[str, Setting]:
    """Each setting with its value, as JSON holds it, and its origin.

    Args:
        settings: a dataclass, e.g. `TrainSettings`.
        origins: field → where its value came from; "default" for those that are not named.
    """
    return {
        one.name: Setting(_as_json(getattr(settings, one.name)), origins.get(one.name, "default"))
        for one in fields(settings)
    }


def _as_json(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(_plain(value), ensure_ascii=False))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(item) for key, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, (Path, DataSource)) else value

"""`run.json` as a type: what a run was made of, and its state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from distill.errors import DataError
from distill.files.atomic import whole_file
from distill.runs.report import TrainReport
from distill.settings import options_of
from distill.transcripts.sources import DataSource, as_sources

_NEEDED = ("student", "formatter", "seed")
"""Settings that every run has, and that readers rely on."""

_FORMER_NAMES = {
    "per_device_train_batch_size": "batch-size",
    "gradient_accumulation_steps": "accumulation",
    "data_format": "from",
}
_FORMER_LORA = {"r": "lora-rank", "target_modules": "lora-targets", "quantize": "qlora"}
"""Until 0.2, settings were stored under the names of Python fields, and LoRA's as one mapping."""


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
        settings: the option's name, as in a recipe → value and origin.
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
        return replace(found, settings=_with_current_names(found.settings))

    def write(self, path: Path) -> None:
        """Write the manifest, atomically."""
        with whole_file(path) as file:
            file.write(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names of options, whichever distill stored them: name → value.

    Args:
        settings: under the names of options, or as they were stored before: `learning_rate`, `lora: {r: 16}`.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "lora" and not isinstance(value, bool):
            found[name] = value is not None
            inner = (value or {}).items()
            found |= {_FORMER_LORA.get(key, f"lora-{key}"): one for key, one in inner}
        else:
            found[_current_name(name)] = value
    return found


def _current_name(name: str) -> str:
    return _FORMER_NAMES.get(name) or (name.replace("_", "-") if name.isidentifier() else name)


def _with_current_names(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    origins = {_current_name(name): one.origin for name, one in settings.items()}
    values = current_names({name: one.value for name, one in settings.items()})
    return {name: Setting(value, origins.get(name) or origins["lora"]) for name, value in values.items()}


def resolved_settings(settings: Any, origins: Mapping[str, str]) -> dict[str, Setting]:
    """Each setting under its option's name, with its value, as JSON holds it, and its origin.

    Those behind a switch, such as `--lora`, are listed where it is on.

    Args:
        settings: a dataclass, e.g. `TrainSettings`.
        origins: field → where its value came from; "default" for those that are not named.
    """
    options = {option.field: option for option in reversed(options_of(type(settings)))}
    found = {}
    for one in fields(settings):
        value, option = getattr(settings, one.name), options.get(one.name)
        origin = origins.get(one.name, "default")
        if option is None:  # no option, but an argument
            found[one.name] = Setting(_as_json(value), origin)
        elif option.nested is None:
            found[option.key] = Setting(_as_json(value), origin)
        else:
            found[option.key] = Setting(value is not None, origin)
            inner = options_of(option.nested) if value is not None else ()
            found |= {each.key: Setting(_as_json(getattr(value, each.field)), origin) for each in inner}
    return found


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

"""What a recipe's steps have made, and of what: `state.json` in its folder, written whole after each change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from distill.errors import DistillError, UsageError
from distill.files.atomic import utc_now, whole_file
from distill.runs.manifest import current_names

STATE = "state.json"

_NAMED = 3  # differences that are told


@dataclass(frozen=True, slots=True)
class Record:
    """A step that was begun, maybe done.

    Attributes:
        step: its name.
        inputs: all that its outcome depends on: label → value, files and folders as `sha256:…`.
        made: what it makes, by its name in the recipe's folder; None: nothing but its result.
        state: begun or done.
        result: counts and figures, once it is done.
        at: when the state was reached.
    """

    step: str
    inputs: Mapping[str, Any]
    made: str | None
    state: Literal["begun", "done"] = "begun"
    result: Mapping[str, Any] = field(default_factory=dict)
    at: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done: a record is looked for that fits.

    Attributes:
        step, inputs: see `Record`.
        stem: the name of what it makes, in the recipe's folder; None: nothing.
        usual: label → its value where an input is missing: a setting that the distill which made the record did not
            have is no difference at its default.
    """

    step: str
    inputs: Mapping[str, Any]
    stem: str | None = None
    usual: Mapping[str, Any] = field(default_factory=dict)


class State:
    """The records of a recipe's folder, in the order they were begun."""

    def __init__(self, folder: Path, recipe: Path):
        self.folder = folder
        self.records: list[Record] = []
        path = folder / STATE
        if path.is_file():
            try:
                self.records = [Record(**row) for row in json.loads(path.read_text(encoding="utf-8"))["steps"]]
            except (ValueError, KeyError, TypeError) as error:
                hint = "restore it from a backup, or choose another `out`"
                raise DistillError(f"{path} is damaged", hint) from error
        elif folder.exists() and folder.resolve() != recipe.parent.resolve() and not _is_empty(folder):
            raise UsageError(f"{folder} holds something that no recipe made", "choose another `out`")

    def find(self, wanted: Wanted) -> Record | None:
        """The record of a step with these very inputs."""
        return next((one for one in self._records_of(wanted) if not _differing(one.inputs, wanted)), None)

    def why(self, wanted: Wanted, intact: Callable[[Record], bool]) -> str | None:
        """Why a step must run; None: it is done.

        Args:
            wanted: which.
            intact: whether what a done step has made is still there.
        """
        found = self.find(wanted)
        if found is not None:
            if found.state == "begun":
                return "was stopped, goes on"
            return None if intact(found) else f"{found.made} is not as it was made"
        before = next((one for one in reversed(self._records_of(wanted)) if _is_of(one.made, wanted.stem)), None)
        return "not done yet" if before is None else _difference(before.inputs, wanted)

    def begin(self, wanted: Wanted) -> Record:
        """Note that a step begins; what was made with other inputs keeps its name, this gets one of its own."""
        record = self.find(wanted)
        if record is None:
            made = wanted.stem and self._free(wanted.stem)
            record = Record(wanted.step, _as_json(wanted.inputs), made, at=utc_now())
            self.records.append(record)
            self._write()
        return record

    def _records_of(self, wanted: Wanted) -> list[Record]:
        return [one for one in self.records if one.step == wanted.step]

    def finish(self, record: Record, result: Mapping[str, Any]) -> Record:
        """Note that a step is done."""
        done = replace(record, state="done", result=result, at=utc_now())
        self.records = [done if one is record else one for one in self.records]
        self._write()
        return done

    def _free(self, stem: str) -> str:
        """`run`, `run-2`, …: the first that is neither taken nor there."""
        taken = {record.made for record in self.records}
        name, suffix = _split(stem)
        names = (f"{name}-{n}{suffix}" if n > 1 else stem for n in range(1, len(taken) + 1000))
        return next(one for one in names if one not in taken and not (self.folder / one).exists())

    def _write(self) -> None:
        with whole_file(self.folder / STATE) as file:
            rows = {"version": 1, "steps": [asdict(record) for record in self.records]}
            file.write(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and all(one.name.startswith(".") for one in folder.iterdir())


def _as_json(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """As the file gives them back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(inputs, ensure_ascii=False))
    return plain


def _split(stem: str) -> tuple[str, str]:
    """A name without the ending of a file, and that; a folder's name may end in a number, `run-epochs-0.5`."""
    suffix = ".jsonl" if stem.endswith(".jsonl") else ".json" if stem.endswith(".json") else ""
    return stem.removesuffix(suffix), suffix


def _is_of(made: str | None, stem: str | None) -> bool:
    """Whether a name is a stem's: `run-2` is `run`'s, `run-epochs-3` is not."""
    name, suffix = _split(stem or "")
    return made == stem or re.fullmatch(rf"{re.escape(name)}-\d+{re.escape(suffix)}", made or "") is not None


def _differing(before: Mapping[str, Any], wanted: Wanted) -> list[tuple[str, Any, Any]]:
    """The inputs that differ: label, value before, value now."""
    before, now = current_names(before), _as_json(wanted.inputs)
    labels = dict.fromkeys([*now, *before])
    usual = wanted.usual
    found = [(label, before.get(label, usual.get(label)), now.get(label, usual.get(label))) for label in labels]
    return [(label, was, value) for label, was, value in found if was != value]


def _difference(before: Mapping[str, Any], wanted: Wanted) -> str:
    found = []
    for label, was, value in _differing(before, wanted):
        hashed = "sha256:" in f"{was}{value}"
        found.append(f"{label} changed" if hashed else f"{label} is {_told(value)}, was {_told(was)}")
    more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more


def _told(value: Any) -> str:
    text = "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"

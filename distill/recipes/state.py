"""What a recipe's steps have made, and of what: `state.json` in its folder, written whole after each change."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from distill.errors import DistillError, UsageError
from distill.files.atomic import utc_now, whole_file

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

    def find(self, step: str, inputs: Mapping[str, Any]) -> Record | None:
        """The record of a step with these very inputs."""
        inputs = _as_json(inputs)
        return next((one for one in self.records if one.step == step and one.inputs == inputs), None)

    def why(self, step: str, inputs: Mapping[str, Any], intact: Callable[[Record], bool]) -> str | None:
        """Why a step must run; None: it is done.

        Args:
            step, inputs: which.
            intact: whether what a done step has made is still there.
        """
        found = self.find(step, inputs)
        if found is not None:
            if found.state == "begun":
                return "was stopped, goes on"
            return None if intact(found) else f"{found.made} is not as it was made"
        before = next((one for one in reversed(self.records) if one.step == step), None)
        return "not done yet" if before is None else _difference(before.inputs, _as_json(inputs))

    def begin(self, step: str, inputs: Mapping[str, Any], stem: str | None) -> Record:
        """Note that a step begins; what was made with other inputs keeps its name, this gets one of its own."""
        record = self.find(step, inputs)
        if record is None:
            record = Record(step, _as_json(inputs), stem and self._free(stem), at=utc_now())
            self.records.append(record)
            self._write()
        return record

    def finish(self, record: Record, result: Mapping[str, Any]) -> Record:
        """Note that a step is done."""
        done = replace(record, state="done", result=result, at=utc_now())
        self.records = [done if one is record else one for one in self.records]
        self._write()
        return done

    def _free(self, stem: str) -> str:
        """`run`, `run-2`, …: the first that is neither taken nor there."""
        taken = {record.made for record in self.records}
        name, suffix = os.path.splitext(stem)
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


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    found = []
    for label in [*now, *(label for label in before if label not in now)]:
        was, value = before.get(label), now.get(label)
        if was != value:
            hashed = "sha256:" in f"{was}{value}"
            found.append(f"{label} changed" if hashed else f"{label} is {_short(value)}, was {_short(was)}")
    more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more


def _short(value: Any) -> str:
    text = "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"

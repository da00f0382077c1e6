"""Rows as tokens: those the student is trained on, as `show` draws them, and those the teacher wrote."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill.dataset.settings import DataSettings
from distill.errors import DistillError
from distill.plugins import PluginManager
from distill.runs.run import Run
from distill.settings import options_of, settings_from

if TYPE_CHECKING:
    from distill.dataset.pipeline import Pipeline
    from distill.dataset.preview import ShownRow

_NOT_TAKEN = ("trust_remote_code", "allow")
"""Settings of a run that looking at it does not take over."""


@dataclass(frozen=True, slots=True)
class RowTokens:
    """A row as a student's tokens.

    Attributes:
        student: whose.
        rows: the training rows it becomes.
        problem: why there are none.
    """

    student: str
    rows: Sequence[ShownRow] = ()
    problem: str = ""


class Tokenizers:
    """Makes rows into tokens; a student's tokenizer is loaded when it is first needed.

    Args:
        manager: the plugins.
        named: the student whose tokens are shown; None: of the files in a run, the run's own.
    """

    def __init__(self, manager: PluginManager, named: DataSettings | None = None):
        self._manager, self._named = manager, named
        self._made: dict[str, Pipeline | DistillError] = {}
        self._lock = threading.Lock()

    def tokens(self, row: Mapping[str, Any], run: Run | None) -> RowTokens | None:
        """A row as tokens; None where no student is named, or the row is no conversation.

        Args:
            row: of a file.
            run: that the file is in; None: in none.
        """
        from distill.dataset.preview import show_data

        settings = self._named or (None if run is None else settings_of(run))
        if settings is None or not ({"messages", "conversations", "prompt", "instruction"} & row.keys()):
            return None
        with self._lock:
            pipeline = self._pipeline(settings)
            if isinstance(pipeline, DistillError):
                return RowTokens(settings.student, problem=pipeline.message)
            try:
                return RowTokens(settings.student, list(show_data([dict(row)], pipeline)))
            except DistillError as error:
                return RowTokens(settings.student, problem=error.message)

    def _pipeline(self, settings: DataSettings) -> Pipeline | DistillError:
        from distill.dataset.pipeline import make_pipeline

        key = repr(settings)
        if key not in self._made:
            try:
                self._made[key] = make_pipeline(settings, self._manager)
            except DistillError as error:
                self._made[key] = error
        return self._made[key]


def settings_of(run: Run) -> DataSettings:
    """How a run made tokens of its rows."""
    known = {option.name: option.key for option in options_of(DataSettings) if option.name not in _NOT_TAKEN}
    values = {name: run.manifest.value(key) for name, key in known.items()}
    return settings_from(DataSettings, {name: value for name, value in values.items() if value is not None})

"""The conformance suite of data formats: what `distill.DialectSpec` promises, on given and on written rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from distill.errors import DataError
from distill.plugins import make_plugin_manager
from distill.specs import DialectSpec
from distill.testing.checks import Check, Remark, assert_all
from distill.testing.conversations import PLAIN
from distill.transcripts.reader import Reader
from distill.types import Source, Transcript

_HERE = Source("rows.jsonl", 1)


def check_dialect(spec: DialectSpec, rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Hold a data format to its contract.

    Args:
        spec: the format, as the plugin registers it.
        rows: rows of the format; where it can be written, rows that it writes are checked too.

    Raises:
        AssertionError: names each broken promise, and what to do.
    """
    assert_all(dialect_checks(spec, rows))


def dialect_checks(spec: DialectSpec, rows: Sequence[Mapping[str, Any]] = ()) -> list[Check]:
    """The checks of `check_dialect`, one by one."""
    suite = _Suite(spec, rows)
    return [
        Check("its rows match it, and no other format", suite.matches),
        Check("its rows are read as conversations", suite.reads),
        Check("reading does not change the row", suite.unchanged),
        Check("a malformed row is a DataError", suite.malformed),
        Check("what it writes reads back", suite.reads_back),
    ]


class _Suite:
    """The checks, on the author's rows and written ones."""

    def __init__(self, spec: DialectSpec, rows: Sequence[Mapping[str, Any]]):
        self.spec = spec
        others = make_plugin_manager(environ={"DISTILL_PLUGINS": ""}).dialects
        self.others = tuple(other for other in others if other.name != spec.name)
        self.reader = Reader((*self.others, spec))
        self.rows = [*rows, *self._written()]

    def _written(self) -> list[dict[str, Any]]:
        if self.spec.write is None:
            return []
        rows = []
        for number, messages in enumerate(PLAIN.values()):
            transcript = Transcript(f"t{number}", tuple(messages), source=_HERE)
            try:
                rows.append(json.loads(json.dumps(self.spec.write(transcript))))
            except DataError:  # the format cannot hold it
                continue
        return rows

    def matches(self) -> None:
        if not self.rows:
            raise Remark("there are no rows to check: hand some to check_dialect(spec, rows)")
        for row in self.rows:
            assert self.spec.matches(row), f"matches() is false for {_shown(row)}"
            also = [other.name for other in self.others if other.matches(row)]
            assert not also, f"{' and '.join(also)} match {_shown(row)} too: users would have to write --from"

    def reads(self) -> None:
        for row in self.rows:
            read = self.reader.read(row, _HERE)
            assert read.transcript.messages, f"no message was read from {_shown(row)}"
            assert not read.lost, f"{', '.join(sorted(read.lost))} of {_shown(row)} is not read"

    def unchanged(self) -> None:
        for row in self.rows:
            before = copy.deepcopy(row)
            self.spec.read(row, str(_HERE))
            assert row == before, f"read() has changed {_shown(before)}; copy what you change"

    def malformed(self) -> None:
        for row in self.rows:
            for column in set(row) & set(self.spec.columns):
                broken = {**row, column: 7}
                if not self.spec.matches(broken):
                    continue
                try:
                    self.reader.read(broken, _HERE)
                except DataError:
                    continue
                except Exception as error:
                    raise AssertionError(
                        f"{column} = 7 raises {type(error).__name__}: {error}; raise distill.DataError(f'{{where}}: …')"
                    ) from error

    def reads_back(self) -> None:
        if self.spec.write is None:
            raise Remark("it can only be read")
        for row in self.rows:
            transcript = self.reader.read(row, _HERE).transcript
            try:
                written = json.loads(json.dumps(self.spec.write(transcript)))
            except DataError:
                continue
            again = self.reader.read(written, _HERE).transcript
            texts = [[(message.role, message.content) for message in one.messages] for one in (transcript, again)]
            assert texts[0] == texts[1], f"{texts[0]} was written, and {texts[1]} is read"


def _shown(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=repr)[:200]

"""How rows of data are read: the options that every command with data shares."""

from __future__ import annotations

from dataclasses import dataclass

from distill.plugins import PluginManager
from distill.settings import setting
from distill.transcripts.reader import Reader, make_reader

_GROUP = "Data format"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSettings:
    """How rows of data become conversations."""

    data_format: str | None = setting(
        None,
        "--from",
        name="data_format",
        metavar="NAME",
        group=_GROUP,
        unset="detected row by row",
        help="The data format of the input rows: canonical, openai, sharegpt, alpaca, prompt-completion, another "
        "program's export or a plugin's (`distill plugins` lists them).",
    )
    split_thinking: bool = setting(
        False,
        group=_GROUP,
        help="Move reasoning in tags within answers (<think>…</think>) to `reasoning_content`.",
    )
    ignore_columns: tuple[str, ...] = setting(
        (),
        "--ignore-column",
        key="ignore-columns",
        metavar="NAME",
        group=_GROUP,
        help="Accept this column, which otherwise refuses a row (a rating, images); may be repeated.",
    )

    def reader(self, manager: PluginManager) -> Reader:
        """What reads the rows.

        Raises:
            UsageError: no such data format.
        """
        return make_reader(self.data_format, manager, split_thinking=self.split_thinking, ignored=self.ignore_columns)

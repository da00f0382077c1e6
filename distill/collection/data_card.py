"""The card of a collected data set: what is in it, who answered, and under which terms."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.collection.costs import CostTable
from distill.collection.terms import terms_text
from distill.errors import DataError
from distill.plugins import PluginManager
from distill.transcripts.reader import make_reader
from distill.types import Transcript

_PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "logprobs")


@dataclass(slots=True)
class DataSummary:
    """What a data set holds.

    Attributes:
        rows, refused: conversations, and rows that are none to learn from.
        answers, characters: the assistant's messages, and their length.
        systems, tools, reasoning, logprobs: conversations with a system message, tools, reasoning, log probabilities.
        finish: finish reason → conversations.
        models: the model as it was answered → conversations.
        params: a parameter's name and value → conversations.
        first, last: when the earliest and the latest answer came, as ISO dates.
    """

    rows: int = 0
    refused: int = 0
    answers: int = 0
    characters: int = 0
    systems: int = 0
    tools: int = 0
    reasoning: int = 0
    logprobs: int = 0
    finish: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    params: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""

    def add(self, transcript: Transcript) -> None:
        """Count a conversation."""
        answers = [message for message in transcript.messages if message.role == "assistant"]
        self.rows += 1
        self.answers += len(answers)
        self.characters += sum(len(message.content or "") for message in answers)
        self.systems += any(message.role == "system" for message in transcript.messages)
        self.tools += bool(transcript.tools)
        self.reasoning += any(message.reasoning_content for message in answers)
        self._add_metadata(transcript.metadata)

    def _add_metadata(self, metadata: Mapping[str, Any]) -> None:
        self.logprobs += bool(metadata.get("logprobs"))
        for name, counter in (("finish_reason", self.finish), ("model", self.models)):
            if isinstance(value := metadata.get(name), str):
                counter[value] += 1
        params = metadata.get("params")
        if isinstance(params, Mapping):
            self.params.update(f"{name} {params[name]!r}" for name in _PARAMETERS if params.get(name) is not None)
        if isinstance(created := metadata.get("created"), str) and created:
            day = created[:10]
            self.first, self.last = min(self.first or day, day), max(self.last, day)


def data_card(data: Path, name: str, manager: PluginManager) -> str:
    """The card of a data set, in Markdown, with the metadata that the Hugging Face Hub reads.

    Args:
        data: the file of transcripts.
        name: of the data set.
        manager: the plugins.

    Raises:
        DataError: the file cannot be read as transcripts, or holds none.
    """
    found, costs = DataSummary(), CostTable(manager)
    for outcome in make_reader(None, manager).outcomes(data):
        if isinstance(outcome, Transcript):
            found.add(outcome)
            costs.add(outcome.metadata)
        else:
            found.refused += 1
    if not found.rows:
        raise DataError(f"{data} holds no conversation", "give the transcripts that `distill collect` made")
    front = {
        "task_categories": ["text-generation"],
        "tags": ["knowledge-distillation", "distill"],
        "configs": [{"config_name": "default", "data_files": data.name}],
    }
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items())
    rows = [
        f"| `{_cell(one.teacher)}` | {one.rows:,} | {_dollars(one.usd)} | {terms_text(one.teacher)} |"
        for one in costs.found()
    ]
    teachers = "\n".join(rows)
    facts = "\n".join(f"| {what} | {_cell(value)} |" for what, value in _facts(found).items() if value)
    return f"""---
{head}---

# {name}

A teacher's chat transcripts, collected with [distill](https://pypi.org/project/distill-chat/).

| | |
|---|---|
{facts}

## Teachers

| teacher | conversations | dollars at published prices | terms |
|---|---|---|---|
{teachers}

The licence of the data set is yours to choose, within these terms. Please add where the prompts come from, and whether
they hold personal data.

## Use it

Each line of `{data.name}` is a conversation: `messages`, `tools`, and `metadata` with the teacher and how it was asked.

```sh
distill train hub:OWNER/NAME --student smollm2 --out run
```
"""


def _facts(found: DataSummary) -> dict[str, str]:
    """What the card's first table tells; empty where there is nothing to tell."""
    with_parts = {
        "a system message": found.systems,
        "tools": found.tools,
        "reasoning": found.reasoning,
        "the teacher's log probabilities": found.logprobs,
    }
    return {
        "conversations": f"{found.rows:,}",
        "answers": f"{found.answers:,}, {found.characters / max(1, found.answers):,.0f} characters on average",
        "with": ", ".join(f"{name}: {count:,}" for name, count in with_parts.items() if count),
        "finish reasons": _counts(found.finish),
        "model, as the server named it": _counts(found.models),
        "parameters": _counts(found.params),
        "collected": " to ".join(dict.fromkeys(filter(None, (found.first, found.last)))),
        "rows that are no conversation to learn from": f"{found.refused:,}" if found.refused else "",
    }


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counter.most_common(10))


def _dollars(usd: float | None) -> str:
    return "unknown" if usd is None else f"{usd:.2f}"


def _cell(text: str) -> str:
    """Text for a Markdown table: neither a bar nor a line break nor markup of its own."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'").replace("\n", " ")

"""Pages about a run: the student's model card, and a report for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distill.collection.costs import Cost, CostTable
from distill.collection.terms import terms_text
from distill.errors import DistillError
from distill.pages import render_page
from distill.pages.charts import curves
from distill.plugins import PluginManager
from distill.runs.manifest import BaseModel
from distill.runs.report import TrainReport
from distill.runs.run import Run
from distill.training.settings import TrainSettings
from distill.transcripts.reader import skip_refused

_LONGEST = 600  # characters of an answer


_COMPARED = "<!-- comparison -->\n", "<!-- end of comparison -->"
"""Around what a model card says of the comparison: `distill compare` replaces it."""


def model_card(settings: TrainSettings, report: TrainReport, base: BaseModel, teachers: Sequence[str] = ()) -> str:
    """The student's model card, in Markdown, with the metadata that the Hugging Face Hub reads.

    Args:
        settings: of the training.
        report: its counts.
        base: the model that was trained; its Hub id and licence are left out where they are not known.
        teachers: whose answers it was trained on, as transcripts name them.
    """
    taught = "".join(f"| teacher | `{_code(name)}`: {terms_text(name)} |\n" for name in teachers)
    lora = settings.lora
    how = f"`{settings.formatter}`, `{settings.labeler}`, `{settings.trainer}`"
    how += f", LoRA of rank {lora.r}, merged" if lora else ""
    known = {"base_model": base.hub_id, "license": base.license}
    front_matter = "".join(f"{key}: {json.dumps(value)}\n" for key, value in known.items() if value)
    origin = f", {base.hub_id}" if base.hub_id and base.hub_id != base.name else ""
    return f"""---
{front_matter}library_name: transformers
pipeline_tag: text-generation
tags: [knowledge-distillation]
---

# {settings.out.name}

A student distilled from a teacher's chat transcripts with [distill](https://pypi.org/project/distill-chat/).

| | |
|---|---|
| base | `{base.name}`{origin} ({base.license or "licence not known to distill"}) |
{taught}| transcripts | {report.trained_rows} trained, {report.skipped_rows} skipped, {report.held_out_rows} held out |
| tokens | {report.tokens}, of which {report.trained_tokens} trained |
| format, labels, trainer | {how} |
| epochs, batch, learning rate, seed | {settings.epochs:g}, {settings.per_device_train_batch_size} × \
{settings.gradient_accumulation_steps}, {settings.learning_rate:g}, {settings.seed} |
| steps, mean loss | {report.steps}, {"none" if report.loss is None else f"{report.loss:.4f}"} |

## Compared with its base

{_COMPARED[0]}Not compared yet: `distill compare {settings.out.name}`
{_COMPARED[1]}

## Use it

```python
from transformers import pipeline

chat = pipeline("text-generation", "{settings.out.name}/model")
print(chat([{{"role": "user", "content": "…"}}])[0]["generated_text"][-1]["content"])
```
"""


def with_comparison(card: str, text: str) -> str:
    """A model card with what a comparison found; one without a place for it stays as it is."""
    before, begin, rest = card.partition(_COMPARED[0])
    _, end, after = rest.partition(_COMPARED[1])
    return f"{before}{begin}{text}\n{end}{after}" if begin and end else card


def _code(text: str) -> str:
    """A name within Markdown's code quotes, in a table."""
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ")


@dataclass(frozen=True, slots=True)
class TellingAnswer:
    """An answer of the student beside the teacher's and the base's; `exact`: it is the teacher's."""

    question: str
    teacher: str
    student: str
    base: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a comparison came to: its verdict, in one word and in sentences, and answers that tell most."""

    verdict: str
    headline: str
    summary: str
    reasons: Sequence[str]
    telling: Sequence[TellingAnswer]


@dataclass(frozen=True, slots=True)
class _ShownSetting:
    """A setting under its option's name."""

    name: str
    value: Any
    origin: str


def training_costs(run: Run, manager: PluginManager) -> list[Cost]:
    """What the answers cost that a run was trained on; of files that can still be read."""
    costs = CostTable(manager)
    for one in run.data:
        with suppress(DistillError):
            for transcript in run.reader(manager).transcripts(one.file, skip_refused):
                costs.add(transcript.metadata)
    return costs.found()


def report_page(run: Run, costs: Sequence[Cost], outcome: Outcome | None = None) -> str:
    """Draw the report of a run.

    Args:
        run: a run whose training is finished.
        costs: what the answers cost that it was trained on.
        outcome: of the comparison of its student; None: it was not compared yet.

    Returns:
        The page's HTML.
    """
    changed, default = _settings(run)
    return render_page(
        "report",
        run=run,
        manifest=run.manifest,
        report=run.report,
        teachers=run.teachers,
        costs=costs,
        curve=curves(run.losses()),
        outcome=outcome,
        longest=_LONGEST,
        changed=changed,
        default=default,
    )


def _settings(run: Run) -> tuple[list[_ShownSetting], list[_ShownSetting]]:
    """The settings that somebody chose, and the others."""
    changed: list[_ShownSetting] = []
    default: list[_ShownSetting] = []
    for name, setting in run.settings.items():
        shown = _ShownSetting(name, setting.value, setting.origin)
        (default if setting.origin == "default" else changed).append(shown)
    return changed, default

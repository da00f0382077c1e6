"""Pages about a run, for people: the student's model card, and a report with the loss curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from distill.pages import render_page
from distill.pages.charts import curves
from distill.runs.manifest import BaseModel, RunManifest
from distill.runs.report import TrainReport
from distill.runs.run import loss_series
from distill.training.settings import TrainSettings


def model_card(settings: TrainSettings, report: TrainReport, base: BaseModel) -> str:
    """The student's model card, in Markdown, with the metadata that the Hugging Face Hub reads.

    Args:
        settings: of the training.
        report: its counts.
        base: the model that was trained; its Hub id and licence are left out where they are not known.
    """
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
| transcripts | {report.trained_rows} trained, {report.skipped_rows} skipped, {report.held_out_rows} held out |
| tokens | {report.tokens}, of which {report.trained_tokens} trained |
| format, labels, trainer | {how} |
| epochs, batch, learning rate, seed | {settings.epochs:g}, {settings.per_device_train_batch_size} × \
{settings.gradient_accumulation_steps}, {settings.learning_rate:g}, {settings.seed} |
| steps, mean loss | {report.steps}, {"none" if report.loss is None else f"{report.loss:.4f}"} |

```python
from transformers import pipeline

chat = pipeline("text-generation", "{settings.out.name}/model")
print(chat([{{"role": "user", "content": "…"}}])[0]["generated_text"][-1]["content"])
```
"""


def report_page(manifest: RunManifest, rows: Sequence[Mapping[str, float]]) -> str:
    """One self-contained HTML page: the loss curve, what was trained, and with which settings.

    Args:
        manifest: the finished run's.
        rows: its logged steps.
    """
    curve = curves(loss_series(rows))
    return render_page("report", manifest=manifest, report=manifest.report, curve=curve)

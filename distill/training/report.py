"""Pages about a run, for people: the student's model card, and a report with the loss curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from distill.runs.manifest import RunManifest
from distill.runs.report import TrainReport
from distill.training.settings import TrainSettings


def model_card(settings: TrainSettings, report: TrainReport) -> str:
    """The student's model card, in Markdown."""
    lora = settings.lora
    how = f"`{settings.formatter}`, `{settings.labeler}`, `{settings.trainer}`"
    how += f", LoRA of rank {lora.r}, merged" if lora else ""
    return f"""---
base_model: {json.dumps(settings.student)}
library_name: transformers
pipeline_tag: text-generation
tags: [knowledge-distillation]
---

# {settings.out.name}

A student distilled from a teacher's chat transcripts with [distill](https://pypi.org/project/distill-chat/).

| | |
|---|---|
| base | `{settings.student}` |
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
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("distill.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    curve = loss_curve([(row["step"], row["loss"]) for row in rows if "loss" in row])
    return pages.get_template("report.html.jinja").render(manifest=manifest, report=manifest.report, curve=curve)


_WIDTH, _HEIGHT = 720, 240
_POINTS = 600
"""As many as are drawn: a longer curve is shown by the means of equal stretches."""


def loss_curve(points: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    """The loss curve in the coordinates of the page's SVG; None with fewer than two points."""
    if len(points) < 2:
        return None
    size = -(-len(points) // _POINTS)
    stretches = [points[n : n + size] for n in range(0, len(points), size)]
    means = [(one[-1][0], sum(loss for _, loss in one) / len(one)) for one in stretches]
    top = max(loss for _, loss in means) or 1.0
    first, last = means[0][0], means[-1][0]
    drawn = [
        (round((step - first) / ((last - first) or 1) * _WIDTH, 1), round((1 - loss / top) * _HEIGHT, 1))
        for step, loss in means
    ]
    return {
        "path": " ".join(f"{'M' if n == 0 else 'L'}{x} {y}" for n, (x, y) in enumerate(drawn)),
        "area": f"M0 {_HEIGHT} " + " ".join(f"L{x} {y}" for x, y in drawn) + f" L{_WIDTH} {_HEIGHT} Z",
        "width": _WIDTH,
        "height": _HEIGHT,
        "lines": [{"y": round(_HEIGHT * share), "loss": top * (1 - share)} for share in (0, 0.25, 0.5, 0.75, 1)],
        "first": int(first),
        "last": int(last),
        "first_loss": points[0][1],
        "last_loss": points[-1][1],
    }

"""The run folder: manifest, metrics, skipped rows, the student, and a page about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import UsageError
from distill.files import sha256_of, utc_now, whole_file, whole_folder
from distill.jsonl import dumps
from distill.models import quiet
from distill.plugins import PluginManager
from distill.prepare import Prepared

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from distill.train.settings import TrainReport, TrainSettings

_VERSIONS = ("distill-chat", "torch", "transformers", "trl", "datasets", "accelerate", "tokenizers")


class RunFolder:
    """One training run on disk. `model/` appears whole, and last but for the manifest's final state."""

    def __init__(self, path: Path):
        self.path = path

    def check_free(self) -> None:
        """Refuse a folder that holds a finished run, or anything that is not a run.

        Raises:
            UsageError: says what is there.
        """
        if (self.path / "model").exists():
            raise UsageError(f"{self.path} already holds a finished run", "choose another --out, or remove it")
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "run.json").is_file():
            raise UsageError(f"{self.path} holds something that is not a run", "choose another --out")
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file", "--out names a folder")

    def start(
        self,
        settings: TrainSettings,
        manager: PluginManager,
        prepared: Prepared,
        report: TrainReport,
        origins: Mapping[str, str],
    ) -> None:
        """Write the manifest and the skipped rows, before the first step. What an unfinished run left is replaced."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "metrics.jsonl").unlink(missing_ok=True)
        self._write("skipped.jsonl", "".join(dumps(asdict(row)) + "\n" for row in prepared.skipped))
        self._manifest = {
            "state": "training",
            "started": utc_now(),
            "command": sys.argv[1:],
            "settings": {
                name: {"value": _plain(getattr(settings, name)), "origin": origins.get(name, "default")}
                for name in (one.name for one in fields(settings))
            },
            "plugins": {
                kind: _owner(manager, kind, getattr(settings, kind)) for kind in ("formatter", "labeler", "trainer")
            },
            "versions": _versions(),
            "data": [{"file": str(path), "sha256": sha256_of(path)} for path in settings.data],
            "report": asdict(report),
        }
        self._write_manifest()

    @contextmanager
    def metrics(self) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Give a function that appends a row to `metrics.jsonl`, readable at once."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:

            def write(row: Mapping[str, float]) -> None:
                file.write(json.dumps(dict(row)) + "\n")
                file.flush()

            yield write

    def finish(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        settings: TrainSettings,
        report: TrainReport,
    ) -> None:
        """Save the student and complete the manifest."""
        checkpoints = self.path / "checkpoints"
        if checkpoints.is_dir() and not any(checkpoints.iterdir()):
            checkpoints.rmdir()
        card = _card(settings, report)
        with quiet(), whole_folder(self.path / "model") as made:
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
            (made / "README.md").write_text(card, encoding="utf-8")
        self._write("README.md", card)
        self._manifest.update(state="finished", finished=utc_now(), report=asdict(report))
        self._write_manifest()

    def _write_manifest(self) -> None:
        self._write("run.json", json.dumps(self._manifest, indent=2, ensure_ascii=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        with whole_file(self.path / name) as file:
            file.write(text)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else dict(value) if isinstance(value, Mapping) else value


def _owner(manager: PluginManager, kind: str, name: str) -> dict[str, str | None]:
    record = manager.registries[kind].owner(name)
    return {"name": name, "plugin": record.name, "distribution": record.distribution, "version": record.version}


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _card(settings: TrainSettings, report: TrainReport) -> str:
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
| transcripts | {report.trained_rows} trained, {report.skipped_rows} skipped |
| tokens | {report.tokens}, of which {report.trained_tokens} trained |
| format, labels, trainer | `{settings.formatter}`, `{settings.labeler}`, `{settings.trainer}` |
| epochs, batch, learning rate, seed | {settings.epochs:g}, {settings.per_device_train_batch_size} × \
{settings.gradient_accumulation_steps}, {settings.learning_rate:g}, {settings.seed} |
| steps, mean loss | {report.steps}, {"none" if report.loss is None else f"{report.loss:.4f}"} |

```python
from transformers import pipeline

chat = pipeline("text-generation", "{settings.out.name}/model")
print(chat([{{"role": "user", "content": "…"}}])[0]["generated_text"][-1]["content"])
```
"""

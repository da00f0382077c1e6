"""Where things are in a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The files and folders of a run.

    Attributes:
        root: the run folder itself.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """What the run was made of, and its state."""
        return self.root / "run.json"

    @property
    def model(self) -> Path:
        """The student; appears whole, when training is over."""
        return self.root / "model"

    @property
    def template(self) -> Path:
        """The chat template saved with the student; absent where the format is a plugin's that has none."""
        return self.model / "chat_template.jinja"

    @property
    def adapter(self) -> Path:
        """The LoRA adapter, where one was trained."""
        return self.root / "adapter"

    @property
    def checkpoints(self) -> Path:
        """What `--resume` continues from."""
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        """The best weights so far (`--keep best`), while the run is trained."""
        return self.checkpoints / "best.safetensors"

    @property
    def metrics(self) -> Path:
        """One row per logged step."""
        return self.root / "metrics.jsonl"

    @property
    def skipped(self) -> Path:
        """Rows that were not trained, with their reasons."""
        return self.root / "skipped.jsonl"

    @property
    def held_out(self) -> Path:
        """Conversations kept from training (`--hold-out`)."""
        return self.root / "held_out.jsonl"

    @property
    def card(self) -> Path:
        """The model card of the run."""
        return self.root / "README.md"

    @property
    def page(self) -> Path:
        """The report for people."""
        return self.root / "report.html"

    @property
    def teacher_answers(self) -> Path:
        """What teachers answered for comparisons, so that no answer is paid for twice."""
        return self.root / "comparison" / "teacher.jsonl"

    @property
    def judgements(self) -> Path:
        """What judges answered for comparisons."""
        return self.root / "comparison" / "judge.jsonl"

    @property
    def comparison(self) -> Path:
        """The last comparison of the student."""
        return self.root / "comparison" / "comparison.json"

    @property
    def recipe(self) -> Path:
        """The recipe the run was made by, where there was one."""
        return self.root / "recipe.yaml"

    @property
    def resolved_recipe(self) -> Path:
        """The recipe's settings and inputs; written last, once the run is finished."""
        return self.root / "resolved.json"


def is_run(path: str | Path) -> bool:
    """Whether a path is a run folder, finished or not."""
    return RunPaths(Path(path).expanduser()).manifest.is_file()

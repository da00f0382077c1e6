"""Asking a teacher, or a judge, in the middle of a comparison: through the collector, so that nothing is bought twice.

What was answered stays in a file of the run folder. Comparing again asks only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distill.collection import CollectSettings, NamedTeacher, collect
from distill.collection.plan import make_plan
from distill.plugins import PluginManager
from distill.transcripts.reader import read_transcripts
from distill.types import Prompt, Transcript


def ask_all(
    manager: PluginManager,
    teacher: NamedTeacher,
    prompts: Sequence[Prompt],
    out: Path,
    *,
    note: Callable[[str], None],
    progress: bool,
) -> list[Transcript | None]:
    """Ask the prompts that `out` has no answer to.

    Args:
        manager: the plugins; observers of the collection are told of each row.
        teacher: who answers, with its own limit of tokens and temperature.
        prompts: without followups; each ends with a message of a user or a tool that is not empty.
        out: the file of answers, made or added to.
        note: told how many could not be answered, and why.
        progress: whether to show a live line, where standard error is a terminal.

    Returns:
        The transcript that ends with the answer, a prompt; None where there is none.

    Raises:
        DistillError: the teacher failed for good; what it answered until then is saved.
    """
    if not prompts:
        return []
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = CollectSettings(teacher, append=True)
    summary = collect(prompts, out, settings, manager, progress=progress)
    if summary.failed:
        reason = next(iter(summary.reasons), "")
        note(f"{teacher.name} did not answer {summary.failed} of {len(prompts)} questions: {reason}")
    known = (
        {transcript.id: transcript for transcript in read_transcripts(out, "canonical", manager)}
        if out.exists()
        else {}
    )
    plan = make_plan(settings, manager)
    return [known.get(plan.row_id(prompt)) for prompt in prompts]

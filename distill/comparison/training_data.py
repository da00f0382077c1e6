"""What a student's training data tell: whether held-out questions are among them, and what their answers cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distill.collection.costs import Cost, CostTable
from distill.errors import DataError, DistillError
from distill.plugins import PluginManager
from distill.runs.manifest import DataFile
from distill.runs.run import Run
from distill.transcripts.digest import prompt_digest
from distill.transcripts.reader import skip_refused
from distill.transcripts.sources import DataSource
from distill.types import Transcript

_SHOWN = 3


@dataclass(slots=True)
class TrainingData:
    """What one pass over the training data found.

    Attributes:
        leaks: warnings: held-out prompts that were trained on.
        costs: a cost per teacher, the one with the most transcripts first.
        unknown: why some of the data could not be read.
    """

    leaks: list[str] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def read_training_data(run: Run, held: Sequence[Transcript], manager: PluginManager) -> TrainingData:
    """Read the files a run was trained on, once.

    Args:
        run: names the files, and knows what training left out of them.
        held: the held-out conversations; their prompts are looked for.
        manager: the plugins, whose teachers name their servers.
    """
    asked = {prompt_digest(transcript): str(transcript.source) for transcript in held}
    untrained = {prompt_digest(one) for one in run.held_out()}
    found: dict[bytes, str] = {}
    costs = CostTable(manager)
    made, reader = TrainingData(), run.reader(manager)
    for entry in run.data:
        try:
            for transcript in reader.transcripts(_trained(entry), skip_refused):
                costs.add(transcript.metadata)
                digest = prompt_digest(transcript)
                if digest in asked and digest not in untrained:
                    found.setdefault(digest, str(transcript.source))
        except DistillError as error:
            made.unknown.append(error.message)
    made.costs = costs.found()
    if found:
        made.leaks.append(_leak(found, asked, held))
    made.leaks += (f"Whether the student was trained on these questions is not known: {text}" for text in made.unknown)
    return made


def _leak(found: Mapping[bytes, str], asked: Mapping[bytes, str], held: Sequence[Transcript]) -> str:
    count = sum(prompt_digest(transcript) in found for transcript in held)
    first = "; ".join(f"{asked[digest]} as {where}" for digest, where in list(found.items())[:_SHOWN])
    return (
        f"{count} of {len(held)} held-out conversations begin with a prompt that the student was trained on, so it may "
        f"know the answers by heart: {first}{'; …' if len(found) > _SHOWN else ''}"
    )


def _trained(entry: DataFile) -> DataSource:
    """Data the run was trained on.

    Raises:
        DataError: it is gone, or has changed.
    """
    source = entry.source()
    if source.digest() != entry.sha256:
        raise DataError(f"{source} has changed since the training")
    return source

"""Whether held-out questions stand in the data that the student was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from distill.errors import DataError
from distill.plugins import PluginManager
from distill.runs.manifest import DataFile
from distill.runs.run import Run
from distill.transcripts.digest import prompt_digest
from distill.transcripts.reader import skip_refused
from distill.transcripts.sources import DataSource
from distill.types import Transcript

_SHOWN = 3


def leaks(run: Run, held: Sequence[Transcript], manager: PluginManager) -> list[str]:
    """Look for the held-out conversations' prompts in the run's training data.

    Args:
        run: names the files, and knows what training left out of them.
        held: the held-out conversations.
        manager: the plugins, whose data formats the data may be in.

    Returns:
        Warnings: how many were found and where the first ones are; what could not be looked into.
    """
    asked = {prompt_digest(transcript): str(transcript.source) for transcript in held}
    untrained = {prompt_digest(one) for one in run.held_out()}
    found: dict[bytes, str] = {}
    warnings = []
    for entry in run.data:
        try:
            for transcript in run.reader(manager).transcripts(_trained(entry), skip_refused):
                digest = prompt_digest(transcript)
                if digest in asked and digest not in untrained:
                    found.setdefault(digest, str(transcript.source))
        except DataError as error:
            warnings.append(f"Whether the student was trained on these questions could not be checked: {error.message}")
    if found:
        count = sum(prompt_digest(transcript) in found for transcript in held)
        first = "; ".join(f"{asked[digest]} as {where}" for digest, where in list(found.items())[:_SHOWN])
        warnings.insert(
            0,
            f"{count} of {len(held)} held-out conversations begin with a prompt that the student was trained on, so "
            f"that it may know the answers by heart: {first}{'; …' if len(found) > _SHOWN else ''}",
        )
    return warnings


def _trained(entry: DataFile) -> DataSource:
    """A file the run was trained on.

    Raises:
        DataError: it is gone, or not what it was.
    """
    source = entry.source()
    if source.digest() != entry.sha256:
        raise DataError(f"{source} has changed since the training")
    return source

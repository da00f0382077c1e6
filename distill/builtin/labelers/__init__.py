"""Built-in labelers: all tokens, the assistant's only, or as TRL's completion-only collator has it."""

from __future__ import annotations

from distill import LabelerSpec, NoOptions, hookimpl
from distill.builtin.labelers.completion_only import CompletionOnly, CompletionOnlyOptions
from distill.builtin.labelers.copy_and_masked import Copy, Masked, MaskedOptions


@hookimpl
def register_labelers() -> list[LabelerSpec]:
    """Offer `copy`, `masked` and `trl`."""
    return [
        LabelerSpec("copy", "every token counts, including the prompt's", lambda options, encoder: Copy(), NoOptions),
        LabelerSpec(
            "masked",
            "the assistant's tokens count, end-of-turn marker included",
            lambda options, encoder: Masked(options),
            MaskedOptions,
        ),
        LabelerSpec(
            "trl",
            "what follows a response template counts, as with TRL's DataCollatorForCompletionOnlyLM",
            CompletionOnly,
            CompletionOnlyOptions,
        ),
    ]

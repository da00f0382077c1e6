"""Built-in teachers: any OpenAI-compatible server, a local transformers model, recorded answers."""

from __future__ import annotations

from distill import TeacherSpec, hookimpl
from distill.builtin.teachers import openai, replay, transformers


@hookimpl
def register_teachers() -> list[TeacherSpec]:
    """Offer `openai`, `replay` and `transformers`. The modules import heavy packages where they need them."""
    return [
        TeacherSpec(
            "openai",
            "any OpenAI-compatible server: openai:MODEL, with --base-url or OPENAI_BASE_URL",
            openai.OpenAITeacher,
            openai.OpenAIOptions,
        ),
        TeacherSpec("replay", "recorded answers: replay:FILE of transcripts", replay.build),
        TeacherSpec(
            "transformers",
            "a local model: transformers:PATH, a hub id, a .gguf file or a registered name",
            transformers.build,
            transformers.TransformersOptions,
            loads_models=True,
        ),
    ]

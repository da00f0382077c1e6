"""Built-in teachers: any OpenAI-compatible server, Anthropic, a local transformers model, recorded answers."""

from __future__ import annotations

from distill import TeacherSpec, hookimpl
from distill.builtin.teachers import anthropic, openai, replay, transformers


@hookimpl
def register_teachers() -> list[TeacherSpec]:
    """Offer the built-in teachers. Their modules import heavy packages where they need them."""
    return [
        TeacherSpec(
            "openai",
            "any OpenAI-compatible server: openai:MODEL, with --base-url or OPENAI_BASE_URL",
            openai.OpenAITeacher,
            openai.OpenAIOptions,
            any_params=True,
            server=openai.DEFAULT_BASE_URL,
        ),
        TeacherSpec(
            "anthropic",
            "Anthropic's Messages API: anthropic:MODEL, with the key from ANTHROPIC_API_KEY",
            anthropic.AnthropicTeacher,
            anthropic.AnthropicOptions,
            any_params=True,
            server=anthropic.DEFAULT_BASE_URL,
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

"""Built-in data formats: distill's own, those of training data, and chats as other programs export them."""

from __future__ import annotations

from distill import DialectSpec, hookimpl
from distill.builtin.dialects.alpaca import ALPACA
from distill.builtin.dialects.chatgpt import CHATGPT
from distill.builtin.dialects.claude import CLAUDE, CLAUDE_CODE
from distill.builtin.dialects.items import CODEX, OPENAI_AGENTS
from distill.builtin.dialects.langchain import LANGCHAIN
from distill.builtin.dialects.llm_logs import LLM_LOGS
from distill.builtin.dialects.messages import CANONICAL, OPENAI
from distill.builtin.dialects.prompt_completion import PROMPT_COMPLETION
from distill.builtin.dialects.sharegpt import SHAREGPT


@hookimpl
def register_dialects() -> list[DialectSpec]:
    """Offer the formats of training data, and of exported chats."""
    data = [CANONICAL, OPENAI, SHAREGPT, ALPACA, PROMPT_COMPLETION]
    return [*data, LLM_LOGS, CHATGPT, CLAUDE, CLAUDE_CODE, CODEX, OPENAI_AGENTS, LANGCHAIN]

"""Chat templates written after the documented formats of model families, and tiny tokenizers with their markers."""

from __future__ import annotations

from collections.abc import Sequence

from distill.testing import byte_bpe

# R1-Distill, QwQ: the generation prompt opens a thought; a finished answer is rendered without it.
THINKS_FIRST = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '<|user|>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}"
    "{% if m['tool_calls'] %}{{ '<|assistant|>' }}{% for c in m['tool_calls'] %}"
    "{{ '<tool_call>' + c['function']['name'] + (c['function']['arguments'] | tojson) + '</tool_call>' }}{% endfor %}"
    "{% else %}{{ '<|assistant|>' + m['content'].split('</think>')[-1] }}{% endif %}{{ eos_token }}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)

# DeepSeek V3.1: the prompt opens a thought, or an empty one; history has the closing marker only.
THINKS_ON_DEMAND = (
    "{% set thinking = thinking if thinking is defined else false %}"
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ '<|assistant|></think>' + m['content'].split('</think>')[-1] + eos_token }}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' + ('<think>' if thinking else '<think></think>') }}{% endif %}"
)

# Mistral v3, Nemo: the system message is rendered in the last message, if that is a question.
SYSTEM_IN_LAST_QUESTION = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set chat = messages[1:] %}"
    "{% else %}{% set chat = messages %}{% endif %}{{ bos_token }}{% for m in chat %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' }}"
    "{% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}{{ m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)

# gpt-oss, Command R7B: a tool call ends with a marker of its own.
CALL_ENDS_OTHERWISE = (
    "{{ bos_token }}{% if tools %}{{ '<|system|>' + (tools | tojson) + '<|end|>' }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['tool_calls'] %}{% for c in m['tool_calls'] %}"
    "{{ c['function']['name'] + ' ' + (c['function']['arguments'] | tojson) + '<|call|>' }}{% endfor %}"
    "{% else %}{{ m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# GLM: nothing ends a message; generation stops at the marker of whoever speaks next.
NEXT_SPEAKER_ENDS = (
    "{% if tools %}{{ '<|system|>' + (tools | tojson) }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}"
    "{{ '<tool_call>' + c['function']['name'] + (c['function']['arguments'] | tojson) + '</tool_call>' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

MARKERS = ("<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|end|>", "<|call|>", "[INST]", "[/INST]")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


def tokenizer_for(template: str, markers: Sequence[str] = MARKERS, tags: Sequence[str] = TAGS):
    """A tiny byte-level tokenizer with a template.

    Args:
        template: the chat template.
        markers: special tokens.
        tags: further added tokens, not special.
    """
    from tokenizers import AddedToken

    tokenizer = byte_bpe({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, template=template)
    tokenizer.add_special_tokens({"additional_special_tokens": list(markers)})
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return tokenizer

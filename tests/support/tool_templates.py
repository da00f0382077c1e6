"""Chat templates that have tools and reasoning, each behaving as the well-known one it is named after, and students
for them."""

from __future__ import annotations

from collections.abc import Callable

from distill.testing import byte_bpe
from distill.testing.tokenizers import TOKENIZERS

# Qwen2.5: a system prompt of its own, calls as JSON in <tool_call>, tool results gathered in a user's turn.
QWEN25 = r"""
{%- set system = messages[0].content if messages and messages[0].role == 'system' else 'You are Qwen.' %}
{{- '<|im_start|>system\n' + system }}
{%- if tools %}
  {{- '\n\n# Tools\n<tools>' }}{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}{{ '\n</tools>' }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- for m in messages %}
  {%- if m.role == 'user' or (m.role == 'system' and not loop.first) or (m.role == 'assistant' and not m.tool_calls) %}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
  {%- elif m.role == 'assistant' %}
    {{- '<|im_start|>assistant' }}
    {%- if m.content %}{{ '\n' + m.content }}{% endif %}
    {%- for call in m.tool_calls %}
      {%- set call = call.function if call.function is defined else call %}
      {{- '\n<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
      {{- (call.arguments | tojson) + '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif m.role == 'tool' %}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
    {{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

# Qwen3: reasoning only after the last question, split off contents that hold it; arguments may be a string.
QWEN3 = r"""
{%- if tools %}
  {{- '<|im_start|>system\n' }}
  {%- if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}
  {{- '# Tools\n<tools>' }}{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}{{ '\n</tools><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
  {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages | length - 1) %}
{%- for m in messages[::-1] %}
  {%- set index = messages | length - 1 - loop.index0 %}
  {%- if ns.searching and m.role == 'user' and m.content is string
      and not (m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}
    {%- set ns.searching = false %}{% set ns.last_query = index %}
  {%- endif %}
{%- endfor %}
{%- for m in messages %}
  {%- set content = m.content if m.content is string else '' %}
  {%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
    {{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}
  {%- elif m.role == 'assistant' %}
    {%- set reasoning = '' %}
    {%- if m.reasoning_content is string %}
      {%- set reasoning = m.reasoning_content %}
    {%- elif '</think>' in content %}
      {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
      {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\n' }}
    {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
      {{- '<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
    {%- else %}
      {{- content }}
    {%- endif %}
    {%- for call in m.tool_calls or [] %}
      {%- if (loop.first and content) or not loop.first %}{{ '\n' }}{% endif %}
      {%- if call.function %}{% set call = call.function %}{% endif %}
      {{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
      {{- call.arguments if call.arguments is string else call.arguments | tojson }}
      {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif m.role == 'tool' %}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
    {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

# Hermes: the call is one JSON object, its contents escaped to ASCII here; results under a role of their own.
HERMES = r"""
{{- bos_token }}
{%- if tools %}{{ '<|im_start|>system\n<tools>' + (tools | tojson) + '</tools><|im_end|>\n' }}{% endif %}
{%- for m in messages %}
  {%- if m.role == 'assistant' and m.tool_calls %}
    {{- '<|im_start|>assistant' }}{% if m.content %}{{ '\n' + m.content }}{% endif %}
    {%- for call in m.tool_calls %}
      {{- '\n<tool_call>\n' + (call.function | tojson(ensure_ascii=True)) + '\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif m.role == 'tool' %}
    {{- '<|im_start|>tool\n<tool_response>\n' + m.content + '\n</tool_response>\n<|im_end|>\n' }}
  {%- else %}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""

# Llama 3.1: one call a message, no text beside it; results are JSON under the role ipython; trims.
LLAMA31 = r"""
{{- bos_token }}
{%- if messages and messages[0].role == 'system' %}
  {%- set system = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n' + system }}
{%- for tool in tools or [] %}{{ '\n' + (tool | tojson(indent=4)) }}{% endfor %}
{{- '<|eot_id|>' }}
{%- for m in messages %}
  {%- if m.role not in ('tool', 'ipython') and not m.tool_calls %}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}
  {%- elif m.tool_calls %}
    {%- if m.tool_calls | length != 1 %}{{ raise_exception('only single tool-calls at once!') }}{% endif %}
    {%- set call = m.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
    {{- (call.arguments | tojson) + '}<|eot_id|>' }}
  {%- else %}
    {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}
    {{- (m.content | tojson if m.content is mapping or m.content is iterable else m.content) + '<|eot_id|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""

# Mistral: roles alternate, ids have nine characters, tools stand before the last question, eos ends a turn.
MISTRAL = r"""
{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}
{{- bos_token }}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {%- if tools and m == users[-1] %}{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}
    {{- '[INST] ' + m.content + '[/INST]' }}
  {%- elif m.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for call in m.tool_calls %}
      {%- if call.id is not defined or call.id | length != 9 %}
        {{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
      {%- endif %}
      {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + (']' + eos_token if loop.last else ', ') }}
    {%- endfor %}
  {%- elif m.role == 'assistant' %}
    {{- ' ' + m.content + eos_token }}
  {%- elif m.role == 'tool' %}
    {{- '[TOOL_RESULTS] {"content": ' + m.content | string + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
  {%- else %}
    {{- raise_exception('Only user and assistant roles are supported!') }}
  {%- endif %}
{%- endfor %}
"""


def _chatml(template: str, *others: str) -> Callable:
    def make():
        from tokenizers import AddedToken

        tokenizer = byte_bpe({"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
        tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in others])
        tokenizer.chat_template = template
        return tokenizer

    return make


def _llama31():
    tokenizer = TOKENIZERS["llama3"]()
    tokenizer.chat_template = LLAMA31
    return tokenizer


def _mistral():
    tokenizer = byte_bpe({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, template=MISTRAL)
    words = ["INST", "AVAILABLE_TOOLS", "TOOL_RESULTS"]
    brackets = [f"[{slash}{word}]" for word in words for slash in ("", "/")]
    tokenizer.add_special_tokens({"additional_special_tokens": [*brackets, "[TOOL_CALLS]"]})
    return tokenizer


CALLS = ("<tool_call>", "</tool_call>")
THOUGHTS = ("<think>", "</think>", "<tool_response>", "</tool_response>")

STUDENTS: dict[str, Callable] = {
    "qwen2.5": _chatml(QWEN25, *CALLS),
    "qwen3": _chatml(QWEN3, *CALLS, *THOUGHTS),
    "hermes": _chatml(HERMES),
    "llama3.1": _llama31,
    "mistral": _mistral,
}

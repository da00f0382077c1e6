"""What becomes of conversations of each kind in each model family: the table of docs/model-families.md.

The templates are written after the documented formats of the families, in so far as these concern messages; they are no
copies of the published ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from family_templates import THINKS_ON_DEMAND
from newer_families import DEEPSEEK_V3, FUNCTIONARY, GEMMA4, LLAMA3_DATES, QWEN35
from tool_templates import LLAMA31, MISTRAL, QWEN3, QWEN25

from distill import IGNORE_INDEX, Message, Transcript, make_formatter, make_plugin_manager, message_to_dict
from distill.dataset.prepare import Prepared, prepare
from distill.encode.encoder import Encoder
from distill.encode.tokenizer import prepare_tokenizer
from distill.testing import byte_bpe
from distill.testing.tokenizers import bloom_tokenizer


class Family(NamedTuple):
    """A family's format.

    Attributes:
        template: a Jinja chat template; None: the family has none.
        special: special tokens of the template, the end of an answer first.
        tags: added tokens that are not special.
        bos: the first token.
    """

    template: str | None
    special: tuple[str, ...]
    tags: tuple[str, ...] = ()
    bos: str = "<s>"

    def tokenizer(self) -> Any:
        """A tiny tokenizer with the family's markers."""
        from tokenizers import AddedToken

        if self.template is None:
            return bloom_tokenizer()
        eos, *others = self.special
        tokenizer = byte_bpe({"bos_token": self.bos, "eos_token": eos, "pad_token": "<pad>"}, template=self.template)
        tokenizer.add_special_tokens({"additional_special_tokens": others})
        tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in self.tags])
        return tokenizer


CALLS, THINK = ("<tool_call>", "</tool_call>"), ("<think>", "</think>")

_CALLS_AS_JSON = (
    "{% for c in m.tool_calls or [] %}{{ '<tool_call>\n' + (c.function | tojson) + '\n</tool_call>' }}{% endfor %}"
)

GEMMA3 = (  # the system message goes into the first question; no tools; an answer is trimmed
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set chat = messages[1:] %}{% else %}{% set first = '' %}{% set chat = messages %}{% endif %}"
    "{% for m in chat %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (first if loop.first else '') }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL_V3 = MISTRAL.replace(
    "{%- for m in messages %}",
    "{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}"
    "{%- endif %}{%- for m in messages %}",
).replace(
    "'[INST] ' + m.content", "'[INST] ' + (system + '\n\n' if loop.last and system is defined else '') + m.content"
)
MISTRAL_V7 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}"
    "{% elif m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% elif m.tool_calls %}{{ '[TOOL_CALLS]' }}{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('Tool call IDs should be of length 9') }}{% endif %}"
    "{{ c.function.name + '[CALL_ID]' + c.id + '[ARGS]' + (c.function.arguments | tojson) }}{% endfor %}{{ eos_token }}"
    "{% elif m.role == 'tool' %}"
    "{{ '[TOOL_RESULTS]' + m.tool_call_id + '[TOOL_CONTENT]' + m.content + '[/TOOL_RESULTS]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% if loop.first and tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
R1_DISTILL = (  # the prompt opens a thought, a finished answer has none
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.role == 'assistant' and m.tool_calls %}{{ '<｜Assistant｜><｜tool▁calls▁begin｜>' }}"
    "{% for c in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + c.function.name }}"
    "{{ '\n```json\n' }}"
    "{{ c.function.arguments + '\n```<｜tool▁call▁end｜>' }}{% endfor %}{{ '<｜tool▁calls▁end｜>' + eos_token }}"
    "{% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + eos_token }}"
    "{% else %}{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
GPT_OSS = (  # thoughts and answers are messages in channels; the last answer ends otherwise than earlier ones
    "{{ '<|start|>system<|message|>You are ChatGPT.<|end|>' }}"
    "{% if tools %}{{ '<|start|>developer<|message|>' + (tools | tojson) + '<|end|>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'system' %}{{ '<|start|>developer<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'tool' %}{{ '<|start|>functions to=assistant<|channel|>commentary<|message|>' + m.content }}"
    "{{ '<|end|>' }}"
    "{% elif m.tool_calls %}{% set call = m.tool_calls[0].function %}"
    "{{ '<|start|>assistant<|channel|>commentary to=functions.' + call.name + ' <|constrain|>json<|message|>' }}"
    "{{ (call.arguments | tojson) + '<|call|>' }}"
    "{% else %}{% if loop.last and m.reasoning_content %}"
    "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
GRANITE = (
    "{% if messages[0].role != 'system' %}{{ '<|start_of_role|>system<|end_of_role|>You are Granite.' }}"
    "{{ '<|end_of_text|>\n' }}"
    "{% endif %}{% if tools %}{{ '<|start_of_role|>available_tools<|end_of_role|>' + (tools | tojson) }}"
    "{{ '<|end_of_text|>\n' }}{% endif %}"
    "{% for m in messages %}{% set role = 'tool_response' if m.role == 'tool' else m.role %}"
    "{{ '<|start_of_role|>' + role + '<|end_of_role|>' }}"
    "{% if m.tool_calls %}{{ '<|tool_call|>' + (m.tool_calls | map(attribute='function') | list | tojson) }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|end_of_text|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
COMMAND_R = (
    "{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}"
    "{{ {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[m.role] }}"
    "{{ m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
OLMO = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
)
SMOLLM3 = (  # thinks unless told otherwise
    "{% set enable_thinking = enable_thinking if enable_thinking is defined else true %}"
    "{{ '<|im_start|>system\nReasoning Mode: ' + ('/think' if enable_thinking else '/no_think') }}"
    "{% if messages[0].role == 'system' %}{{ '\n' + messages[0].content }}{% endif %}"
    "{% if tools %}{{ '\n' + (tools | tojson) }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if not enable_thinking %}{{ '<think>\n\n</think>\n' }}{% endif %}{{ m.content.lstrip('\n') }}"
    + _CALLS_AS_JSON
    + "{{ '<|im_end|>\n' }}{% elif m.role != 'system' %}"
    "{{ '<|im_start|>' + ('user' if m.role == 'tool' else m.role) + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if not enable_thinking %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"
)
LFM2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' or tools %}{{ '<|im_start|>system\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{% if tools %}{{ 'List of tools: <|tool_list_start|>' + (tools | tojson) + '<|tool_list_end|>' }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% for m in messages %}{% if m.role != 'system' %}"
    "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.tool_calls %}{{ '<|tool_call_start|>' + (m.tool_calls | map(attribute='function') | list | tojson) }}"
    "{{ '<|tool_call_end|>' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GLM4 = (  # nothing ends a message: whoever speaks next does
    "{{ '[gMASK]<sop>' }}{% if tools %}{{ '<|system|>\n' + (tools | tojson) }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|>' }}"
    "{% if m.reasoning_content and loop.last %}{{ '\n<think>' + m.reasoning_content + '</think>' }}"
    "{% else %}{{ '\n<think></think>' }}{% endif %}{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '\n<tool_call>' + c.function.name + '\n' }}"
    "{% for key, value in c.function.arguments.items() %}"
    "{{ '<arg_key>' + key + '</arg_key>\n<arg_value>' + (value if value is string else value | tojson) }}"
    "{{ '</arg_value>\n' }}{% endfor %}{{ '</tool_call>' }}{% endfor %}"
    "{% elif m.role == 'tool' %}{{ '<|observation|>\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{% else %}{{ '<|' + m.role + '|>\n' + m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
NEMOTRON = (
    "{{ '<SPECIAL_10>System\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ '\n' }}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<SPECIAL_11>User\n' + m.content + '\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<SPECIAL_11>Assistant\n' + m.content.split('</think>')[-1] }}"
    "{{ '\n<SPECIAL_12>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<SPECIAL_11>Assistant\n<think>\n' }}{% endif %}"
)

_IM = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_GEMMA = ("<end_of_turn>", "<start_of_turn>")
_GEMMA4 = ("<turn|>", "<|turn>", "<|think|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>", "<|tool_call>",
           "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')  # fmt: skip
_INST = ("</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
         "[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "[CALL_ID]", "[ARGS]")  # fmt: skip
_R1 = ("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
       "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<｜tool▁output▁begin｜>",
       "<｜tool▁output▁end｜>")  # fmt: skip
_HARMONY = ("<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>")
_ROLES = ("<|user|>", "<|assistant|>", "<|system|>", "<|observation|>")

FAMILIES = {
    "Llama 3.x": Family(LLAMA31, ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"), bos="<|begin_of_text|>"),
    "Llama 3.x with dates": Family(
        LLAMA3_DATES, ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"), bos="<|begin_of_text|>"
    ),
    "Qwen 2.5": Family(QWEN25, _IM, CALLS),
    "Qwen 3": Family(QWEN3, _IM, (*CALLS, *THINK, "<tool_response>", "</tool_response>")),
    "Qwen 3.5": Family(QWEN35, _IM, (*CALLS, *THINK, "<tool_response>", "</tool_response>")),
    "Gemma 2": Family(GEMMA2, _GEMMA, bos="<bos>"),
    "Gemma 3": Family(GEMMA3, _GEMMA, bos="<bos>"),
    "Gemma 4": Family(GEMMA4, _GEMMA4, bos="<bos>"),
    "Mistral v3, Nemo": Family(MISTRAL_V3, _INST),
    "Mistral v7": Family(MISTRAL_V7, _INST),
    "Phi-3": Family(PHI3, ("<|end|>", "<|endoftext|>", *_ROLES)),
    "Phi-4": Family(PHI4, ("<|im_end|>", "<|im_start|>", "<|im_sep|>")),
    "DeepSeek R1 distills, QwQ": Family(R1_DISTILL, _R1, THINK, "<｜begin▁of▁sentence｜>"),
    "DeepSeek V3": Family(DEEPSEEK_V3, _R1, bos="<｜begin▁of▁sentence｜>"),
    "DeepSeek V3.1": Family(THINKS_ON_DEMAND, ("</s>", *_ROLES), THINK),
    "functionary v3.1": Family(
        FUNCTIONARY,
        ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"),
        bos="<|begin_of_text|>",
    ),
    "gpt-oss": Family(GPT_OSS, _HARMONY),
    "Granite": Family(GRANITE, ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>")),
    "Command R": Family(
        COMMAND_R,
        ("<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        bos="<BOS_TOKEN>",
    ),
    "OLMo": Family(OLMO, ("<|endoftext|>", *_ROLES), bos="<|endoftext|>"),
    "SmolLM3": Family(SMOLLM3, _IM, (*CALLS, *THINK)),
    "LFM2": Family(
        LFM2, (*_IM, "<|tool_list_start|>", "<|tool_list_end|>", "<|tool_call_start|>", "<|tool_call_end|>")
    ),
    "GLM": Family(GLM4, ("<|endoftext|>", "[gMASK]", "<sop>", *_ROLES), (*THINK, *CALLS)),
    "Nemotron": Family(NEMOTRON, ("<SPECIAL_12>", "<SPECIAL_10>", "<SPECIAL_11>"), THINK),
    "BLOOM, GPT-2": Family(None, ()),
}

_ASK, _ANSWER = Message("user", "How cold is it?"), Message("assistant", "Rather fresh.")
_CALL = {"id": "abcdef123", "type": "function", "function": {"name": "look", "arguments": '{"city": "Oslo"}'}}
_TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}

KINDS: dict[str, tuple[tuple[Message, ...], tuple[dict, ...]]] = {
    "plain": ((_ASK, _ANSWER), ()),
    "system": ((Message("system", "Be brief."), _ASK, _ANSWER), ()),
    "reasoning": ((_ASK, Message("assistant", "Rather fresh.", "Seven degrees.")), ()),
    "tools": (
        (
            _ASK,
            Message("assistant", None, tool_calls=(_CALL,)),
            Message("tool", "seven degrees", tool_call_id="abcdef123"),
            _ANSWER,
        ),
        (_TOOL,),
    ),
    "multi-turn": ((_ASK, _ANSWER, Message("user", "And now?"), Message("assistant", "Warmer.")), ()),
}

MANAGER = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})


class Outcome(NamedTuple):
    """What became of one conversation in one family."""

    family: str
    kind: str
    encoder: Encoder
    prepared: Prepared

    @property
    def cell(self) -> str:
        """As the table shows it."""
        if self.prepared.skipped:
            reason = self.prepared.skipped[0].reason
            return "refused: " + reason.removeprefix("the chat template ").removeprefix("refuses the conversation: ")
        examples = len(self.prepared.examples)
        cell = "trained" if examples == 1 else f"trained, {examples} examples"
        left_out = "reasoning-left-out" in self.prepared.findings.counts
        return cell + (", without reasoning" if left_out else "")


def outcomes() -> Iterator[Outcome]:
    """Every kind of conversation in every family."""
    for name, family in FAMILIES.items():
        encoder = prepare_tokenizer(family.tokenizer(), make_formatter("chat-template", {}, MANAGER), "chat-template")
        labeler = MANAGER.labelers.build("masked", {}, encoder)
        for kind, (messages, tools) in KINDS.items():
            yield Outcome(name, kind, encoder, prepare([Transcript("t", messages, tools)], encoder, labeler))


def prompts_of(outcome: Outcome) -> list[tuple[str, str]]:
    """Of each trained answer, the text before it and the prompt that the saved template gives at inference."""
    messages, tools = KINDS[outcome.kind]
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    decode = outcome.encoder.tokenizer.backend_tokenizer.decode
    found = []
    for example in outcome.prepared.examples:
        starts = [
            n
            for n, label in enumerate(example.labels)
            if label != IGNORE_INDEX and (n == 0 or example.labels[n - 1] == IGNORE_INDEX)
        ]
        mine = answers if len(outcome.prepared.examples) == 1 else [answers[len(found)]]
        for start, index in zip(starts, mine, strict=True):
            before = decode(example.input_ids[:start], skip_special_tokens=False)
            found.append((before, _prompt(outcome.encoder.tokenizer, messages[:index], tools)))
    return found


def _prompt(tokenizer: Any, messages: Sequence[Message], tools: Sequence[dict]) -> str:
    """The prompt as plain transformers render it: a call's arguments are an object there."""
    rows = []
    for message in messages:
        row = message_to_dict(message)
        row["content"] = row["content"] or ""
        if message.tool_calls:
            function = message.tool_calls[0]["function"]
            arguments = {**function, "arguments": json.loads(function["arguments"])}
            row["tool_calls"] = [{**message.tool_calls[0], "function": arguments}]
        rows.append(row)
    return tokenizer.apply_chat_template(rows, tools=list(tools) or None, tokenize=False, add_generation_prompt=True)


def table() -> str:
    """The table in Markdown."""
    rows: dict[str, list[str]] = {}
    for outcome in outcomes():
        rows.setdefault(outcome.family, []).append(outcome.cell)
    lines = ["| | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(["", *lines, ""])

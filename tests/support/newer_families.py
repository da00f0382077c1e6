"""Chat templates of further families, written after their vendors' documented formats; no copies of published ones."""

from __future__ import annotations

# Llama 3.x: the system message begins with two dates, today's unless `date_string` names another.
LLAMA3_DATES = (
    "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}{% if tools %}{{ 'Environment: ipython\n' }}{% endif %}"
    "{{ 'Cutting Knowledge Date: December 2023\nToday Date: ' + date_string + '\n\n' }}"
    "{% if tools %}{{ (tools | tojson(indent=4)) + '\n\n' }}{% endif %}{{ system + '<|eot_id|>' }}"
    "{% for m in messages %}{% if m.tool_calls %}{% set call = m.tool_calls[0].function %}"
    '{{ \'<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "\' + call.name + \'", "parameters": \' }}'
    "{{ (call.arguments | tojson) + '}<|eot_id|>' }}{% else %}"
    "{{ '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\n\n' }}"
    "{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# Gemma 4: a call hands over to its response within the same turn; thoughts are a channel, of the last answer only.
GEMMA4 = (
    "{{ bos_token }}{% if messages[0].role == 'system' or tools or enable_thinking %}{{ '<|turn>system\n' }}"
    "{% if enable_thinking %}{{ '<|think|>' }}{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}"
    "{% for tool in tools or [] %}{{ '<|tool>declaration:' + tool.function.name + '{description:<|\"|>' }}"
    "{{ tool.function.description + '<|\"|>}<tool|>' }}{% endfor %}{{ '<turn|>\n' }}{% endif %}"
    "{% set ns = namespace(after_call=false) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|turn>user\n' + m.content | trim + '<turn|>\n' }}"
    "{% elif m.role == 'tool' %}{{ 'response:look{value:<|\"|>' + m.content + '<|\"|>}<tool_response|>' }}"
    "{% elif m.role == 'assistant' %}{% if not ns.after_call %}{{ '<|turn>model\n' }}{% endif %}"
    "{% if m.reasoning_content and loop.last %}"
    "{{ '<|channel>thought\n' + m.reasoning_content + '\n<channel|>' }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '<|tool_call>call:' + c.function.name + '{' }}"
    "{% for key, value in c.function.arguments.items() %}{{ key + ':<|\"|>' + value + '<|\"|>' }}{% endfor %}"
    "{{ '}<tool_call|><|tool_response>' }}{% endfor %}{% set ns.after_call = m.tool_calls | length > 0 %}"
    "{% if not m.tool_calls %}{{ m.content | trim + '<turn|>\n' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and not ns.after_call %}{{ '<|turn>model\n' }}{% endif %}"
)

# Qwen 3.5: the prompt opens a thought; earlier answers are rendered without theirs; calls are XML.
QWEN35 = (
    "{% if messages[0].role == 'system' or tools %}{{ '<|im_start|>system\n' }}"
    "{% if tools %}{{ '# Tools\n<tools>' }}{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}"
    "{{ '\n</tools>\n\n' }}{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}"
    "{% elif m.role == 'user' %}{{ '<|im_start|>user\n' + m.content | trim + '<|im_end|>\n' }}"
    "{% elif m.role == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% if loop.index0 > ns.last %}"
    "{{ '<think>\n' + (m.reasoning_content or '') | trim + '\n</think>\n\n' }}{% endif %}{{ m.content | trim }}"
    "{% for c in m.tool_calls or [] %}{{ '\n\n' if m.content else '' }}"
    "{{ '<tool_call>\n<function=' + c.function.name + '>\n' }}{% for key, value in c.function.arguments.items() %}"
    "{{ '<parameter=' + key + '>\n' + value + '\n</parameter>\n' }}{% endfor %}{{ '</function>\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{{ '<think>\n\n</think>\n\n' if enable_thinking is false else '<think>\n' }}{% endif %}"
)

# DeepSeek V3: one line, full-width bars; calls are fenced JSON; a result is followed by the answer without a header.
DEEPSEEK_V3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{% set ns = namespace(after_result=false) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.after_result = false %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.role == 'assistant' and m.tool_calls %}{{ '<｜Assistant｜><｜tool▁calls▁begin｜>' }}"
    "{% for c in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + c.function.name }}"
    "{{ '\n```json\n' + c.function.arguments + '\n```<｜tool▁call▁end｜>' }}{% endfor %}"
    "{{ '<｜tool▁calls▁end｜>' + eos_token }}"
    "{% elif m.role == 'assistant' %}{{ ('' if ns.after_result else '<｜Assistant｜>') + m.content + eos_token }}"
    "{% elif m.role == 'tool' %}{% set ns.after_result = true %}"
    "{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and not ns.after_result %}{{ '<｜Assistant｜>' }}{% endif %}"
)

# functionary v3.1: a call is a tag, and ends with the marker that asks for its result.
FUNCTIONARY = (
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n\n' }}"
    "{% for tool in tools or [] %}"
    '{{ "Use the function \'" + tool.function.name + "\'\n" + (tool.function | tojson) }}'
    "{{ '\n\n' }}{% endfor %}{{ '<|eot_id|>' }}"
    "{% for m in messages %}{{ '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) }}"
    "{{ '<|end_header_id|>\n\n' }}{% if m.content %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '<function=' + c.function.name + '>' }}"
    "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}"
    "{{ '</function>' }}{% endfor %}"
    "{{ '<|eom_id|>' if m.tool_calls else '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

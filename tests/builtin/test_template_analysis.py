"""Which chat templates look into the texts they render: those must be rendered row by row."""

from __future__ import annotations

import pytest

from distill.builtin.formatters.chat_template import chatml
from distill.builtin.formatters.template_analysis import only_copies
from distill.testing import tokenizers as zoo

LOOP = "{% for m in messages %}BODY{% endfor %}"


@pytest.mark.parametrize("template", [zoo.CHATML, zoo.LLAMA3, zoo.GEMMA, zoo.LLAMA2, zoo.LATE_END, chatml()])
def test_plain_templates_only_copy(template):
    assert only_copies(template)


@pytest.mark.parametrize(
    "body",
    [
        "{{ m.content }}",
        "{{ m['content'] | trim }}",
        "{{ m.content.strip() + eos_token }}",
        "{{ '<' ~ m.content ~ '>' }}",
        "{% generation %}{{ m.content }}{%- endgeneration %}",
        "{% set text = m.content %}{{ text }}",
        "{% if m.content is string %}{{ m.content }}{% endif %}",
        "{% if 'tool_calls' in m %}x{% endif %}{{ m.content if m.content is not none else '' }}",
        "{% if messages | length > 2 and not loop.last %}{{ messages[0].content }}{% endif %}",
        "{% if loop.previtem and loop.previtem.role == m.role %}!{% endif %}{{ m.content }}",
    ],
)
def test_harmless_uses_are_known(body):
    assert only_copies(LOOP.replace("BODY", body))


@pytest.mark.parametrize(
    "template",
    [
        zoo.QWEN3,
        *[
            LOOP.replace("BODY", body)
            for body in (
                "{% if m.content %}a{% endif %}",
                "{% if 'x' in m.content %}a{% endif %}",
                "{% set x = m.content %}{% if x == 'a' %}b{% endif %}",
                "{{ m }}",
                "{{ m | tojson }}",
                "{{ m.get('content') }}",
                "{{ m.content[:3] }}",
                "{{ m.content | length }}",
                "{{ m.content | upper }}",
                "{{ m.content.strip('x') }}",
                "{{ m.content * 2 }}",
                "{{ 'ab'[m.content | length] }}",
                "{{ [m.content, 'x'] | max }}",
                "{% set x = m['con' + 'tent'] %}{% if x == 'a' %}b{% endif %}",
                "{% if m == messages[0] %}b{% endif %}",
                "{% if loop.previtem.content == 'x' %}x{% endif %}",
                "{% set ns = namespace() %}{% set ns.a = m.content %}{% if ns.a %}x{% endif %}",
                "{% with x = m.content %}{% if x %}a{% endif %}{% endwith %}",
                "{% set text %}{{ m.content }}{% endset %}{% if text %}a{% endif %}",
            )
        ],
        "{% set t = '' %}{% for m in messages %}{% set t = t + m.content %}{% endfor %}{% if t == 'a' %}a{% endif %}",
        "{% for m in messages if m.content %}{{ m.content }}{% endfor %}",
        "{% for k, v in messages[0].items() %}{{ v }}{% endfor %}",
        "{{ messages | map(attribute='content') | join }}",
        "{{ messages | selectattr('content', 'equalto', 'x') | list | length }}",
        "{% macro show(m) %}{{ m.content }}{% endmacro %}{{ show(messages[0]) }}",
        "{% if %}",
    ],
)
def test_templates_that_look_into_texts_are_found(template):
    assert not only_copies(template)

"""A chat template is a program: one that never ends, or writes without end, is stopped in any thread and process."""

from __future__ import annotations

import os
import threading
import time

import pytest

from distill.encode import chat_rendering
from distill.encode.chat_rendering import TemplateOverrun, render_chat
from distill.errors import DataError

ROWS = [{"role": "user", "content": "Is it so?"}]
PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "output": "{% for a in range(99999) %}{% for b in range(9999) %}ab{% endfor %}{% endfor %}",
}


@pytest.fixture
def tokenizer(bloom):
    from distill.models.load import load_tokenizer

    return load_tokenizer(str(bloom))


@pytest.fixture
def hurried(monkeypatch):
    """A deadline that tests can wait for."""
    monkeypatch.setattr(chat_rendering, "SECONDS", 0.2)


def stopped(tokenizer, template: str) -> bool:
    began = time.monotonic()
    with pytest.raises(TemplateOverrun, match=r"the chat template of evil\.jinja ran for more than 0\.2 s"):
        render_chat(tokenizer, ROWS, add_generation_prompt=True, template=template, name="evil.jinja")
    assert render_chat(tokenizer, ROWS, add_generation_prompt=True, template=PLAIN) == "Is it so?"
    return time.monotonic() - began < 30


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_never_ends_is_stopped(tokenizer, hurried, kind):
    assert stopped(tokenizer, ENDLESS[kind])


def test_in_a_thread_and_in_a_forked_process(tokenizer, hurried):
    done = []
    thread = threading.Thread(target=lambda: done.append(stopped(tokenizer, ENDLESS["loops"])))
    thread.start()
    thread.join(60)
    assert done == [True]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if stopped(tokenizer, ENDLESS["loops"]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_text_out_of_all_proportion_is_an_error(tokenizer):
    with pytest.raises(TemplateOverrun, match="makes a text of 4,999,950 characters"):
        render_chat(
            tokenizer,
            ROWS,
            add_generation_prompt=True,
            template="{% for i in range(99999) %}{{ 'x' * 50 }}{% endfor %}",
        )
    long = [{"role": "user", "content": "x" * 3_000_000}]
    assert len(render_chat(tokenizer, long, add_generation_prompt=True, template=PLAIN)) == 3_000_000


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{{ 'x' * 10 ** 13 }}", "{% for %}"]
)
def test_a_template_that_fails_refuses_the_conversation(tokenizer, template):
    with pytest.raises(DataError, match="refuses the conversation"):
        render_chat(tokenizer, ROWS, add_generation_prompt=True, template=template)

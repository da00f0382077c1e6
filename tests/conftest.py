"""What all tests share: no hub, one thread of torch, tiny students made once a session."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

# Started in the background by a shell, a process ignores Ctrl-C, and so would those that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: it reads it once
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only wait for each other


@pytest.fixture(autouse=True)
def handlers_are_given_back():
    """Whatever runs in this process leaves Ctrl-C and the other signals to those who had them before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.fixture(scope="session")
def bloom(tmp_path_factory) -> Path:
    """A folder with a tiny random BLOOM."""
    from distill.testing import save_student, tiny_bloom

    return save_student(*tiny_bloom(), tmp_path_factory.mktemp("models") / "bloom")


@pytest.fixture
def article(tmp_path) -> Path:
    """The article's five chats as a file of transcripts."""
    from article import ARTICLE

    path = tmp_path / "article.jsonl"
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in ARTICLE]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def manager():
    """The built-in plugins only."""
    from distill import make_plugin_manager

    return make_plugin_manager(environ={"DISTILL_PLUGINS": ""})

"""Runs to compare: a student that has learned the teacher's answers by heart, and one that was not trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_rows import write_chats


@pytest.fixture(scope="session")
def chats(tmp_path_factory) -> Path:
    """The article's chats, one of them of two turns, as a file."""
    from article import ARTICLE

    return write_chats(tmp_path_factory.mktemp("chats") / "chats.jsonl", ARTICLE)


def _train(student: Path, data: Path, out: Path, manager, **settings) -> Path:
    from distill.training import TrainSettings, train

    train(TrainSettings(str(student), (data,), out, per_device_train_batch_size=5, **settings), manager)
    return out


@pytest.fixture(scope="session")
def copycat(bloom, chats, tmp_path_factory, manager) -> Path:
    """The run of a student that says what the teacher said."""
    out = tmp_path_factory.mktemp("runs") / "copycat"
    options = {"warmup_steps": 5}
    return _train(bloom, chats, out, manager, epochs=60, learning_rate=1e-2, trainer_options=options)


@pytest.fixture(scope="session")
def idle(bloom, chats, tmp_path_factory, manager) -> Path:
    """The run of a student that learned nothing: its learning rate was 0."""
    return _train(bloom, chats, tmp_path_factory.mktemp("runs") / "idle", manager, epochs=1, learning_rate=0.0)


@pytest.fixture(scope="session")
def endless(bloom, chats, tmp_path_factory, manager) -> Path:
    """The run of a student that says what the teacher said, and was never taught to stop."""
    out = tmp_path_factory.mktemp("runs") / "endless"
    labels = {"labeler": "trl", "labeler_options": {"end_of_turn": False}, "allow": ("end-not-trained",)}
    options = {"warmup_steps": 10}
    return _train(bloom, chats, out, manager, epochs=60, learning_rate=5e-3, trainer_options=options, **labels)

"""Scoring answers that are there already: once each, row by row, and as the model would have told them itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distill import ScoringTeacher, make_plugin_manager
from distill.cli.main import main
from distill.collection.score import score
from distill.collection.settings import ScoreSettings
from distill.collection.teachers import make_teacher
from distill.soft_labels.rows import parse_logprobs

CHATS = [
    {
        "id": "a",
        "messages": [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi 👩!"}],
        "metadata": {"teacher_messages": [{"role": "system", "content": "Be kind."}]},
    },
    {
        "id": "b",
        "messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "One."},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "Two, of course."},
        ],
        "metadata": {"kept": 1},
    },
    {"id": "c", "messages": [{"role": "user", "content": "Nobody answers"}]},
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    return path


@pytest.fixture(scope="module")
def manager():
    return make_plugin_manager(environ={"DISTILL_PLUGINS": ""})


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def teacher(manager, bloom):
    return make_teacher(manager, f"transformers:{bloom}", {"formatter": "special-tokens"}, logprobs=3)


def test_each_answer_is_scored_by_the_models_own_forward_pass(manager, bloom, teacher, data, tmp_path):
    import torch

    out = tmp_path / "scored.jsonl"
    summary = score(data, out, ScoreSettings(teacher, logprobs=3), manager)
    assert (summary.rows, summary.answers, summary.failed) == (2, 3, 1) and "no answer" in next(iter(summary.reasons))
    rows = {row["id"]: row for row in read(out)}
    assert rows["b"]["metadata"]["kept"] == 1 and rows["b"]["messages"] == CHATS[1]["messages"]
    chat = teacher.build()._loaded()
    for id, turn in (("a", 1), ("b", 3)):
        from distill import Message

        told = parse_logprobs(rows[id]["metadata"]["logprobs"][-1])
        hidden = rows[id]["metadata"].get("teacher_messages", [])  # the teacher sees it when it reads, too
        encoded = chat.encoder.encode([Message(**one) for one in (*hidden, *rows[id]["messages"])])
        at = [n for n, one in enumerate(encoded.turn) if one == turn + len(hidden)][: len(told.tokens)]
        with torch.inference_mode():
            logits = chat.model(torch.tensor([encoded.input_ids])).logits[0].log_softmax(-1)
        wanted = [float(logits[n - 1, encoded.input_ids[n]]) for n in at]
        np.testing.assert_allclose(told.logprobs, wanted, atol=1e-3)
        assert told.ids.tolist() == [encoded.input_ids[n] for n in at] and told.ids[-1] == chat.stop and told.end == 1
        np.testing.assert_array_equal(told.top_ids[:, 0], logits[[n - 1 for n in at]].argmax(-1))
        assert told.origin.scored and told.origin.raw and not told.origin.sampled_plainly


def test_nothing_is_scored_twice(manager, teacher, data, tmp_path, monkeypatch):
    out, asked = tmp_path / "scored.jsonl", []
    built = teacher.build()
    original = type(built).score_batch

    def counted(self, requests, logprobs):
        asked.extend(requests)
        return original(self, requests, logprobs)

    monkeypatch.setattr(type(built), "score_batch", counted)
    assert score(data, out, ScoreSettings(teacher, logprobs=3, limit=1), manager).rows == 1
    out.write_bytes(out.read_bytes() + b'{"id": "b", "mess')  # killed while it wrote
    summary = score([data, data], out, ScoreSettings(teacher, logprobs=3), manager)
    assert (summary.rows, summary.cached, summary.duplicates) == (1, 1, 3) and len(asked) == 3
    assert [row["id"] for row in read(out)] == ["a", "b"]
    assert score(data, out, ScoreSettings(teacher, logprobs=3), manager).rows == 0 and len(asked) == 3


def test_on_the_command_line(bloom, data, tmp_path, capsys):
    out = tmp_path / "scored.jsonl"
    words = ["score", str(data), "--teacher", f"transformers:{bloom}", "-T", "formatter=special-tokens"]
    assert main([*words, "--logprobs", "2", "--out", str(out), "--limit", "2"]) == 0, capsys.readouterr().err
    assert "2 rows written" in capsys.readouterr().err
    assert main(["check", str(out), "--student", str(bloom), "--formatter", "special-tokens"]) == 0
    shown = capsys.readouterr()
    assert "exact 100.0%" in shown.out + shown.err
    assert main(["score", str(data), "--teacher", f"replay:{data}", "--out", str(out)]) == 2


def test_a_teacher_that_cannot_score_is_named(manager, data, tmp_path):
    from distill import UsageError

    with pytest.raises(UsageError, match="cannot score"):
        score(data, tmp_path / "out", ScoreSettings(f"replay:{data}"), manager)


def test_a_file_that_another_teacher_scored_is_left_alone(manager, teacher, data, tmp_path):
    from distill import UsageError

    out = tmp_path / "scored.jsonl"
    out.write_text(json.dumps({**CHATS[0], "metadata": {"scored_by": "transformers:other"}}) + "\n")
    with pytest.raises(UsageError, match="transformers:other"):
        score(data, out, ScoreSettings(teacher), manager)
    assert isinstance(teacher.build(), ScoringTeacher)

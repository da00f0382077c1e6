"""`train --hold-out`: kept from training by the prompt, counted, written whole, and never on both sides."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import DataError, DistillError, UsageError
from distill.cli.main import main
from distill.dataset import cache as room
from distill.training import TrainSettings, train
from distill.transcripts.digest import prompt_digest
from distill.transcripts.hold_out import make_hold_out, read_held_out
from distill.transcripts.reader import make_reader, read_transcripts
from distill.types import Message, Transcript

READER = make_reader()


def rows(count: int, samples: int = 1) -> list[dict]:
    return [
        {
            "id": f"{n}-{sample}",
            "messages": [
                {"role": "user", "content": f"dog {n}?" if sample % 2 else f"DOG   {n}? "},
                {"role": "assistant", "content": "perro" * (sample + 1)},
            ],
            "tools": [{"type": "function", "function": {"name": "look"}}] if n % 2 else [],
            "metadata": {"teacher": "t", "usage": {"prompt_tokens": n}},
        }
        for n in range(count)
        for sample in range(samples)
    ]


@pytest.fixture
def write(tmp_path):
    def to(made, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
        return path

    return to


def held(path, text="20%", seed=0) -> set[str]:
    return {one.id for one in read_held_out([path], READER, make_hold_out(text, [path], READER, seed))}


def test_the_prompt_decides_and_nothing_else(write):
    made = rows(300, samples=2)
    before = held(write(made))
    assert 60 < len(before) < 180 and before == {f"{name[:-2]}-{n}" for name in before for n in (0, 1)}
    random.Random(1).shuffle(made)
    assert held(write(made)) == before, "the order of rows"
    assert held(write([*rows(400, samples=3), *made])) >= before, "more rows move none to the other side"
    assert held(write(made[:100])) == before & {row["id"] for row in made[:100]}
    assert held(write(made), seed=1) != before
    assert held(write(made), "30%") > before, "a larger share adds to a smaller one"


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.integers(1, 39), st.integers(0, 5))
def test_a_number_is_met_as_near_as_whole_prompts_allow(asked, count, seed):
    transcripts = [
        Transcript(str(n), (Message("user", f"q{number}"), Message("assistant", "a"))) for n, number in enumerate(asked)
    ]
    reader = SimpleNamespace(transcripts=lambda data, refused: iter(transcripts))
    if count >= len(asked):
        with pytest.raises(DataError, match="leaves none"):
            make_hold_out(str(count), [Path("x")], reader, seed)
        return
    chosen = make_hold_out(str(count), [Path("x")], reader, seed)
    out = [one for one in transcripts if chosen.holds_out(one)]
    kept = [one for one in transcripts if not chosen.holds_out(one)]
    assert len(out) <= count and kept
    assert not {prompt_digest(one) for one in out} & {prompt_digest(one) for one in kept}
    assert all(
        sum(number == one for one in asked) > count - len(out) for number in {asked[int(one.id)] for one in kept}
    )


@pytest.mark.parametrize(
    ("text", "made", "complaint"),
    [
        ("100%", rows(9), "nothing on one side"),
        ("0%", rows(9), "nothing on one side"),
        ("nan%", rows(9), "nothing on one side"),
        ("ten", rows(9), "must be a percentage or a count"),
        ("0", rows(9), "must be a percentage or a count"),
        ("0.1", rows(9), "must be a percentage or a count"),
        ("9", rows(9), "leaves none of 9 conversations"),
        ("99999", rows(9), "leaves none of 9 conversations"),
        ("0.001%", rows(9), "holds out none"),
        ("3", rows(1, samples=9), "holds out none"),
        ("99.9999%", rows(1, samples=9), "leaves none of 9"),
    ],
)
def test_impossible_requests_have_a_way_out(manager, bloom, write, tmp_path, text, made, complaint):
    with pytest.raises((DataError, UsageError), match=complaint) as caught:
        train(TrainSettings(str(bloom), (write(made),), tmp_path / "run", hold_out=text), manager, dry_run=True)
    assert caught.value.hint


def test_the_run_folder_accounts_for_every_row(manager, bloom, write, tmp_path, capsys):
    made = rows(30, samples=2)
    made[4]["messages"][1]["content"] = ""
    data = (write(made[:31]), write(made[31:], "more.jsonl"))
    report = train(TrainSettings(str(bloom), data, tmp_path / "run", epochs=1, hold_out="20%"), manager)
    out = [json.loads(line) for line in (tmp_path / "run/held_out.jsonl").read_text().splitlines()]
    assert report.rows == 60 == report.trained_rows + report.skipped_rows + report.held_out_rows
    assert report.held_out_rows == len(out) > 0
    assert out == [row for row in made if row in out], "everything is kept, in its order"
    manifest = json.loads((tmp_path / "run/run.json").read_text())
    assert manifest["settings"]["hold-out"]["value"] == "20%"
    assert manifest["report"]["held_out_rows"] == report.held_out_rows

    trained = write([row for row in made if row not in out], "trained.jsonl")
    words = ["--student", str(bloom), "--against", str(tmp_path / "run/held_out.jsonl")]
    main(["check", str(trained), *words, "--json"])
    assert "leakage" not in {one["code"] for one in json.loads(capsys.readouterr().out)["findings"]}
    main(["check", *map(str, data), *words, "--json"])
    assert {one["code"]: one["count"] for one in json.loads(capsys.readouterr().out)["findings"]}["leakage"] == len(out)

    same = train(TrainSettings(str(bloom), (trained,), tmp_path / "other", epochs=1), manager)
    assert (same.trained_tokens, same.loss) == (report.trained_tokens, report.loss), "the held-out rows are not trained"


def test_resume_refuses_another_split(manager, bloom, write, tmp_path):
    data, out = write(rows(30)), tmp_path / "run"
    train(TrainSettings(str(bloom), (data,), out, epochs=1, hold_out="5"), manager)
    assert train(TrainSettings(str(bloom), (data,), out, epochs=1, hold_out="5"), manager, resume=True).held_out_rows
    with pytest.raises(DistillError, match="hold-out"):
        train(TrainSettings(str(bloom), (data,), out, epochs=1, hold_out="6"), manager, resume=True)


@pytest.mark.parametrize("text", ["20%", "12"])
def test_large_files_are_split_as_small_ones_and_cached(manager, bloom, write, tmp_path, monkeypatch, text):
    data = write(rows(40, samples=2))
    plan = TrainSettings(str(bloom), (data,), tmp_path / "run", hold_out=text)
    small = train(plan, manager, dry_run=True)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "SMALL", 2)
    monkeypatch.setattr(room, "CHUNK", 3)
    large = train(plan, manager, dry_run=True)
    assert (large.rows, large.held_out_rows, large.trained_tokens) == (80, small.held_out_rows, small.trained_tokens)
    monkeypatch.setattr(room, "_write", None)  # what was prepared is used again
    assert train(plan, manager, dry_run=True).held_out_rows == small.held_out_rows > 0


def test_any_dialect(manager, bloom, write, tmp_path):
    made = [{"instruction": f"dog {n}?", "input": "", "output": "perro"} for n in range(20)]
    plan = TrainSettings(str(bloom), (write(made),), tmp_path / "run", epochs=1, hold_out="6", data_format="alpaca")
    assert train(plan, manager).held_out_rows == 6
    out = list(read_transcripts(tmp_path / "run/held_out.jsonl", "canonical"))
    assert len(out) == 6 and all(one.messages[-1].content == "perro" for one in out)


def test_a_pipe_is_refused(write, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="only once"):
        make_hold_out("10%", [tmp_path / "pipe"], None, 0)


def test_what_a_person_reads(bloom, write, tmp_path, capsys):
    words = ["train", str(write(rows(20))), "--student", str(bloom), "--out", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*words, "--hold-out", "4", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "held out 4 rows" in told.err and "hold-out " in told.out and not (tmp_path / "run").exists()
    assert main([*words, "--hold-out", "4"]) == 0
    assert "held_out.jsonl" in (told := capsys.readouterr().err) and "distill compare" in told
    assert main([*words, "--hold-out", "no"]) == 2

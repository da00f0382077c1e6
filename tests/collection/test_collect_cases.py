"""Inputs made after public bug reports, and the server they need: what becomes of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parents[1] / "fixtures" / "collect"
SERVER = Path(__file__).parents[1] / "support" / "odd_server.py"


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The server's address, and how to read its log."""
    log = tmp_path_factory.mktemp("odd") / "asked.jsonl"
    process = subprocess.Popen([sys.executable, SERVER, "--log", log], stdout=subprocess.PIPE, text=True)
    port = process.stdout.readline().split()[1]
    yield f"http://127.0.0.1:{port}/v1", log
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def case(cli, odd, out, read):
    """Collect a case: what the command did, the rows it wrote, and how many requests it sent."""

    def run(name, *words):
        url, log = odd
        before = log.read_text().count("\n")
        ran = cli("collect", CASES / name, "--teacher", "openai:odd", "--base-url", url, "--out", out, *words)
        return ran, read(out) if out.exists() else [], log.read_text().count("\n") - before

    return run


def test_no_half_answer_is_written_as_good(case, failures):
    ran, rows, _ = case("finish.jsonl")
    assert ran.code == 1
    assert {row["metadata"]["finish_reason"] for row in rows} == {"max_tokens", "MAX_TOKENS"}
    assert "2 answers cut short by the token limit" in ran.err
    for reason in ("'insufficient_system_resource'", "'error'", "'abort'", "'network_error'", "Upstream idle timeout"):
        assert reason in ran.err
    assert len(failures()) == 5
    assert sum(bool(row["answers"]) for row in failures()) == 4, "what was paid for is kept"


def test_a_json_array_holds_two_prompts(case):
    ran, rows, requests = case("prompts.json")
    assert (ran.code, len(rows), requests) == (0, 2, 2)


@pytest.mark.parametrize(("line", "key"), [(1, "sytem"), (2, "generation_params"), (3, "images")])
def test_unknown_keys_are_named_with_their_line(cli, odd, out, tmp_path, line, key):
    lines = (CASES / "unknown_keys.jsonl").read_text().splitlines()
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "fine"}\n' * (line - 1) + lines[line - 1] + "\n")
    ran = cli("collect", path, "--teacher", "openai:odd", "--base-url", odd[0], "--out", out)
    assert ran.code == 1 and f"Error: {path}:{line}: " in ran.err and f"`{key}`" in ran.err
    assert not out.exists()


def test_one_moderated_prompt_is_its_rows_own(case, failures):
    ran, rows, _ = case("moderated.jsonl", "--concurrency", 1)
    assert (ran.code, len(rows), len(failures())) == (1, 59, 1)
    assert "flagged" in failures()[0]["error"]
    ran, rows, requests = case("moderated.jsonl", "--concurrency", 1)
    assert (ran.code, len(rows), requests) == (1, 59, 1), "a rerun does not stop at it either"


def test_one_web_page_is_a_blip(case):
    ran, rows, requests = case("html_blip.jsonl", "--concurrency", 4)
    assert (ran.code, len(rows), requests) == (0, 60, 61)


def test_reasoning_in_parts_and_details(case):
    ran, rows, _ = case("reasoning_parts.jsonl")
    answers = [row["messages"][-1] for row in rows]
    assert ran.code == 0
    said = [(answer["content"], answer["reasoning_content"]) for answer in answers]
    assert said == [("Perro.", "A dog is perro.")] * 2


def test_the_same_400_for_all_stops_and_names_the_option(case):
    ran, rows, requests = case("all_maxtok.jsonl", "--max-tokens", 20)
    assert (ran.code, rows) == (1, [])
    assert 20 <= requests <= 36
    assert "-T max_tokens_field=max_completion_tokens" in ran.err
    ran, rows, _ = case("all_maxtok.jsonl", "--max-tokens", 20, "-T", "max_tokens_field=max_completion_tokens")
    assert (ran.code, len(rows)) == (0, 300)


def test_the_role_developer_is_a_system_message(case, odd):
    ran, rows, _ = case("developer.jsonl")
    assert ran.code == 0
    assert rows[0]["messages"][0] == {"role": "system", "content": "Answer in one word."}


def test_statuses_that_pass(case):
    ran, rows, requests = case("passing_status.jsonl")
    assert (ran.code, len(rows), requests) == (0, 2, 4)


def test_thinking_in_tags_stays_as_it_was_answered(case):
    """What `check` finds in it, and the option that splits it, are tested with the data."""
    ran, rows, _ = case("think_inline.jsonl")
    contents = sorted(row["messages"][-1]["content"] for row in rows)
    assert (ran.code, contents) == (
        0,
        ["<think>\nA dog is perro.\n</think>\n\nPerro.", "A dog is perro.\n</think>\n\nPerro."],
    )
    assert json.dumps(rows).count("reasoning_content") == 0

"""`distill export --to hub`: what is uploaded, and what happens when the Hub refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from run_folders import write_run

from distill.cli.main import main

WORDS = ["--to", "hub", "-O", "repo=me/spanish"]


@pytest.fixture
def run(tmp_path):
    """A finished run whose model is two small files."""
    folder = write_run(tmp_path / "run")
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model/model.safetensors").write_bytes(b"weights")
    (folder / "model/config.json").write_text("{}")
    (folder / "model/README.md").write_text("# card")
    return folder


@pytest.fixture
def hub(monkeypatch):
    """The Hub, replaced: what was asked of it, and the error it answers with."""
    told = SimpleNamespace(repos=[], uploads=[], types=[], error=None)

    class Api:
        def create_repo(self, repo, *, private, exist_ok, repo_type):
            if told.error:
                raise told.error
            told.repos.append((repo, private))
            told.types.append(repo_type)
            return f"https://huggingface.co/{repo}"

        def upload_folder(self, *, repo_id, folder_path, commit_message, repo_type):
            told.types.append(repo_type)
            told.uploads.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir()), commit_message))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return told


def test_the_student_and_its_card_are_uploaded(run, hub, tmp_path, capsys):
    assert main(["export", str(run), *WORDS, "--out", str(tmp_path / "out")]) == 0
    assert hub.repos == [("me/spanish", True)], "private unless asked otherwise"
    ((repo, files, message),) = hub.uploads
    assert repo == "me/spanish" and {"README.md", "config.json", "model.safetensors"} <= set(files)
    assert message == "run, distilled with distill" and hub.types == ["model", "model"]
    assert "uploaded to https://huggingface.co/me/spanish" in capsys.readouterr().err


def test_a_dry_run_lists_what_would_go_and_asks_nothing(run, hub, tmp_path, capsys):
    words = ["--out", str(tmp_path / "out"), "-O", "dry_run=true", "-O", "private=false", "--json"]
    assert main(["export", str(run), *WORDS, *words]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith("dry run: would upload ") and "to the public repository me/spanish: " in note
    assert "model.safetensors" in note and not hub.repos and not hub.uploads
    assert (tmp_path / "out/README.md").is_file()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalTokenNotFoundError("no token hf_secret"), "your token does not allow it"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (HfHubHTTPError("hf_secret", response=SimpleNamespace(status_code=403, headers={}, request=None)), "token"),
        (HfHubHTTPError("x", response=SimpleNamespace(status_code=503, headers={}, request=None)), "HTTP 503"),
        (ConnectionError("hf_secret"), "it cannot be reached"),
    ],
)
def test_a_refusal_is_one_line_without_the_token_and_leaves_nothing(run, hub, tmp_path, capsys, error, said):
    hub.error = error
    assert main(["export", str(run), *WORDS, "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert f"Error: the Hub did not take me/spanish: {said}" in err.replace("your token", "token") or said in err
    assert "Hint: " in err and "hf_secret" not in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("repo", ["", "spanish", "a/b/c"])
def test_the_repository_needs_an_owner_and_a_name(run, hub, tmp_path, capsys, repo):
    assert main(["export", str(run), "--to", "hub", "-O", f"repo={repo}", "--out", str(tmp_path / "out")]) == 2
    assert "-O repo=OWNER/NAME" in capsys.readouterr().err


@pytest.fixture
def transcripts(tmp_path):
    """A file of answers by two teachers, one of them with a hostile name, and a row that is no conversation."""
    ask, answer = {"role": "user", "content": "dog?"}, {"role": "assistant", "content": "perro"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    rows = [
        {"messages": [ask, answer], "metadata": {**one, "finish_reason": "stop", "usage": usage}}
        for one in (
            {"teacher": "openai:gpt-5-mini", "created": "2026-11-02T08:00:00Z", "params": {"temperature": 1.0}},
            {"teacher": "openai:gpt-5-mini", "created": "2026-11-01T08:00:00Z", "model": "gpt-5-mini-2025"},
            {"teacher": "own | `x` <script>"},
        )
    ]
    rows.append({"messages": [ask, answer], "rejected": "gato"})
    path = tmp_path / "spanish.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_transcripts_are_uploaded_with_a_data_card(transcripts, hub, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(transcripts), *WORDS, "--out", str(out)]) == 0
    assert hub.repos == [("me/spanish", True)] and hub.types == ["dataset", "dataset"]
    assert hub.uploads == [("me/spanish", ["README.md", "spanish.jsonl"], "spanish, collected with distill")]
    assert (out / "spanish.jsonl").read_bytes() == transcripts.read_bytes()
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"] == [{"config_name": "default", "data_files": "spanish.jsonl"}]
    for part in (
        "| conversations | 3 |",
        "| model, as the server named it | gpt-5-mini-2025 (1) |",
        "| parameters | temperature 1.0 (1) |",
        "| collected | 2026-11-01 to 2026-11-02 |",
        "| rows that are no conversation to learn from | 1 |",
        "| `openai:gpt-5-mini` | 2 |",
        "OpenAI's terms limit",
        "terms not known to distill",
        "distill train hub:me/spanish",
    ):
        assert part in card, part
    assert "<script>" not in card and "own \\| 'x'" in card


def test_a_dry_run_of_a_data_set_asks_nothing(transcripts, hub, tmp_path, capsys):
    words = ["--out", str(tmp_path / "out"), "-O", "dry_run=true", "--json"]
    assert main(["export", str(transcripts), *WORDS, *words]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "to the private data set me/spanish: README.md, spanish.jsonl" in note and not hub.repos


def test_what_publishes_no_data_sets_and_what_is_none_is_said(transcripts, hub, tmp_path, capsys):
    assert main(["export", str(transcripts), "--to", "merged", "--out", str(tmp_path / "out")]) == 2
    assert "exporter 'merged' writes students" in capsys.readouterr().err
    transcripts.write_text(transcripts.read_text().splitlines()[-1] + "\n")
    assert main(["export", str(transcripts), *WORDS, "--out", str(tmp_path / "out")]) == 1
    assert "holds no conversation" in capsys.readouterr().err and not (tmp_path / "out").exists()

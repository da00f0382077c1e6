"""`distill export --to hub`: what is uploaded, and what happens when the Hub refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
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
    told = SimpleNamespace(repos=[], uploads=[], error=None)

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            if told.error:
                raise told.error
            told.repos.append((repo, private))
            return f"https://huggingface.co/{repo}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            told.uploads.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir()), commit_message))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return told


def test_the_student_and_its_card_are_uploaded(run, hub, tmp_path, capsys):
    assert main(["export", str(run), *WORDS, "--out", str(tmp_path / "out")]) == 0
    assert hub.repos == [("me/spanish", True)], "private unless asked otherwise"
    ((repo, files, message),) = hub.uploads
    assert repo == "me/spanish" and {"README.md", "config.json", "model.safetensors"} <= set(files)
    assert message == "run, distilled with distill"
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

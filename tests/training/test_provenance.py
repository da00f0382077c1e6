"""What a run records of its origin: installed packages, the commit, the base model's Hub id and licence."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from run_folders import REPORT

from distill import ModelSpec, hookimpl
from distill.collection.terms import terms_of
from distill.plugins import PluginRecord, make_plugin_manager
from distill.runs import open_run
from distill.runs.manifest import BaseModel, GitState
from distill.training import TrainSettings, train
from distill.training.provenance import base_model, git_state, requirements
from distill.training.report import model_card, with_comparison


def git(folder, *words):
    who = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_the_commit_and_whether_something_has_changed(tmp_path):
    assert git_state(tmp_path) is None
    git(tmp_path, "init")
    (tmp_path / "prompts.txt").write_text("Hello\n")
    git(tmp_path, "add", "prompts.txt")
    git(tmp_path, "commit", "-m", "first")
    state = git_state(tmp_path)
    assert state == GitState(state.commit, dirty=False) and len(state.commit) == 40
    (tmp_path / "other.txt").write_text("not tracked")
    assert git_state(tmp_path).dirty is False
    (tmp_path / "prompts.txt").write_text("Bye\n")
    assert git_state(tmp_path).dirty is True


def test_git_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None


def test_a_run_records_them(manager, bloom, article, tmp_path):
    train(TrainSettings(str(bloom), (article,), tmp_path / "run", epochs=1), manager)
    manifest = open_run(tmp_path / "run").manifest
    assert manifest.requirements == requirements()
    assert any(line.startswith("torch==") for line in manifest.requirements)
    assert manifest.git == git_state()
    assert manifest.student.sha256 and manifest.student.hub_id is None


@pytest.fixture
def named():
    """A manager with two models by name, one of them with its origin."""

    class Plugin:
        @hookimpl
        def register_models(self):
            known = {"hub_id": "org/known", "license": "mit"}
            return [ModelSpec("known", "", path=lambda: None, **known), ModelSpec("unknown", "", path=lambda: None)]

    manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    manager.load(PluginRecord("named", "test"), Plugin)
    return manager


@pytest.mark.parametrize(
    ("name", "sha256", "found"),
    [
        ("known", "0", ("org/known", "mit")),
        ("unknown", "0", (None, None)),
        ("bigscience/bloom-560m", None, ("bigscience/bloom-560m", None)),
        ("models/mine", "0", (None, None)),
    ],
)
def test_the_base_models_origin(named, name, sha256, found):
    base = base_model(name, sha256, named)
    assert (base.name, base.hub_id, base.license) == (name, *found)


@pytest.mark.parametrize("base", [BaseModel("known", "0", "org/known", "mit"), BaseModel("/home/me/x", "0")])
def test_the_card_has_what_the_hub_reads_and_invents_nothing(base, tmp_path):
    card = model_card(TrainSettings(base.name, (), tmp_path / "run"), REPORT, base, ["openai:gpt-5-mini", "replay:x"])
    front = yaml.safe_load(card.split("---\n")[1])
    assert front.get("base_model") == base.hub_id and front.get("license") == base.license
    assert front["pipeline_tag"] == "text-generation"
    assert (base.license or "licence not known to distill") in card
    assert "OpenAI's terms limit" in card and "`replay:x`: terms not known to distill" in card
    assert "Not compared yet: `distill compare run`" in card
    compared = with_comparison(card, "| better |")
    assert "Not compared" not in compared and "| better |" in compared
    assert with_comparison(compared, "| worse |") == compared.replace("better", "worse")
    assert with_comparison("# my own card\n", "x") == "# my own card\n"


@pytest.mark.parametrize(
    ("teacher", "provider"),
    [
        ("openai:gpt-5-mini", "OpenAI"),
        ("openai:o3-mini", "OpenAI"),
        ("openai:gpt-oss-20b", None),
        ("openai:openai/gpt-4.1", "OpenAI"),
        ("anthropic:claude-x", "Anthropic"),
        ("openai:meta-llama/Llama-3.1-8B-Instruct", "Meta"),
        ("transformers:EleutherAI/gpt-neo-125m", None),
        ("transformers:gpt2", None),
        ("openai:qwen", None),
        ("replay:gpt.jsonl", None),
        ("no teacher named", None),
    ],
)
def test_the_terms_of_a_teacher_as_far_as_its_name_tells(teacher, provider):
    found = terms_of(teacher)
    assert (found and found.provider) == provider

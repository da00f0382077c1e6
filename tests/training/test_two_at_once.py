"""Two trainings into one folder: one trains, the other is refused, and the run folder is of one of them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distill.runs.run import open_run


def start(student, data, out, *more):
    words = ["train", data, "--student", student, "--out", out, "--epochs", 4, "-T", "use_cpu=true", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "distill", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("more", [(), ("--resume",)], ids=["new", "resume"])
def test_two_trainings_into_one_folder(bloom, article, tmp_path, more):
    runs = [start(bloom, article, tmp_path / "run", "--seed", seed, *more) for seed in (1, 2)]
    said = [run.communicate(timeout=120)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 1], said
    refused = said[codes.index(1)]
    assert "run: another process is writing to it" in refused and "Traceback" not in refused
    seed = (1, 2)[codes.index(0)]
    opened = open_run(tmp_path / "run")
    assert opened.manifest.settings["seed"].value == seed and opened.manifest.state == "finished"
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))

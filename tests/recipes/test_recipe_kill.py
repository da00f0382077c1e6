"""A recipe killed at random moments ends in what a clean run ends in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_rows import write_rows

KILLER = Path(__file__).with_name("kill_recipe.py")
SEED = 20261124


def run_both(folder: Path, kills: int) -> list[dict]:
    """Run the two recipes, one of them killed so often; gives what is told of each of its starts."""
    environ = {**os.environ, "SLOW": "0.02", "ASKED": os.devnull, "DISTILL_PLUGINS": "", "OMP_NUM_THREADS": "1"}
    environ["DISTILL_CACHE"] = str(folder / "cache")
    recipes = [str(folder / name / "recipe.yaml") for name in ("clean", "killed")]
    command = [sys.executable, str(KILLER), str(SEED), str(kills), *recipes, "--plugin", str(folder / "teacher.py")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600)
    print(f"seed {SEED}", done.stdout, done.stderr, sep="\n")  # pytest shows it with a failure
    assert done.returncode in (0, 1), "1: the student is not better than its base"
    return [json.loads(line) for line in done.stdout.splitlines()]


def artefacts(folder: Path) -> dict[str, object]:
    """What a recipe has made, but for times and for its own path."""
    out = folder / "out"
    rows = [json.loads(line) for line in (out / "transcripts.jsonl").read_text().splitlines()]
    for row in rows:
        del row["metadata"]["created"], row["metadata"]["source"], row["checksum"]  # of when and where
    losses = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    comparison = json.loads((out / "comparison.json").read_text().replace(str(folder), ""))
    for standing in comparison["standings"]:
        del standing["figures"]["tokens_per_second"], standing["seconds"]
    steps = json.loads((out / "state.json").read_text())["steps"]
    return {
        "files": sorted(path.relative_to(out).as_posix() for path in out.rglob("*")),
        "transcripts": rows,
        "weights": (out / "run" / "model" / "model.safetensors").read_bytes(),
        "losses": [(row["step"], row["loss"]) for row in losses],
        "comparison": comparison,
        "steps": [(one["step"], one["state"], one["made"]) for one in steps],
    }


@pytest.mark.slow
def test_a_recipe_killed_ten_times_ends_as_a_clean_one(folder, recipe):
    write_rows(folder / "prompts.jsonl", [{"prompt": f"question {n}"} for n in range(30)])
    path = recipe(
        train={"epochs": 3, "batch-size": 2, "save-steps": 4}, compare={"data": "held-out.jsonl", "max-tokens": 8}
    )
    for name in ("clean", "killed"):
        (folder / name).mkdir()
        for file in (path, folder / "prompts.jsonl", folder / "held-out.jsonl"):
            shutil.copy(file, folder / name)
    told = run_both(folder, 10)
    assert any(one["killed"] for one in told)
    clean, killed = artefacts(folder / "clean"), artefacts(folder / "killed")
    for name in clean:
        assert clean[name] == killed[name], name

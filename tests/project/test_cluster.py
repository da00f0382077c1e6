"""The cluster templates: their shell parts run with stand-ins for the cluster's tools, their YAML is read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plugin_packages import environment
from ruamel.yaml import YAML

from distill.testing import FaultyServer

CLUSTER = Path(__file__).parents[2] / "examples/cluster"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture
def tools(tmp_path) -> Path:
    """A folder of programs that write down how they are called; `distill` is the real one."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def tool(name: str, body: str) -> None:
        (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "{tmp_path}/calls"\n{body}\n')
        (folder / name).chmod(0o755)

    tool("vllm", "exec sleep 60")
    tool("scontrol", "")
    tool("curl", "")
    tool("distill", f'exec {sys.executable} -m distill "$@"')
    tool(
        "torchrun", "trap 'mkdir -p run/checkpoints/checkpoint-5; exit 1' TERM\nfor n in {1..200}; do sleep 0.05; done"
    )
    return folder


def start(script: str | Path, tools: Path, **variables: str) -> subprocess.Popen[str]:
    environ = environment(**variables)
    environ["PATH"] = f"{tools}{os.pathsep}{environ['PATH']}"
    words = ["bash", str(script)] if isinstance(script, Path) else ["bash", "-euc", script]
    out = subprocess.PIPE
    return subprocess.Popen(words, env=environ, cwd=tools.parent, stdout=out, stderr=subprocess.STDOUT, text=True)


def calls(tools: Path, name: str) -> list[str]:
    """How a program was called, call by call."""
    path = tools.parent / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line.startswith(f"{name} ")]


def wait_for(tools: Path, name: str, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while len(calls(tools, name)) < count:
        assert time.monotonic() < deadline, (tools.parent / "calls").read_text()
        time.sleep(0.05)


def prompts(tools: Path, count: int) -> None:
    (tools.parent / "prompts.jsonl").write_text("".join(f'{{"prompt": "question {n}"}}\n' for n in range(count)))


def array(server: FaultyServer, index: int) -> dict[str, str]:
    """The environment of a job of a Slurm array of two."""
    port = server.url.rpartition(":")[2].partition("/")[0]
    places = {"TASK_ID": str(index), "TASK_COUNT": "2", "TASK_MIN": "0", "JOB_ID": "7"}
    return {**{f"SLURM_ARRAY_{key}": value for key, value in places.items()}, "PORT": port, "OPENAI_API_KEY": "none"}


def test_a_slurm_array_collects(tools):
    prompts(tools, 12)
    with FaultyServer() as server:
        for index in range(2):
            job = start(CLUSTER / "collect.sbatch", tools, **array(server, index))
            said, _ = job.communicate(timeout=120)
            assert job.returncode == 0, said
        assert len(server.asked) == 12
    rows = [len((tools.parent / f"transcripts.shard-{n}.jsonl").read_text().splitlines()) for n in range(2)]
    assert sum(rows) == 12 and min(rows) > 0


def test_a_slurm_job_that_is_stopped_is_requeued(tools):
    prompts(tools, 500)
    with FaultyServer(delay=2) as server:
        job = start(CLUSTER / "collect.sbatch", tools, **array(server, 1))
        server.wait_for(3, 60)
        job.send_signal(signal.SIGTERM)
        said, _ = job.communicate(timeout=60)
    assert job.returncode == 143, said
    assert calls(tools, "scontrol") == ["scontrol requeue 7_1"]
    assert (tools.parent / "transcripts.shard-1.jsonl").read_text(), "what was in flight is saved"


def test_a_slurm_training_checkpoints_requeues_and_resumes(tools):
    for name in ("transcripts.shard-0.jsonl", "transcripts.shard-1.jsonl"):
        (tools.parent / name).touch()
    variables = {"SLURM_JOB_ID": "9", "SLURM_GPUS_ON_NODE": "2"}
    job = start(CLUSTER / "train.sbatch", tools, **variables)
    wait_for(tools, "torchrun")
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 1, said
    assert calls(tools, "scontrol") == ["scontrol requeue 9"]
    (first,) = calls(tools, "torchrun")
    assert "--nproc-per-node 2 -m distill train transcripts.shard-0.jsonl transcripts.shard-1.jsonl" in first
    assert "--resume" not in first
    (tools.parent / "run/run.json").touch()
    job = start(CLUSTER / "train.sbatch", tools, **variables)
    wait_for(tools, "torchrun", 2)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=60)
    assert "--resume" in calls(tools, "torchrun")[1]


def test_the_options_of_the_train_template_are_real():
    """The stand-in for torchrun takes anything; the real command must know these options."""
    from distill.cli.train import command

    known = {word for option in command.params for word in option.opts}
    lines = (CLUSTER / "train.sbatch").read_text().splitlines()
    used = {word.strip('"()') for line in lines if not line.startswith("#") for word in line.split()}
    assert {word for word in used if word.startswith("--")} - known == {"--standalone", "--nproc-per-node"}


@pytest.mark.parametrize("name", ["collect.sky.yaml", "collect.k8s.yaml"])
def test_a_yaml_template_collects_a_shard(tools, name):
    loaded = YAML(typ="safe").load((CLUSTER / name).read_text())
    if name == "collect.sky.yaml":
        script, variables = loaded["run"], {"SKYPILOT_JOB_RANK": "1", "SKYPILOT_NUM_JOBS": "2", **loaded["envs"]}
    else:
        spec = loaded["spec"]
        assert (loaded["kind"], spec["completionMode"]) == ("Job", "Indexed")
        (container,) = spec["template"]["spec"]["containers"]
        assert container["command"] == ["/bin/sh", "-c"]
        assert [one["mountPath"] for one in container["volumeMounts"]] == ["/data"]
        variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        assert variables["SHARDS"] == str(spec["completions"])
        (script,) = container["args"]
        variables |= {"JOB_COMPLETION_INDEX": "1", "SHARDS": "2"}
    prompts(tools, 12)
    with FaultyServer() as server:
        script = script.replace("/data/", f"{tools.parent}/").replace("http://127.0.0.1:8000/v1", server.url)
        job = start(script, tools, **{**variables, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none"})
        said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert 0 < len((tools.parent / "transcripts.shard-1.jsonl").read_text().splitlines()) < 12

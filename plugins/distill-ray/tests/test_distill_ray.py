"""The pool on a real Ray: every row once, whatever dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from distill_ray import Pool, RayOptions

import distill

PLUGIN = '''
import os, time
import distill, ray

class Slow:
    """Writes down who answers what, and takes its time."""
    batch_size = 4

    def __init__(self, folder):
        self.folder = folder

    def ask_batch(self, requests):
        node = ray.get_runtime_context().get_node_id()
        with open(f"{self.folder}/{os.getpid()}-{node}", "a") as file:
            file.write(f"{len(requests)}\\n")
        time.sleep(0.2)
        return [
            distill.TeacherError("no words") if "fail" in r.messages[-1].content
            else distill.Answer(distill.Message("assistant", r.messages[-1].content.upper()))
            for r in requests
        ]

def build(options, model, manager):
    if model == "broken":
        raise distill.UsageError("no such model", "look again")
    return Slow(model)

@distill.hookimpl
def register_teachers():
    return [distill.TeacherSpec("slow", "", build, loads_models=True), distill.TeacherSpec("server", "", build)]
'''


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for the tests that need no cluster of their own; a pool uses it and leaves it."""
    import ray

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def plugin(tmp_path) -> Path:
    """A file with two teachers: `slow` loads a model, `server` does not."""
    path = tmp_path / "slow.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def witnesses(tmp_path) -> Path:
    """A folder in which each actor's process has a file, with a line per batch."""
    folder = tmp_path / "pids"
    folder.mkdir()
    return folder


def requests(count: int) -> list[distill.Request]:
    return [distill.Request([distill.Message("user", f"question {n}")]) for n in range(count)]


def ask_all(pool: Pool, wanted: list[distill.Request]) -> list[str | Exception]:
    async def work():
        try:
            return await asyncio.gather(*map(pool.ask, wanted), return_exceptions=True)
        finally:
            await pool.close()

    return [one if isinstance(one, Exception) else one.message.content for one in asyncio.run(work())]


def manager_with(plugin: Path) -> distill.PluginManager:
    import distill_ray

    manager = distill.make_plugin_manager([plugin], environ={"DISTILL_PLUGINS": ""})
    from distill.plugins import PluginRecord

    manager.load(PluginRecord("ray", "builtin"), lambda: distill_ray)
    return manager


def test_two_replicas_share_the_work_and_keep_each_answer(local_ray, plugin, witnesses):
    pool = Pool(RayOptions(replicas=2), f"slow:{witnesses}", [str(plugin)])
    wanted = [*requests(24), distill.Request([distill.Message("user", "fail")])]
    *good, failed = ask_all(pool, wanted)
    assert good == [f"QUESTION {n}" for n in range(24)]
    assert isinstance(failed, distill.TeacherError) and failed.message == "no words"
    sizes = [list(map(int, path.read_text().split())) for path in witnesses.iterdir()]
    assert len(sizes) == 2 and min(map(len, sizes)) >= 2
    assert sum(map(sum, sizes)) == 25 and max(map(max, sizes)) == 4


def test_a_killed_actor_costs_its_batch_a_retry(local_ray, plugin, witnesses):
    pool = Pool(RayOptions(replicas=2), f"slow:{witnesses}", [str(plugin)])

    def kill():
        while not (started := list(witnesses.iterdir())):
            time.sleep(0.05)
        time.sleep(0.1)
        os.kill(int(started[0].name.partition("-")[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    answers = ask_all(pool, requests(32))
    killer.join()
    assert answers == [f"QUESTION {n}" for n in range(32)]
    asked = sum(sum(map(int, path.read_text().split())) for path in witnesses.iterdir())
    assert 32 < asked <= 36  # the batch that died, once more


def test_a_collection_through_the_pool(local_ray, plugin, witnesses, tmp_path, monkeypatch):
    """The collector stays the only writer, and a rerun asks nothing."""
    import distill_ray

    from distill.cli.main import main

    monkeypatch.setenv("DISTILL_PLUGINS", "")
    files = ["--plugin", str(plugin), "--plugin", distill_ray.__file__]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(8)))
    out = tmp_path / "out.jsonl"
    words = ["collect", str(prompts), "--teacher", f"ray:slow:{witnesses}", "--out", str(out)]
    assert main([*files, *words]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["messages"][-1]["content"] for row in rows) == sorted(f"QUESTION {n}" for n in range(8))
    assert {row["metadata"]["teacher"] for row in rows} == {f"ray:slow:{witnesses}"}
    asked = sum(len(path.read_text()) for path in witnesses.iterdir())
    assert main([*files, *words]) == 0
    assert sum(len(path.read_text()) for path in witnesses.iterdir()) == asked


@pytest.mark.parametrize(
    ("options", "model", "says"),
    [
        ({}, None, "needs a teacher"),
        ({}, "solw:m", "unknown teacher 'solw'"),
        ({}, "server:m", "loads no model"),
        ({"replicas": "0"}, "slow:m", "at least 1"),
        ({"batch_size": "8"}, "slow:m", "option of teacher 'slow': 'batch_size'"),
        ({"replicas": "1", "teacher_options": '{"x": 1}'}, "slow:m", "option of teacher 'slow': 'x'"),
    ],
)
def test_mistakes_before_anything_starts(plugin, options, model, says):
    with pytest.raises(distill.UsageError, match=says):
        distill.make_teacher(manager_with(plugin), f"ray:{model}" if model else "ray", options).build()


def test_mistakes_that_only_the_actors_see(local_ray, plugin):
    (error,) = ask_all(Pool(RayOptions(), "slow:broken", [str(plugin)]), requests(1))
    assert isinstance(error, distill.UsageError) and (error.message, error.hint) == ("no such model", "look again")
    (error,) = ask_all(Pool(RayOptions(replicas=2, num_gpus=1), "slow:x", [str(plugin)]), requests(1))
    assert isinstance(error, distill.UsageError) and "the pool needs 2 × 1 GPUs, and Ray has 0" in error.message


def test_options_of_the_teacher_belong_to_a_rows_id(plugin):
    from distill.collection.row_id import all_params

    options = RayOptions(replicas=4, batch_size=32, teacher_options={"max_tokens": 5})
    assert options.inner == {"batch_size": 32, "max_tokens": 5}
    assert all_params(distill.Params(), options) == {"teacher_options": {"max_tokens": 5}}


def test_a_lost_node_costs_its_batches_a_retry(plugin, witnesses, monkeypatch, caplog):
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        pool = Pool(RayOptions(replicas=2), f"slow:{witnesses}", [str(plugin)])

        def lose():
            while len(list(witnesses.iterdir())) < 2:
                time.sleep(0.05)
            used = {path.name.partition("-")[2] for path in witnesses.iterdir()}
            cluster.remove_node(next(node for node in nodes if node.node_id in used), allow_graceful=False)

        loser = threading.Thread(target=lose)
        loser.start()
        answers = ask_all(pool, requests(60))
        loser.join()
        assert answers == [f"QUESTION {n}" for n in range(60)]
        assert "an actor died" in caplog.text
    finally:
        ray.shutdown()
        cluster.shutdown()

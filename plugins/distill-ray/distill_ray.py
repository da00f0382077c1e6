"""A pool of Ray actors as a teacher for distill: `ray:TEACHER:MODEL`, one copy of a local teacher per actor."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import distill

_TRIES = 5
"""How often a batch is sent before its requests fail: only dead actors and lost nodes count."""

_GATHER = 0.02
"""Seconds that an actor waits for its batch to fill: the collector sends requests one at a time."""

log = logging.getLogger("distill")


@dataclass(frozen=True)
class RayOptions:
    """Options of a pool.

    Attributes:
        replicas: actors, each with a copy of the teacher.
        num_gpus: GPUs per actor; a fraction lets actors share one.
        num_cpus: CPU cores per actor.
        batch_size: requests that an actor answers at a time; default: the teacher's.
        teacher_options: further options of the teacher in the actors, as one JSON object; they count as parameters.
    """

    replicas: int = 1
    num_gpus: float = 0.0
    num_cpus: float = 1.0
    batch_size: int | None = None
    teacher_options: Mapping[str, Any] = field(default_factory=dict, metadata={"params": True})

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError("replicas must be at least 1")
        if self.num_gpus < 0 or self.num_cpus < 0:
            raise ValueError("num_gpus and num_cpus must not be negative")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError("batch_size must be at least 1")

    @property
    def inner(self) -> dict[str, Any]:
        """All options of the teacher in the actors."""
        size = {} if self.batch_size is None else {"batch_size": self.batch_size}
        return {**size, **self.teacher_options}


class Replica:
    """In an actor: builds the teacher with its first call, and answers batches.

    Args:
        name: the teacher, as `NAME:MODEL`.
        options: its options.
        files: the plugin files of the command that made the pool.
    """

    def __init__(self, name: str, options: Mapping[str, Any], files: Sequence[str]):
        self._words = (name, options, files)
        self._teacher: distill.BatchTeacher | None = None

    def batch_size(self) -> int:
        """How many requests the teacher takes at once."""
        return self._built().batch_size

    def ask_batch(self, requests: Sequence[distill.Request]) -> Sequence[distill.Answer | Exception]:
        """Answer the requests, in their order."""
        return self._built().ask_batch(requests)

    def _built(self) -> distill.BatchTeacher:
        """The teacher; not built in `__init__`, where Ray would turn its error into a text."""
        if self._teacher is None:
            name, options, files = self._words
            teacher = distill.make_teacher(distill.make_plugin_manager(files), name, options).build()
            if not isinstance(teacher, distill.BatchTeacher):
                raise distill.UsageError(f"teacher {name!r} does not answer batches; the pool is for local models")
            self._teacher = teacher
        return self._teacher


@dataclass
class _Waiting:
    """A request that is waiting for its answer."""

    request: distill.Request
    answer: asyncio.Future[distill.Answer | Exception]
    tries: int = 0

    @property
    def length(self) -> int:
        return sum(len(message.content or "") for message in self.request.messages)


class Pool:
    """Gives each free actor a batch of requests of similar length. The actors start with the first request.

    Args:
        options: how many actors, and what each needs.
        teacher: the teacher in the actors, as `NAME:MODEL`.
        files: plugin files that the actors load.
    """

    def __init__(self, options: RayOptions, teacher: str, files: Sequence[str] = ()):
        self._options, self._teacher, self._files = options, teacher, list(files)
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._actors: list[Any] = []
        self._ours = False
        self._starting: asyncio.Task[None] | None = None

    async def ask(self, request: distill.Request) -> distill.Answer:
        """Ask once; see `distill.Teacher`.

        Raises:
            TeacherError: no answer: the teacher's own error, or actors that kept dying.
        """
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)
        one = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._arrived.set()
        answer = await one.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """End the actors, and Ray where the pool has started it."""
        import ray

        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for actor in self._actors:
            ray.kill(actor)
        if self._ours:
            ray.shutdown()

    async def _start(self) -> None:
        import ray

        if not ray.is_initialized():
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
            if os.environ.get("RAY_ADDRESS"):  # a cluster: Ray reads the address itself, and has its own dashboard
                quiet.pop("include_dashboard")
            await asyncio.to_thread(ray.init, **quiet)
            self._ours = True
        self._check_resources(ray.cluster_resources())
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a node needs distill, but not this package
        # A dead actor is started again; its calls are not repeated by Ray: the pool sends them elsewhere.
        placed = ray.remote(Replica).options(
            num_gpus=self._options.num_gpus, num_cpus=self._options.num_cpus, max_restarts=-1, max_task_retries=0
        )
        words = (self._teacher, self._options.inner, self._files)
        self._actors = [placed.remote(*words) for _ in range(self._options.replicas)]
        try:
            sizes = await asyncio.gather(*(actor.batch_size.remote() for actor in self._actors))
        except ray.exceptions.RayError as error:
            raise _start_error(error) from None
        self._workers = [
            asyncio.create_task(self._work(actor, size)) for actor, size in zip(self._actors, sizes, strict=True)
        ]

    def _check_resources(self, has: Mapping[str, float]) -> None:
        """Refuse a pool that no cluster of this size can ever hold: its actors would be waited for without end."""
        for name, each in (("CPU", self._options.num_cpus), ("GPU", self._options.num_gpus)):
            if each * self._options.replicas > has.get(name, 0):
                wants = f"{self._options.replicas} × {each:g} {name}s"
                hint = f"set -T replicas=… and -T num_{name.lower()}s=…, or RAY_ADDRESS to a larger cluster"
                raise distill.UsageError(f"the pool needs {wants}, and Ray has {has.get(name, 0):g}", hint)

    async def _work(self, actor: Any, size: int) -> None:
        """Give one actor batch after batch."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            if len(self._waiting) < size:
                await asyncio.sleep(_GATHER)
            batch = self._take(size)
            if batch:
                await self._answer(actor, batch)

    def _take(self, size: int) -> list[_Waiting]:
        """The request that has waited longest, and those nearest to it in length: a batch is padded to its longest."""
        self._waiting = [one for one in self._waiting if not one.answer.done()]  # cancelled while it waited
        if not self._waiting:
            return []
        length = self._waiting[0].length
        nearest = sorted(self._waiting[1:], key=lambda one: abs(one.length - length))
        batch = [self._waiting[0], *nearest[: size - 1]]
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    async def _answer(self, actor: Any, batch: Sequence[_Waiting]) -> None:
        import ray

        try:
            answers = await actor.ask_batch.remote([one.request for one in batch])
        except (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError) as error:
            self._retry(batch, error)
            await self._until_alive(actor)  # meanwhile others take the batch
            return
        except ray.exceptions.RayTaskError as error:
            answers = [error.cause if isinstance(error.cause, Exception) else error] * len(batch)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            answers = [error] * len(batch)
        if len(answers) != len(batch):
            problem = f"{self._teacher} gave {len(answers)} answers to {len(batch)} requests"
            answers = [distill.PluginError(problem)] * len(batch)
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)

    async def _until_alive(self, actor: Any) -> None:
        """Wait until Ray has started the actor again, on another node if need be."""
        import ray

        while True:
            await asyncio.sleep(1)
            try:
                await actor.batch_size.remote()
                return
            except ray.exceptions.RayActorError:
                continue

    def _retry(self, batch: Sequence[_Waiting], error: Exception) -> None:
        log.warning("ray: an actor died with a batch of %d; the batch is sent again", len(batch))
        for one in batch:
            one.tries += 1
            if one.tries < _TRIES:
                self._waiting.insert(0, one)
            elif not one.answer.done():
                died = f"{_TRIES} actors died with this request: {type(error).__name__}"
                one.answer.set_result(distill.TeacherError(died, "does one copy of the model fit into memory?"))
        self._arrived.set()


def _start_error(error: Exception) -> Exception:
    """Why the actors cannot start: the teacher's own error where there is one."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, distill.DistillError):
        return cause
    text = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return distill.DistillError(f"ray: the actors cannot start: {text}", "try the teacher without `ray:` first")


def build(options: RayOptions, model: str | None, manager: distill.PluginManager) -> Pool:
    """Make the pool; nothing is started yet.

    Raises:
        UsageError: no teacher is named after `ray:`, or it runs no model.
    """
    if not model:
        raise distill.UsageError("teacher 'ray' needs a teacher", "write --teacher ray:transformers:PATH_OR_ID")
    distill.make_teacher(manager, model, options.inner)  # a mistake is found before Ray starts
    kind = model.partition(":")[0]
    if kind in manager.teachers and not manager.teachers.get(kind).loads_models:
        raise distill.UsageError(
            f"teacher {model!r} loads no model", "a server answers many requests by itself: raise --concurrency instead"
        )
    return Pool(options, model, [record.name for record in manager.records if record.origin == "file"])


@distill.hookimpl
def register_teachers() -> list[distill.TeacherSpec]:
    """Offer `ray`."""
    summary = "a pool of Ray actors, each with a local teacher: ray:TEACHER:MODEL"
    return [distill.TeacherSpec("ray", summary, build, RayOptions, loads_models=True)]

"""Rendering with a chat template, which is a program that somebody else wrote: it may fail in any way, or never end."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distill.errors import DataError, DistillError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SECONDS = 10.0
"""How long one rendering may compute; a usual one takes less than a millisecond."""
MEMORY = 2 << 30
"""How many bytes the process may grow by during one rendering."""
FREE, TIMES = 1_000_000, 20
"""The output of a rendering may have a million characters, and beyond that 20 times those of what is rendered."""

_TICK = 0.2
_IDLE = 50
_HINT = "use another one with -F template=FILE, or another student"


class TemplateOverrun(DistillError):
    """A chat template ran too long, or wrote too much: it may never end."""


class _Stop(BaseException):
    """Ends a rendering; not an Exception, so that nothing on the way takes it for an error of the template's own."""


def render_chat(
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    name: str | None = None,
) -> str:
    """Render messages with a chat template, within bounds of time, memory and output.

    Args:
        tokenizer: has the special tokens, and the template.
        rows: the messages as dictionaries.
        add_generation_prompt: whether the text ends where the assistant is to write.
        tools: tool definitions.
        template: another template than the tokenizer's.
        name: the template's, for errors; default: the tokenizer's.

    Raises:
        DataError: the template fails on these messages.
        TemplateOverrun: it ran longer than 10 seconds, took more than 2 GB, or wrote a text out of all proportion.
    """
    name = name or str(tokenizer.name_or_path or "the student")
    try:
        with _WATCHDOG.watching(name, template):
            # As a batch of one: alone, an empty conversation is refused before the template sees it.
            rendered: list[str] = tokenizer.apply_chat_template(
                [list(rows)],
                tools=list(tools) if tools else None,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
    except TemplateOverrun:
        raise
    except Exception as error:
        what = "the conversation" if rows else "a conversation that the assistant begins"
        raise DataError(f"the chat template refuses {what}: {str(error) or type(error).__name__}") from None
    text = rendered[0]
    if len(text) > FREE and len(text) > FREE + TIMES * len(str((rows, tools))):
        raise TemplateOverrun(f"the chat template of {name} makes a text of {len(text):,} characters", _HINT)
    return text


class _Rendering:
    """One that runs: when it began, by its thread's clock, and the process's memory when the watchdog first saw it."""

    def __init__(self, thread: int) -> None:
        # Its own computing time where the system tells: on a busy machine others make it wait.
        self.clock = (
            time.pthread_getcpuclockid(thread) if hasattr(time, "pthread_getcpuclockid") else time.CLOCK_MONOTONIC
        )
        self.began = time.clock_gettime(self.clock)
        self.memory: int | None = None
        self.fault: str | None = None  # set once it is being stopped


class _Watchdog:
    """One thread per process looks after the renderings of all others, and stops those that run too long.

    A rendering is stopped by an exception that is raised in its thread: Jinja's sandbox has no means against loops, a
    signal reaches the main thread only, and tracing each line would make every rendering slower.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, _Rendering] = {}
        self._is_awake = False

    @contextmanager
    def watching(self, name: str, template: str | None) -> Iterator[None]:
        """Bound the time and the memory of the block.

        Raises:
            TemplateOverrun: it was stopped.
        """
        thread = threading.get_ident()
        rendering = _Rendering(thread)
        try:
            with self._lock:
                self._running[thread] = rendering
                if not self._is_awake:
                    self._is_awake = True
                    threading.Thread(target=self._watch, daemon=True, name="distill-templates").start()
            try:
                yield
            finally:
                with self._lock:
                    self._running.pop(thread, None)
        except _Stop:
            pass
        if rendering.fault is not None:  # it may have ended just before it was stopped
            self._withdraw(thread)
            raise TemplateOverrun(f"the chat template of {name} {rendering.fault}: it may never end", _HINT)

    def _withdraw(self, thread: int) -> None:
        """Take back an exception that has not been raised yet."""
        with self._lock:
            self._running.pop(thread, None)
        with suppress(_Stop):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(_TICK)
            with self._lock:
                idle = 0 if self._running else idle + 1
                if idle > _IDLE:
                    self._is_awake = False
                    return
                for thread, rendering in self._running.items():
                    if rendering.fault is None and (fault := _fault_of(rendering)) is not None:
                        rendering.fault = fault
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Stop))


def _fault_of(rendering: _Rendering) -> str | None:
    """Why a rendering must be stopped; None as long as it may go on."""
    import psutil

    took = time.clock_gettime(rendering.clock) - rendering.began
    if took < _TICK:
        return None
    if took > SECONDS:
        return f"ran for more than {SECONDS:g} s"
    memory = psutil.Process().memory_info().rss
    rendering.memory = memory if rendering.memory is None else rendering.memory
    return f"took more than {MEMORY >> 30} GB of memory" if memory - rendering.memory > MEMORY else None


_WATCHDOG = _Watchdog()

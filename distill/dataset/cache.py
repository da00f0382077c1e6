"""Files of transcripts to labelled rows, for data of any size: on all cores, memory-mapped, and done once.

What was prepared is kept in the cache under a name that is a hash of all it depends on: the data, the tokenizer, the
chat format, the labeler, their options, and the code. A changed setting is another name, so that nothing stale is
ever read; `--max-length` and `--overlong` are applied afterwards, and cost nothing to change.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from importlib import metadata
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.dataset.findings import Findings
from distill.dataset.pipeline import Work
from distill.dataset.prepare import CHUNK, Chunk, Overlong, Prepared, Skipped, fit, prepare_chunk
from distill.dataset.table import Examples, to_batch
from distill.errors import DataError, DistillError
from distill.files.atomic import sha256_of, whole_folder
from distill.files.jsonl import dumps
from distill.models.load import cache_dir
from distill.transcripts.dialects import find_dialect, open_rows, parse_row
from distill.transcripts.turns import choose_turns
from distill.types import Source

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("distill")

SMALL = 2000  # as many rows are prepared faster than a cache or a second process is worth
_KEPT = 8  # prepared data sets in the cache
_PACKAGES = ("transformers", "tokenizers", "jinja2", "pyarrow")

Row = tuple[str, int, dict[str, Any]]
"""A file's name, a line's number, and the JSON object there."""


def prepare_files(
    paths: Sequence[Path], work: Work, *, max_length: int | None = None, overlong: Overlong = "error"
) -> Prepared:
    """Prepare files of transcripts.

    Args:
        paths: read in this order.
        work: how.
        max_length, overlong: see `distill.dataset.prepare.prepare`.

    Raises:
        DataError: a file is empty or unreadable, or a row is no transcript; says file and line.
        DistillError: rows are too long, or a process died.
        PluginError: the formatter or the labeler broke its contract.
    """
    rows = chain.from_iterable(map(_rows, paths))
    first = list(islice(rows, SMALL))
    if len(first) < SMALL:
        made = _in_memory(first, work)
    else:
        folder = cache_dir() / "prepared" / _name(paths, work)
        if not folder.is_dir():
            _write(folder, chain(first, rows), work)
            _prune(folder.parent)
        os.utime(folder)
        made = _open(folder)
    fit(made, max_length, overlong)
    return made


def _rows(path: Path) -> Iterator[Row]:
    empty = True
    for source, row in open_rows(path):
        empty = False
        yield source.file, source.line, row
    if empty:
        raise DataError(f"{path} is empty", "give a file of transcripts; `distill collect` makes one")


def _in_memory(rows: Sequence[Row], work: Work) -> Prepared:
    whole = Chunk(0)
    for start in range(0, len(rows), CHUNK):
        whole.add(_prepare(rows[start : start + CHUNK], work))
    return Prepared.of(whole)


def _prepare(rows: Sequence[Row], work: Work) -> Chunk:
    named = find_dialect(work.data_format) if work.data_format else None
    transcripts = [parse_row(row, Source(file, line), named)[0] for file, line, row in rows]
    kept = [one for one in transcripts if work.split is None or not work.split.holds_out(one)]
    chunk = prepare_chunk(list(choose_turns(kept, work.turns)), work.encoder, work.labeler, work.labeler_name)
    chunk.held_out = len(transcripts) - len(kept)
    chunk.rows += chunk.held_out
    return chunk


def _write(folder: Path, rows: Iterator[Row], work: Work) -> None:
    """Prepare rows into a folder of the cache: Arrow batches, and a page with all that is to be said of them."""
    import pyarrow as pa
    from tqdm import tqdm

    whole = Chunk(0)
    with whole_folder(folder) as made, tqdm(desc="preparing", unit="row", disable=None) as bar:
        with pa.OSFile(str(made / "examples.arrow"), "wb") as file, _stream(file) as stream:
            for batch, chunk in _on_all_cores(rows, work):
                stream.write_batch(batch)
                whole.add(chunk)
                bar.update(chunk.rows)
        report = {
            "rows": whole.rows,
            "held_out": whole.held_out,
            "split": whole.split,
            "skipped": [asdict(row) for row in whole.skipped],
            "findings": asdict(whole.findings),
        }
        (made / "report.json").write_text(dumps(report), encoding="utf-8")


@contextmanager
def _stream(file: Any) -> Iterator[Any]:
    import pyarrow as pa

    with pa.ipc.new_stream(file, to_batch([]).schema) as stream:
        yield stream


def _open(folder: Path) -> Prepared:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    found = report["findings"]
    rows = {code: [(where, detail) for where, detail in named] for code, named in found["rows"].items()}
    return Prepared(
        Examples.open(folder / "examples.arrow"),
        [Skipped(**row) for row in report["skipped"]],
        report["rows"],
        report["split"],
        Findings(found["counts"], rows),
        held_out=report["held_out"],
    )


def _on_all_cores(rows: Iterator[Row], work: Work) -> Iterator[tuple[pa.RecordBatch, Chunk]]:
    """Prepare rows chunk by chunk, in order. Processes are forked: plugins' objects need not be picklable."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    chunks = iter(lambda: list(islice(rows, CHUNK)), [])
    if cores == 1 or "fork" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        for chunk in chunks:
            yield _packed(_prepare(chunk, work))
        return
    gc.freeze()  # what stands is looked through by no collection now, and stays shared with the processes
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(cores, mp_context=context, initializer=_enter, initargs=(work, os.getpid()))
    waiting = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_prepare_here, chunk))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DistillError("a process that prepared rows died", "was it killed for want of memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)
        gc.unfreeze()


def _packed(chunk: Chunk) -> tuple[pa.RecordBatch, Chunk]:
    """The examples as Arrow, which is sent and written as it is."""
    batch = to_batch(chunk.examples)
    chunk.examples = []
    return batch, chunk


_work: Work  # of this process, where it is one of the pool's


def _enter(work: Work, parent: int) -> None:
    """Set a process of the pool up."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not survive a fork, and every core has its process
    gc.disable()  # a third of the time, in which nothing is found: chunks are freed by their counts
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Do not outlive a parent that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _prepare_here(rows: Sequence[Row]) -> tuple[pa.RecordBatch, Chunk]:
    return _packed(_prepare(rows, _work))


def _name(paths: Sequence[Path], work: Work) -> str:
    """The hash of all that prepared rows depend on."""
    tokenizer = work.encoder.tokenizer
    template = tokenizer.chat_template or ""
    parts = {
        # What is no file (a pipe) can be read only once, and is never found again.
        "data": [(str(path), sha256_of(path) if path.is_file() else os.urandom(16).hex()) for path in paths],
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": template,
        "date": str(date.today()) if "strftime_now" in template else None,
        "settings": [work.settings, work.turns, work.data_format],
        "held out": work.split and [work.split.text, work.split.seed],
        "code": [_code_of(thing) for thing in (prepare_files, work.encoder.formatter, work.labeler)],
        "versions": [metadata.version(name) for name in _PACKAGES],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def _code_of(thing: Any) -> str:
    """A hash of the source of the package, or the file, that something comes from."""
    module = sys.modules.get(getattr(thing, "__module__", ""))
    top = sys.modules.get(module.__name__.partition(".")[0]) if module else None
    source = Path(getattr(top, "__file__", None) or getattr(module, "__file__", None) or os.devnull)
    files = sorted(source.parent.rglob("*.py")) if source.name == "__init__.py" else [source]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _prune(cache: Path) -> None:
    """Forget the data sets that were not used for longest."""
    folders = [folder for folder in cache.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)

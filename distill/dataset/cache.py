"""Data of any size to labelled rows: on all cores, memory-mapped, and prepared only once.

Prepared data are cached under a name that is a hash of everything they depend on: the data, the tokenizer, the chat
format, the labeler, their options, and the code. A changed setting gives another name, so that nothing stale is ever
read. `--max-length` and `--overlong` are applied afterwards: changing them costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.dataset.conversations import describe
from distill.dataset.findings import Findings
from distill.dataset.parallel import map_chunks
from distill.dataset.pipeline import Pipeline, fixed_limit
from distill.dataset.prepare import CHUNK, Chunk, Prepared, Skipped, fit, prepare_chunk
from distill.dataset.settings import Overlong
from distill.dataset.table import Examples, read_stream, to_batch
from distill.errors import DataError, RefusedRow
from distill.files.atomic import whole_folder
from distill.files.jsonl import dumps
from distill.models.references import cache_dir
from distill.soft_labels.targets import SoftShares
from distill.transcripts.reader import Reader, ReadRow
from distill.transcripts.sources import Data, DataSource, as_sources
from distill.transcripts.turns import choose_turns
from distill.types import Source

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 2000  # fewer rows are prepared faster than a cache or a second process is worth
_KEPT = 8  # prepared data sets in the cache
_PACKAGES = ("transformers", "tokenizers", "jinja2", "pyarrow")

Row = tuple[Source, dict[str, Any]]


class _Part(NamedTuple):
    """A chunk with its examples and conversations in Arrow, which is sent and written as it is."""

    chunk: Chunk
    examples: pa.RecordBatch
    conversations: pa.RecordBatch


def prepare_data(
    data: Data, pipeline: Pipeline, *, max_length: int | None = None, overlong: Overlong = "error"
) -> Prepared:
    """Prepare transcripts for training.

    Args:
        data: see `distill.transcripts.sources`; several sources are read in their order, each once.
        pipeline: how.
        max_length, overlong: see `distill.dataset.prepare.prepare`.

    Raises:
        DataError: a source is empty or unreadable, or a row is no transcript; names file and line.
        DistillError: rows are too long, or a process died.
        PluginError: the formatter or the labeler broke its contract.
    """
    sources = as_sources(data)
    rows = _rows(sources, pipeline.reader)
    first = list(islice(rows, SMALL))
    if len(first) < SMALL:
        made = _in_memory(first, pipeline)
    else:
        folder = cache_dir() / "prepared" / _name(sources, pipeline)
        if not folder.is_dir():
            _write(folder, first, rows, pipeline)
            _prune(folder.parent)
        os.utime(folder)
        made = _open(folder)
    fit(made, max_length, overlong, lambda: fixed_limit(pipeline.ref))
    return made


def _rows(sources: Iterable[DataSource], reader: Reader) -> Iterator[Row]:
    for source in sources:
        empty = True
        for row in reader.rows(source):
            empty = False
            yield row
        if empty:
            raise DataError(f"{source} is empty", "give transcripts; `distill collect` makes them")


def _in_memory(rows: Sequence[Row], pipeline: Pipeline) -> Prepared:
    import pyarrow as pa

    parts = [_prepare(pipeline, rows[start : start + CHUNK]) for start in range(0, max(1, len(rows)), CHUNK)]
    whole = Chunk(0)
    for part in parts:
        whole.add(part.chunk)
    examples = pa.Table.from_batches([part.examples for part in parts])
    return Prepared.of(whole, Examples(examples), pa.Table.from_batches([part.conversations for part in parts]))


def _prepare(pipeline: Pipeline, rows: Sequence[Row]) -> _Part:
    """Read, look at, render, encode, label and verify a chunk of rows."""
    read, refused = _read(pipeline.reader, rows)
    transcripts = [row.transcript for row in read]
    kept = transcripts
    if pipeline.hold_out is not None:
        kept = [one for one in transcripts if not pipeline.hold_out.holds_out(one)]
    chunk = prepare_chunk(
        list(choose_turns(kept, pipeline.turns)),
        pipeline.encoder,
        pipeline.labeler,
        pipeline.labeler_name,
        pipeline.soft,
        pipeline.max_characters,
    )
    chunk.held_out = len(transcripts) - len(kept)
    chunk.rows += chunk.held_out + len(refused)
    chunk.skipped += refused
    conversations = describe(transcripts, chunk.data_findings)
    for row in read:
        if not row.is_intact:
            chunk.data_findings.add("edited-row", row.transcript.source)
        for column in row.unknown:
            chunk.data_findings.add("unknown-column", row.transcript.source, f"`{column}`")
    examples = to_batch(chunk.examples)
    chunk.examples, chunk.encoded = [], []  # nothing but Arrow is sent between processes
    return _Part(chunk, examples, conversations)


def _read(reader: Reader, rows: Sequence[Row]) -> tuple[list[ReadRow], list[Skipped]]:
    """The rows that are conversations to learn from, and those that are refused."""
    read: list[ReadRow] = []
    refused: list[Skipped] = []
    for source, row in rows:
        try:
            read.append(reader.read(row, source))
        except RefusedRow as error:
            refused.append(Skipped(str(row.get("id") or source), str(source), error.reason, "refused-row"))
    return read, refused


def _write(folder: Path, first: Sequence[Row], rest: Iterator[Row], pipeline: Pipeline) -> None:
    """Prepare rows into a folder of the cache: two Arrow files, and a report with everything else."""
    from tqdm import tqdm

    whole = Chunk(0)
    with whole_folder(folder, replaceable=True) as made, tqdm(desc="preparing", unit="row", disable=None) as bar:
        with (
            _stream(made / "examples.arrow", to_batch([])) as examples,
            _stream(made / "conversations.arrow", describe([], Findings())) as conversations,
        ):
            for part in map_chunks(partial(_prepare, pipeline), _chunks(first, rest)):
                examples.write_batch(part.examples)
                conversations.write_batch(part.conversations)
                whole.add(part.chunk)
                bar.update(part.chunk.rows)
        report = {
            "rows": whole.rows,
            "held_out": whole.held_out,
            "expanded_rows": whole.expanded_rows,
            "skipped": [asdict(row) for row in whole.skipped],
            "findings": asdict(whole.findings),
            "data_findings": asdict(whole.data_findings),
            "shares": asdict(whole.shares),
        }
        (made / "report.json").write_text(dumps(report), encoding="utf-8")


def _chunks(first: Sequence[Row], rest: Iterator[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(first), CHUNK):
        yield first[start : start + CHUNK]
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


@contextmanager
def _stream(path: Path, like: pa.RecordBatch) -> Iterator[Any]:
    """An Arrow stream to write, of batches like this one."""
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, like.schema) as stream:
        yield stream


def _open(folder: Path) -> Prepared:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    whole = Chunk(
        rows=report["rows"],
        skipped=[Skipped(**row) for row in report["skipped"]],
        expanded_rows=report["expanded_rows"],
        findings=Findings.of(report["findings"]),
        data_findings=Findings.of(report["data_findings"]),
        held_out=report["held_out"],
        shares=SoftShares(**report["shares"]),
    )
    return Prepared.of(whole, Examples.open(folder / "examples.arrow"), read_stream(folder / "conversations.arrow"))


def _name(sources: Sequence[DataSource], pipeline: Pipeline) -> str:
    """The hash of everything that prepared rows depend on."""
    tokenizer = pipeline.encoder.tokenizer
    template = json.dumps(tokenizer.chat_template) if tokenizer.chat_template else ""
    hold_out, reader = pipeline.hold_out, pipeline.reader
    plugins = [dialect.read for dialect in reader.dialects if not dialect.read.__module__.startswith("distill.")]
    parts = {
        "data": [(source.name, source.digest()) for source in sources],
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": template,
        "date": str(date.today()) if "strftime_now" in template else None,
        "settings": [
            pipeline.settings,
            pipeline.turns,
            pipeline.max_characters,
            reader.named and reader.named.name,
            *reader.options,
        ],
        "soft labels": pipeline.soft is not None,
        "held out": None if hold_out is None else [hold_out.text, hold_out.seed],
        "code": [_code_of(thing) for thing in (prepare_data, pipeline.encoder.formatter, pipeline.labeler, *plugins)],
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
    """Remove the data sets that have not been used for longest."""
    used: list[tuple[float, Path]] = []
    for folder in cache.iterdir():
        with suppress(FileNotFoundError):  # another process removes them too
            if folder.is_dir() and not folder.name.startswith("."):
                used.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(used)[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)

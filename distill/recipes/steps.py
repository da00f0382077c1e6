"""The steps of a recipe: what each depends on, what it makes, and how. They call what the commands call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DataError, DistillError
from distill.files.atomic import sha256_of, whole_file
from distill.pages.environment import counted
from distill.plugins import PluginManager
from distill.recipes.restore import gather, store_of
from distill.recipes.state import Record, Wanted
from distill.recipes.validate import ReadyRecipe
from distill.runs.folder import RunFolder
from distill.runs.layout import RunPaths
from distill.types import Params

if TYPE_CHECKING:
    from distill.comparison import Comparison, Comparisons
    from distill.comparison.settings import CompareSettings
    from distill.dataset.check import CheckReport

Note = Callable[[str], None]
Log = Callable[[Mapping[str, float]], None]

_VERSIONS = ("distill-chat", "transformers", "tokenizers")

_TOKENIZER = ("*.json", "*.jinja", "*.model", "*.txt")
"""A model folder's files that decide how text becomes tokens."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told what goes on.

    Attributes:
        note: told a line at a time.
        on_log: told of each training step.
        progress: whether a collection shows its live line.
        on_compare: told how far a comparison is; None: nobody.
    """

    note: Note = lambda text: None
    on_log: Log = lambda row: None
    progress: bool = False
    on_compare: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step, its inputs being known.

    Attributes:
        wanted: its name, its inputs, and the name of what it makes.
        do: does it; told the path of what it makes, gives its result.
        plan: what it would do, in lines, for a dry run.
        intact: whether what it has made is still as it was.
    """

    wanted: Wanted
    do: Callable[[Path], Mapping[str, Any]]
    plan: Callable[[], list[str]]
    intact: Callable[[Record], bool] = field(default=lambda record: True)


def collect_step(ready: ReadyRecipe, watch: Watch) -> Step:
    """Ask the teacher all prompts; makes the file of transcripts."""
    recipe, plan = ready.recipe, ready.plan
    inputs = {
        "prompts": f"sha256:{sha256_of(ready.prompts)}",
        "teacher": plan.teacher.name,
        **{f"{name} of the teacher": value for name, value in plan.sent.items()},
        "system": plan.settings.system,
        "samples": plan.settings.samples,
        "limit": plan.settings.limit,
    }

    def do(target: Path) -> dict[str, Any]:
        from distill.collection import collect

        store = store_of(ready.out, ready.store)
        summary = collect(ready.prompts, store, plan.settings, ready.manager, progress=watch.progress)
        cost = "" if summary.usd is None else f", ${summary.usd:.4f}"
        watch.note(f"  {counted(summary.rows, 'answer')} written, {summary.cached} there already{cost}")
        if summary.cut:
            watch.note(f"  {summary.cut} answers were cut short by the token limit (finish_reason is `length`)")
        _refuse_gaps(summary, recipe.collect.max_failed, store)
        rows = gather(plan, ready.prompts, store, target)
        return {
            "rows": rows,
            "failed": summary.failed,
            "usd": summary.usd,
            "sha256": sha256_of(target),
        }

    def lines() -> list[str]:
        from distill.collection import estimate

        store = ready.store or ready.out / "answers.jsonl"
        found = estimate(ready.prompts, store, plan.settings, ready.manager)
        cost = "no price is known" if found.usd is None else f"about ${found.usd:.4f}"
        most = "" if found.usd_at_most is None else f", at most ${found.usd_at_most:.4f} if nothing is asked twice"
        return [
            f"{counted(found.requests, 'request')} for {counted(found.rows, 'row')} ({found.cached} there already)",
            f"about {found.tokens_in:,} tokens in, about {found.tokens_out:,} out ({found.basis}); {cost}{most}",
        ]

    def intact(record: Record) -> bool:
        path, failed = ready.out / str(record.made), record.result["failed"]
        may_fail = recipe.collect.max_failed * (record.result["rows"] + failed)
        return path.is_file() and sha256_of(path) == record.result["sha256"] and failed <= may_fail

    return Step(Wanted("collect", inputs, "transcripts.jsonl"), do, lines, intact)


def _refuse_gaps(summary: Any, may_fail: float, store: Path) -> None:
    """Stop where answers are missing: a student of half the answers is not the one that was asked for."""
    if summary.left:
        raise DistillError(
            f"collect: {summary.left} rows are left: {summary.stopped}",
            "the same command goes on from there; `max-usd` is what each start of it may cost",
        )
    asked = summary.rows + summary.cached + summary.failed
    if summary.failed > may_fail * asked:
        reason, count = next(iter(summary.reasons.items()))
        share = -(-100 * summary.failed // asked)
        raise DistillError(
            f"collect: {summary.failed} of {asked} rows failed, {count} of them so: {reason}",
            f"the same command tries them again (they are in {store}.failed.jsonl); to go on without them: "
            f"`collect: {{max-failed: {share}%}}`",
        )


def check_step(ready: ReadyRecipe, watch: Watch, transcripts: Path) -> Step:
    """Prove the labels of the transcripts; makes nothing."""
    recipe, pipeline = ready.recipe, ready.pipeline
    allow = {*recipe.check.allow, *(["overlong"] if ready.training.overlong != "error" else [])}  # else `train` cuts
    inputs = {
        "transcripts": f"sha256:{sha256_of(transcripts)}",
        "student": _digest(pipeline.ref, *_TOKENIZER),
        **{name: list(value) for name, value in pipeline.settings.items()},
        "turns": pipeline.turns,
        "from": [pipeline.reader.named and pipeline.reader.named.name, *pipeline.reader.options],
        "max-length": ready.max_length,
        "allow": sorted(allow),
        "against": [f"sha256:{sha256_of(path)}" for path in ready.against],
        **_code(ready.manager, {"formatter": ready.training.formatter, "labeler": ready.training.labeler}),
        **{name: metadata.version(name) for name in _VERSIONS},
    }

    def do(_: Path) -> dict[str, Any]:
        from distill.dataset.check import check

        report = check([transcripts], pipeline, max_length=ready.max_length, against=ready.against)
        for finding in report.findings:
            if finding.severity != "note":
                watch.note(f"  {finding.severity}: {finding}")
        _refuse_findings(report, {*allow, *pipeline.allows})
        return {
            "rows": report.rows,
            "trained_rows": report.trained_rows,
            "trained_tokens": report.trained_tokens,
            "findings": [finding.as_dict() for finding in report.findings],
        }

    return Step(Wanted("check", inputs), do, lambda: [f"the label check over {transcripts}"])


def _refuse_findings(report: CheckReport, allowed: set[str]) -> None:
    from distill.dataset.findings import CODES

    errors = report.findings.errors(allowed)
    if errors:
        first = errors[0]
        more = f"; {len(errors) - 1} more kinds of error" if len(errors) > 1 else ""
        raise DataError(
            f"check: {first}{more}", f"{CODES[first.code].hint}; or accept it: `check: {{allow: [{first.code}]}}`"
        )


def train_step(ready: ReadyRecipe, watch: Watch, transcripts: Path) -> Step:
    """Train the student; makes the run folder."""
    from distill.training import train
    from distill.training.identity import identity, usual_settings

    names = {kind: getattr(ready.training, kind) for kind in ("formatter", "labeler", "trainer")}
    inputs = {
        **identity(ready.settings(transcripts, ready.out / "run"), ready.manager, ready.pipeline.ref),
        **_code(ready.manager, names),
    }

    def note(text: str) -> None:
        if not text.startswith(("warning: ", "error: ")):  # of the label check: `check` has told them
            watch.note(f"  {text.replace(' with --resume', '')}")

    def do(run: Path) -> dict[str, Any]:
        settings = ready.settings(transcripts, run)
        report = train(
            settings, ready.manager, resume=run.exists(), on_log=watch.on_log, note=note, origins=ready.origins
        )
        write_recipe(ready, run, inputs)
        return asdict(report)

    def lines() -> list[str]:
        report = train(ready.settings(transcripts, ready.out / "run"), ready.manager, dry_run=True, note=watch.note)
        found = [report.counts]
        if report.estimate is not None:
            memory, disk = report.estimate.peak_memory / 1e9, report.estimate.peak_disk / 1e9
            found.append(f"about {memory:.1f} GB of memory at its peak, up to {disk:.1f} GB of disk")
        return found

    def intact(record: Record) -> bool:
        run = RunPaths(ready.out / str(record.made))
        return (run.model / "config.json").is_file() and run.resolved_recipe.is_file()

    return Step(Wanted("train", inputs, ready.variant.stem, usual_settings()), do, lines, intact)


def compare_step(readies: Sequence[ReadyRecipe], settings: CompareSettings, watch: Watch, runs: Sequence[Path]) -> Step:
    """Compare each student with its base; makes the file of figures and answers, and a page of it beside.

    Args:
        readies: the recipe of each student.
        settings: how.
        watch: told how far it is.
        runs: their run folders.
    """
    held_out = readies[0].held_out or (RunPaths(runs[0]).held_out,)
    if gone := next((path for path in held_out if not path.is_file()), None):
        raise DistillError(f"{gone} is gone", f"put it back, or remove {runs[0]} to train again")

    def note(text: str) -> None:
        watch.note(f"  {text}")

    def do(target: Path) -> dict[str, Any]:
        from distill.comparison import compare, compare_runs
        from distill.comparison.page import comparison_page
        from distill.comparison.students_page import students_page
        from distill.pages import write_page

        manager, page = readies[0].manager, target.with_suffix(".html")
        found: Comparison | Comparisons
        if len(runs) == 1:
            found = one = compare(runs[0], held_out, manager, settings, note=note, on_progress=watch.on_compare)
            write_page(page, comparison_page(one, runs[0]))
            compared: Sequence[Comparison] = [one]
        else:
            found = several = compare_runs(runs, held_out, manager, settings, note=note, on_progress=watch.on_compare)
            write_page(page, students_page(several))
            compared = several.comparisons
        with whole_file(target) as file:
            file.write(found.to_json(indent=1) + "\n")
        return _compared(compared)

    def intact(record: Record) -> bool:
        return (readies[0].out / str(record.made)).is_file()

    names = ", ".join(map(str, runs))
    plan = f"{names} and its base" if len(runs) == 1 else f"{names}: each with its base, and with the first"
    wanted = Wanted("compare", _compare_inputs(readies, settings, runs, held_out), "comparison.json")
    return Step(wanted, do, lambda: [plan], intact)


def _compare_inputs(
    readies: Sequence[ReadyRecipe], settings: CompareSettings, runs: Sequence[Path], held_out: Sequence[Path]
) -> dict[str, Any]:
    """All that a comparison depends on; of several students, lists of them."""
    from distill.collection.row_id import all_params
    from distill.models.references import resolve_model
    from distill.training.identity import versions

    given = settings.base and resolve_model(settings.base, readies[0].manager, settings.trust_remote_code)
    students = [_digest(str(RunPaths(run).model)) for run in runs]
    bases = [_digest(given or ready.pipeline.ref) for ready in readies]
    asked = {"teacher": settings.named_teacher, "judge": settings.named_judge}
    return {
        "student": students[0] if len(runs) == 1 else students,
        "base": bases[0] if len(runs) == 1 else bases,
        "data": [f"sha256:{sha256_of(path)}" for path in held_out],
        "from": [settings.data_format, settings.split_thinking, settings.ignore_columns],
        "limit": settings.limit,
        "max-tokens": settings.max_tokens,
        "batch-size": settings.batch_size,
        "seed": settings.seed,
        **({"prompted-base": True} if settings.prompted_base else {}),
        **{who: [one.name, all_params(Params(), one.options)] for who, one in asked.items() if one is not None},
        **{f"version of {name}": version for name, version in versions().items() if name != "python"},
    }


def _compared(found: Sequence[Comparison]) -> dict[str, Any]:
    """What the state keeps of a comparison: its verdict, or of several students, each one's, with its metrics."""
    if len(found) == 1:
        return {"verdict": found[0].verdict, "reasons": list(found[0].reasons), "warnings": list(found[0].warnings)}
    students = []
    for one in found:
        metrics = one.metrics_of("student")
        students.append({"run": one.run, "verdict": one.verdict, "warnings": list(one.warnings), "metrics": metrics})
    return {"students": students}


def write_recipe(ready: ReadyRecipe, run: Path, inputs: Mapping[str, Any]) -> None:
    """Put the recipe, and what it came to, into the run folder."""
    resolved = {
        "recipe": str(ready.loaded.path),
        "settings": ready.recipe.model_dump(mode="json", by_alias=True),
        "inputs": dict(inputs),
    }
    RunFolder(run).write_recipe(ready.loaded.text, resolved)


def _digest(ref: str, *files: str) -> str:
    """What stands for a model: a hash of its weights, or of these files of its folder; or its name on the hub."""
    from distill.training.identity import digest_of_model

    digest = digest_of_model(ref, files) if files else digest_of_model(ref)
    return ref if digest is None else f"sha256:{digest}"


def _code(manager: PluginManager, names: Mapping[str, str]) -> dict[str, str]:
    """What stands for the code of the plugins that are named; distill's own go by its version."""
    found = {}
    for kind, name in names.items():
        record = manager.registries[kind].owner(name)
        source = getattr(manager.pm.get_plugin(record.name), "__file__", None) or os.devnull
        if record.origin != "builtin":
            found[f"code of {kind} {name}"] = f"sha256:{sha256_of(Path(source))}"
    return found

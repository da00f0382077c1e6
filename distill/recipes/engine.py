"""Run a recipe: step after step, each only where what it depends on has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from distill.files.lock import owned
from distill.plugins import PluginManager
from distill.recipes.state import Record, State
from distill.recipes.steps import Step, Watch, check_step, collect_step, compare_step, train_step
from distill.recipes.validate import ReadyRecipe, make_ready


@dataclass(frozen=True, slots=True)
class StepReport:
    """What became of a step.

    Attributes:
        step: its name.
        state: `done` now, `unchanged` (done before), or in a dry run `would run`.
        why: why it ran, or would; None where nothing has changed.
        made: what it made; None: nothing but its result.
        plan: what it would do, in a dry run.
        result: counts and figures.
        seconds: how long it took.
        student: which one it is for, where the recipe makes several: `learning-rate=0.0001`.
    """

    step: str
    state: str
    why: str | None
    made: str | None = None
    plan: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None
    seconds: float = 0.0
    student: str | None = None


@dataclass(frozen=True, slots=True)
class RecipeReport:
    """What became of a recipe.

    Attributes:
        recipe, out: the file, and the folder it works in.
        run: the run folder with the student, of several the first one's; None in a dry run before there is one.
        steps: in their order.
        failed_requirement: what the student had to be (`require: better`) and is not; None: all is well.
    """

    recipe: str
    out: str
    run: str | None
    steps: tuple[StepReport, ...]
    failed_requirement: str | None = None

    def _repr_html_(self) -> str:
        """A table of the steps: what became of each, and why."""
        names = [" ".join(filter(None, (step.step, step.student))) for step in self.steps]
        texts = [(step.state, step.why or "", step.made or "") for step in self.steps]
        rows = [(name, *text) for name, text in zip(names, texts, strict=True)]
        lines = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
        return f"<table><tr><th>step<th>state<th>why<th>made</tr>{lines}</table>"

    @property
    def runs(self) -> list[str]:
        """The run folders, of a recipe with lists one per student, as far as they are made."""
        made = [one.made for one in self.steps if one.step == "train" and one.state != "would run"]
        return [run for run in made if run is not None]

    @property
    def students(self) -> int:
        """How many students the recipe makes."""
        return sum(one.step == "train" for one in self.steps)

    @property
    def page(self) -> Path | None:
        """The comparison as a web page; None where nothing was compared."""
        made = next((one.made for one in self.steps if one.step == "compare"), None)
        return None if made is None else Path(made).with_suffix(".html")

    def result(self, step: str) -> Mapping[str, Any]:
        """What a step counted, of several students' the first one's; empty where it did not run."""
        return next((one.result or {} for one in self.steps if one.step == step), {})


def run_recipe(
    path: str | Path,
    manager: PluginManager,
    *,
    dry_run: bool = False,
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> RecipeReport:
    """Do what a recipe says, as far as it is not done.

    A list where `train` takes one value makes a student per value, each in a run folder of its own; they are compared
    together.

    Everything that can be checked is checked before the first step. What a step has made with other inputs is never
    overwritten: it makes `run-2`, `run-3`, … Killed at any moment, the same call goes on.

    Args:
        path: the recipe.
        manager: the plugins.
        dry_run: only say what would be done, and why.
        watch: told what goes on.

    Raises:
        DistillError: the recipe is wrong, or a step failed; what is done stays done.
    """
    students = make_ready(path, manager)
    out, recipe = students[0].out, students[0].loaded.path
    if dry_run:
        return _report(students, tuple(_plan(students, State(out, recipe), watch)))
    State(out, recipe)  # refuses what is no recipe's folder, before anything is written there
    with owned(out):
        out.mkdir(exist_ok=True)
        return _report(students, tuple(_do(students, State(out, recipe), watch)))


@dataclass(frozen=True, slots=True)
class _Link:
    """A step in its place.

    Attributes:
        name: of the step.
        student: which of several it is for.
        after: the places of the steps whose outcome it needs.
        make: how the step is made of what those before it have made.
    """

    name: str
    student: str | None
    after: Sequence[int]
    make: Callable[[Sequence[Path]], Step]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} {self.student}" if self.student else self.name


def _links(students: Sequence[ReadyRecipe], watch: Watch) -> list[_Link]:
    """The steps of a recipe, in their order."""
    links = [_Link("collect", None, (), lambda made: collect_step(students[0], watch))]
    trained = []
    for ready in students:
        links.append(_Link("check", ready.variant.label, (0,), partial(_check, ready, watch)))
        trained.append(len(links))
        links.append(_Link("train", ready.variant.label, (0,), partial(_train, ready, watch)))
    settings = students[0].compare
    if settings is not None:
        links.append(_Link("compare", None, trained, lambda runs: compare_step(students, settings, watch, runs)))
    return links


def _check(ready: ReadyRecipe, watch: Watch, made: Sequence[Path]) -> Step:
    return check_step(ready, watch, made[0])


def _train(ready: ReadyRecipe, watch: Watch, made: Sequence[Path]) -> Step:
    return train_step(ready, watch, made[0])


def _do(students: Sequence[ReadyRecipe], state: State, watch: Watch) -> Iterator[StepReport]:
    made: list[Path] = []
    for link in _links(students, watch):
        step, began = link.make([made[place] for place in link.after]), time.monotonic()
        why = state.why(step.wanted, step.intact)
        record = state.begin(step.wanted)
        path = state.folder / str(record.made)
        where = f" → {path}" if record.made else ""
        watch.note(f"{link.title}: {why or 'nothing has changed'}{where}")
        if why is not None:
            try:
                result = step.do(path)
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C, SIGTERM
                    watch.note(f"stopped in {link.title}; the same command goes on from there")
                raise
            record = state.finish(record, result)
        made.append(path)
        yield _step_report(link, why, record, time.monotonic() - began, path)


def _step_report(link: _Link, why: str | None, record: Record, seconds: float, made: Path) -> StepReport:
    return StepReport(
        step=link.name,
        state="unchanged" if why is None else "done",
        why=why,
        made=str(made) if record.made else None,
        result=record.result,
        seconds=round(seconds, 3),
        student=link.student,
    )


def _plan(students: Sequence[ReadyRecipe], state: State, watch: Watch) -> Iterator[StepReport]:
    """What each step would do; what a step that is to run will give is not known to those after it."""
    made: list[Path | None] = []
    links = _links(students, watch)
    for link in links:
        before = [made[place] for place in link.after]
        known = [path for path in before if path is not None]
        if len(known) < len(before):
            made.append(None)
            why = f"after {links[link.after[0]].name}, unless that gives what it gave before"
            yield StepReport(link.name, "would run", why, student=link.student)
            continue
        step = link.make(known)
        reason, found = state.why(step.wanted, step.intact), state.find(step.wanted)
        path = state.folder / str(found.made) if found and found.made else None
        shown = None if path is None else str(path)
        if found is not None and reason is None:
            made.append(path or state.folder)
            yield StepReport(link.name, "unchanged", None, shown, result=found.result, student=link.student)
        else:
            made.append(None)
            yield StepReport(link.name, "would run", reason, shown, tuple(step.plan()), student=link.student)


def _report(students: Sequence[ReadyRecipe], steps: tuple[StepReport, ...]) -> RecipeReport:
    ready = students[0]
    require = ready.recipe.compare.require if ready.recipe.compare is not None else None
    compared = next((one.result for one in steps if one.step == "compare"), None)
    verdicts = [one["verdict"] for one in (compared or {}).get("students", [compared]) if one]
    met = require is None or all(verdict == require for verdict in verdicts)
    report = RecipeReport(str(ready.loaded.path), str(ready.out), None, steps, None if met else require)
    return replace(report, run=next(iter(report.runs), None))

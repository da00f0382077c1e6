"""Run a recipe: step after step, each only where what it depends on has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
    """

    step: str
    state: str
    why: str | None
    made: str | None = None
    plan: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RecipeReport:
    """What became of a recipe.

    Attributes:
        recipe, out: the file, and the folder it works in.
        run: the run folder with the student; None in a dry run before there is one.
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
        rows = [(step.step, step.state, step.why or "", step.made or "") for step in self.steps]
        lines = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
        return f"<table><tr><th>step<th>state<th>why<th>made</tr>{lines}</table>"

    @property
    def page(self) -> Path | None:
        """The comparison as a web page; None where nothing was compared."""
        made = next((one.made for one in self.steps if one.step == "compare"), None)
        return None if made is None else Path(made).with_suffix(".html")

    def result(self, step: str) -> Mapping[str, Any]:
        """What a step counted; empty where it did not run."""
        return next((one.result or {} for one in self.steps if one.step == step), {})


def run_recipe(
    path: str | Path,
    manager: PluginManager,
    *,
    dry_run: bool = False,
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> RecipeReport:
    """Do what a recipe says, as far as it is not done.

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
    ready = make_ready(path, manager)
    if dry_run:
        return _report(ready, _plan(ready, State(ready.out, ready.loaded.path), watch))
    State(ready.out, ready.loaded.path)  # refuses what is no recipe's folder, before anything is written there
    with owned(ready.out):
        ready.out.mkdir(exist_ok=True)
        return _report(ready, tuple(_do(ready, State(ready.out, ready.loaded.path), watch)))


def _steps(ready: ReadyRecipe, watch: Watch) -> Iterator[tuple[str, str | None, Callable[[Mapping[str, Path]], Step]]]:
    """The steps: name, the step whose outcome it needs, and how it is made of what those before it have made."""
    yield "collect", None, lambda made: collect_step(ready, watch)
    yield "check", "collect", lambda made: check_step(ready, watch, made["collect"])
    yield "train", "collect", lambda made: train_step(ready, watch, made["collect"])
    comparing = ready.compare
    if comparing is not None:
        yield "compare", "train", lambda made: compare_step(ready, comparing, watch, made["train"])


def _do(ready: ReadyRecipe, state: State, watch: Watch) -> Iterator[StepReport]:
    made: dict[str, Path] = {}
    for _, _, make in _steps(ready, watch):
        step, began = make(made), time.monotonic()
        why = state.why(step.name, step.inputs, step.intact)
        record = state.begin(step.name, step.inputs, step.stem)
        where = f" → {ready.out / record.made}" if record.made else ""
        watch.note(f"{step.name}: {why or 'nothing has changed'}{where}")
        if why is not None:
            try:
                result = step.do(ready.out / str(record.made))
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C, SIGTERM
                    watch.note(f"stopped in {step.name}; the same command goes on from there")
                raise
            record = state.finish(record, result)
        made[step.name] = ready.out / str(record.made)
        yield _step_report(step, why, record, time.monotonic() - began, made[step.name])


def _step_report(step: Step, why: str | None, record: Record, seconds: float, made: Path) -> StepReport:
    return StepReport(
        step=step.name,
        state="unchanged" if why is None else "done",
        why=why,
        made=str(made) if record.made else None,
        result=record.result,
        seconds=round(seconds, 3),
    )


def _plan(ready: ReadyRecipe, state: State, watch: Watch) -> tuple[StepReport, ...]:
    """What each step would do; what a step that is to run will give is not known to those after it."""
    reports: list[StepReport] = []
    made: dict[str, Path] = {}
    for name, after, make in _steps(ready, watch):
        if after is not None and after not in made:
            reports.append(StepReport(name, "would run", f"after {after}, unless that gives what it gave before"))
            continue
        step = make(made)
        why, found = state.why(name, step.inputs, step.intact), state.find(name, step.inputs)
        path = str(ready.out / found.made) if found and found.made else None
        if found is not None and why is None:
            made[name] = ready.out / str(found.made)
            reports.append(StepReport(name, "unchanged", None, path, result=found.result))
        else:
            reports.append(StepReport(name, "would run", why, path, tuple(step.plan())))
    return tuple(reports)


def _report(ready: ReadyRecipe, steps: tuple[StepReport, ...]) -> RecipeReport:
    run = next((one.made for one in steps if one.step == "train" and one.state != "would run"), None)
    require = ready.recipe.compare.require if ready.recipe.compare is not None else None
    compared = next((one.result for one in steps if one.step == "compare"), None)
    met = require is None or compared is None or compared["verdict"] == require
    return RecipeReport(str(ready.loaded.path), str(ready.out), run, steps, None if met else require)

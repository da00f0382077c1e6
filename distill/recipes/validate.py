"""All of a recipe that can be checked before the first paid request, and what it comes to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill.collection.settings import CollectSettings
from distill.comparison.settings import CompareSettings
from distill.errors import DistillError, UsageError
from distill.plugins import PluginManager
from distill.recipes.schema import Recipe, read_recipe
from distill.recipes.sweep import Variant, variants
from distill.recipes.yaml_file import Loaded, load_yaml
from distill.settings import origins_of, settings_from
from distill.training.settings import TrainSettings

if TYPE_CHECKING:
    from distill.collection.plan import Plan
    from distill.dataset.pipeline import Pipeline


_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")


@dataclass(frozen=True, slots=True)
class ReadyRecipe:
    """A recipe of one student, whose names, values, options and files have been checked.

    Attributes:
        recipe, loaded: what was read.
        variant: in what this student differs from the recipe's others.
        manager: the plugins.
        prompts, out, store, against, held_out: its files, relative ones in the recipe's folder. No store: the one in
            `out`; none held out: those that training holds out.
        plan: what is asked of each prompt.
        pipeline: the student's encoder and labeler.
        max_length: the most tokens of an example; None: the student sets no limit.
        training: its settings, but for data and run folder.
        origins: setting → where it came from.
        compare: how to compare; None: the recipe does not.
    """

    recipe: Recipe
    loaded: Loaded
    variant: Variant
    manager: PluginManager
    prompts: Path
    out: Path
    store: Path | None
    against: tuple[Path, ...]
    plan: Plan
    pipeline: Pipeline
    max_length: int | None
    training: TrainSettings
    origins: Mapping[str, str]
    held_out: tuple[Path, ...] = ()
    compare: CompareSettings | None = None

    def settings(self, transcripts: Path, run: Path) -> TrainSettings:
        """What to train on these transcripts, into this folder."""
        return replace(self.training, data=(transcripts,), out=run)


def make_ready(path: str | Path, manager: PluginManager) -> tuple[ReadyRecipe, ...]:
    """Read a recipe and check everything that can be checked without asking the teacher or loading weights.

    Returns:
        The recipe; where lists in it make several students, the recipe of each. All but their training is the same.

    Raises:
        DistillError: something does not exist or does not fit; says where in the recipe.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError(
            "a recipe runs in one process", "for several GPUs: `torchrun … -m distill train` on its transcripts"
        )
    students = list(variants(load_yaml(path)))
    first = _first_student(students[0], manager)
    _check_one_hold_out(first, students)
    return (first, *(_other_student(first, variant) for variant in students[1:]))


def _first_student(variant: Variant, manager: PluginManager) -> ReadyRecipe:
    loaded = variant.loaded
    recipe, folder = read_recipe(loaded), loaded.path.parent
    prompts = folder / recipe.prompts
    if not prompts.is_file():  # a pipe could not be read again when the recipe is resumed
        raise UsageError(f"{loaded.where(('prompts',))}: no file {str(prompts)!r}", "paths are relative to the recipe")
    plan = _plan(recipe, loaded, folder, manager, prompts)
    out, store = folder / recipe.out, None if recipe.collect.out is None else folder / recipe.collect.out
    if store is not None and out.resolve() in store.resolve().parents:
        raise UsageError(
            f"{loaded.where(('collect', 'out'))}: {str(store)!r} lies in the recipe's own folder",
            "leave it out: answers are kept there anyway; it is for a file that several recipes share",
        )
    against = _files(loaded, folder, recipe.check.options().get("against", ()), "check", "against")
    held_out = _files(loaded, folder, recipe.compare.data if recipe.compare else [], "compare", "data")
    compare = _compare_settings(recipe, loaded, folder, manager)
    training = _train_settings(recipe, loaded, folder)
    pipeline, max_length = _pipeline(recipe, loaded, manager, training)
    return ReadyRecipe(
        recipe=recipe,
        loaded=loaded,
        variant=variant,
        manager=manager,
        prompts=prompts,
        out=out,
        store=store,
        against=tuple(dict.fromkeys((*against, *held_out))),
        held_out=held_out,
        compare=compare,
        plan=plan,
        pipeline=pipeline,
        max_length=max_length,
        training=training,
        origins={"data": "recipe", **origins_of(TrainSettings, recipe.train.options(), "recipe")},
    )


def _other_student(first: ReadyRecipe, variant: Variant) -> ReadyRecipe:
    """A further student of the same recipe."""
    recipe = read_recipe(variant.loaded)
    training = _train_settings(recipe, variant.loaded, variant.loaded.path.parent)
    pipeline, max_length = _pipeline(recipe, variant.loaded, first.manager, training)
    return replace(
        first,
        recipe=recipe,
        loaded=variant.loaded,
        variant=variant,
        pipeline=pipeline,
        max_length=max_length,
        training=training,
        origins={"data": "recipe", **origins_of(TrainSettings, recipe.train.options(), "recipe")},
    )


def _check_one_hold_out(first: ReadyRecipe, students: Sequence[Variant]) -> None:
    """Refuse to compare students on conversations that some of them were trained on."""
    chosen_by = next((key for key in ("seed", "hold-out") if key in students[0].values), None)
    if chosen_by is not None and first.compare is not None and not first.held_out:
        raise UsageError(
            f"{first.loaded.where(('train', chosen_by))}: {chosen_by} decides what is held out, so the students could "
            "not be compared on the same conversations",
            "give held-out conversations with `compare: {data: FILE}`",
        )


def _files(loaded: Loaded, folder: Path, names: Sequence[str], *place: str) -> tuple[Path, ...]:
    files = tuple(folder / name for name in names)
    for n, file in enumerate(files):
        if not file.is_file():
            raise UsageError(f"{loaded.where((*place, n))}: no file {str(file)!r}", "paths are relative to the recipe")
    return files


def _model(name: str, folder: Path) -> str:
    """A model as it is named, or the path of what has that name in the recipe's folder."""
    return str((folder / name).resolve()) if (folder / name).exists() else name


def _teacher(name: str, folder: Path, manager: PluginManager) -> str:
    """As `_model`, for the MODEL of `NAME:MODEL`, where it is a path: replay:FILE, transformers:FOLDER."""
    kind, _, model = name.partition(":")
    local = kind in manager.teachers and manager.teachers.get(kind).loads_models
    return f"{kind}:{_model(model, folder)}" if model and (local or (folder / model).is_file()) else name


def _compare_settings(recipe: Recipe, loaded: Loaded, folder: Path, manager: PluginManager) -> CompareSettings | None:
    section = recipe.compare
    if section is None:
        return None
    options = section.options()
    if not section.data and "hold_out" not in recipe.train.options():
        raise UsageError(
            f"{loaded.where(('compare',))}: `compare` needs conversations that are not trained on",
            "keep some from training with `train: {hold-out: 10%}`, or give others with `compare: {data: FILE}`",
        )
    for who in ("teacher", "judge"):
        if options.get(who):
            options[who] = _teacher(options[who], folder, manager)
    if options.get("base"):
        options["base"] = _model(options["base"], folder)
    with _at(loaded, "compare"):
        return settings_from(CompareSettings, options).named(manager)


def _plan(recipe: Recipe, loaded: Loaded, folder: Path, manager: PluginManager, prompts: Path) -> Plan:
    """The teacher, its options, the prompts and the price: all that `collect` checks before it asks."""
    from distill.collection.plan import make_plan

    section = recipe.collect
    options = {**section.options(), "teacher": _teacher(section.options()["teacher"], folder, manager)}
    with _at(loaded, "collect"):
        settings = settings_from(CollectSettings, {**options, "append": True})  # the store takes every answer
    with _at(loaded, "collect", "teacher-options" if settings.teacher_options else "teacher"):
        plan = make_plan(settings, manager)
    with _at(loaded, "collect"):
        plan.price()
    with plan.open(prompts) as opened:
        plan.total(opened)
    return plan


def _train_settings(recipe: Recipe, loaded: Loaded, folder: Path) -> TrainSettings:
    """The training's settings; data and run folder are not known yet."""
    from distill.transcripts.hold_out import make_hold_out

    options = recipe.train.options()
    if "student" in options:
        options["student"] = _model(options["student"], folder)
    with _at(loaded, "train"):
        settings = settings_from(TrainSettings, {**options, "allow": recipe.check.allow, "out": Path()}, data=())
    if settings.hold_out is not None:
        with _at(loaded, "train", "hold-out"):
            make_hold_out(settings.hold_out, (), None, settings.seed)  # whether it can be understood
    return settings


def _pipeline(
    recipe: Recipe, loaded: Loaded, manager: PluginManager, settings: TrainSettings
) -> tuple[Pipeline, int | None]:
    """Build trainer, loss, formatter and labeler with their options, and load the student's tokenizer."""
    from distill.dataset.findings import Findings
    from distill.dataset.pipeline import length_limit, make_pipeline
    from distill.training.lora import check_quantization

    with _at(loaded, "check", "allow"):
        Findings.check_codes(recipe.check.allow)
    for kind in ("formatter", "labeler", "trainer", "loss"):
        registry, name = manager.registries[kind], getattr(settings, kind)
        options = getattr(settings, f"{kind}_options")
        with _at(loaded, "train", kind):
            registry.get(name)
        with _at(loaded, "train", f"{kind}-options"):
            registry.options(name, options)
            if kind in ("trainer", "loss"):
                registry.build(name, options)
    if settings.lora is not None and settings.lora.quantize:
        with _at(loaded, "train", "qlora"):
            check_quantization()
    with _at(loaded, "train", "student"):
        soft_labels = manager.losses.get(settings.loss).soft_labels is not None
        pipeline = make_pipeline(settings, manager, soft_labels=soft_labels)
    with _at(loaded, "train", "max-length"):
        return pipeline, length_limit(pipeline.ref, settings.max_length)


@contextmanager
def _at(loaded: Loaded, *place: str) -> Iterator[None]:
    """Name the place in the recipe that an error comes from, and options by their keys: `lora` for `--lora`."""
    try:
        yield
    except DistillError as error:
        error.message = f"{loaded.where(place)}: {_FLAG.sub(_as_key, error.message)}"
        error.hint = error.hint and _FLAG.sub(_as_key, error.hint)
        raise


def _as_key(flag: re.Match[str]) -> str:
    return f"`{flag[1]}`"

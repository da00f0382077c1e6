"""All of a recipe that can be checked before the first paid request, and what it comes to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.collection.settings import CollectSettings
from distill.errors import DistillError, UsageError
from distill.plugins import PluginManager
from distill.recipes.schema import Recipe, load_recipe
from distill.recipes.yaml_file import Loaded
from distill.settings import settings_from

if TYPE_CHECKING:
    from distill.collection import NamedTeacher
    from distill.collection.plan import Plan
    from distill.comparison import CompareSettings
    from distill.dataset.pipeline import Pipeline
    from distill.training import LoraSettings, TrainSettings

# Keys of `train` by the names of the settings they are.
_SETTINGS = {
    "from_": "data_format",
    "batch_size": "per_device_train_batch_size",
    "accumulation": "gradient_accumulation_steps",
}
_LORA = {"lora_rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "lora_targets": "target_modules"}


@dataclass(frozen=True, slots=True)
class ReadyRecipe:
    """A recipe whose names, values, options and files have been checked.

    Attributes:
        recipe, loaded: what was read.
        manager: the plugins.
        prompts, out, store, against, held_out: its files, relative ones in the recipe's folder. No store: the one in
            `out`; none held out: those that training holds out.
        plan: what is asked of each prompt.
        pipeline: the student's encoder and labeler.
        max_length: the most tokens of an example; None: the student sets no limit.
        values: of the training's settings, but for data and run folder.
        origins: setting → where it came from.
        compare: how to compare; None: the recipe does not.
    """

    recipe: Recipe
    loaded: Loaded
    manager: PluginManager
    prompts: Path
    out: Path
    store: Path | None
    against: tuple[Path, ...]
    plan: Plan
    pipeline: Pipeline
    max_length: int | None
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    held_out: tuple[Path, ...] = ()
    compare: CompareSettings | None = None

    def settings(self, transcripts: Path, run: Path) -> TrainSettings:
        """What to train on these transcripts, into this folder."""
        from distill.training import TrainSettings

        return TrainSettings(data=(transcripts,), out=run, **self.values)


def make_ready(path: str | Path, manager: PluginManager) -> ReadyRecipe:
    """Read a recipe and check everything that can be checked without asking the teacher or loading weights.

    Raises:
        DistillError: something does not exist or does not fit; says where in the recipe.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError(
            "a recipe runs in one process", "for several GPUs: `torchrun … -m distill train` on its transcripts"
        )
    recipe, loaded = load_recipe(path)
    folder = Path(path).parent
    prompts = folder / recipe.prompts
    if not prompts.is_file():  # a pipe could not be read again when the recipe goes on
        raise UsageError(f"{loaded.where(('prompts',))}: no file {str(prompts)!r}", "paths are relative to the recipe")
    plan = _plan(recipe, loaded, folder, manager, prompts)
    out, store = folder / recipe.out, None if recipe.collect.out is None else folder / recipe.collect.out
    if store is not None and out.resolve() in store.resolve().parents:
        raise UsageError(
            f"{loaded.where(('collect', 'out'))}: {str(store)!r} lies in the recipe's own folder",
            "leave it out: answers are kept there anyway; it is for a file that several recipes share",
        )
    against = _files(loaded, folder, recipe.check.against, "check", "against")
    held_out = _files(loaded, folder, recipe.compare.data if recipe.compare else [], "compare", "data")
    compare = None if recipe.compare is None else _compare_settings(recipe, loaded, folder, manager)
    values = _train_values(recipe, loaded, folder)
    pipeline, max_length = _pipeline(recipe, loaded, manager, values)
    return ReadyRecipe(
        recipe=recipe,
        loaded=loaded,
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
        values=values,
        origins={_SETTINGS.get(name, name): "recipe" for name in recipe.train.model_fields_set},
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


def _compare_settings(recipe: Recipe, loaded: Loaded, folder: Path, manager: PluginManager) -> CompareSettings:
    from distill.collection import make_teacher
    from distill.comparison import CompareSettings

    section = recipe.compare
    if not section.data and recipe.train.hold_out is None:
        raise UsageError(
            f"{loaded.where(('compare',))}: `compare` needs conversations that are not trained on",
            "keep some from training with `train: {hold-out: 10%}`, or give others with `compare: {data: FILE}`",
        )
    asked: dict[str, NamedTeacher | None] = {}
    for who in ("teacher", "judge"):
        name, options = getattr(section, who), getattr(section, f"{who}_options")
        if name is None and options:
            raise UsageError(f"{loaded.where(('compare', f'{who}-options'))}: there is no `{who}`", f"add `{who}: …`")
        with _at(loaded, "compare", who):
            asked[who] = None if name is None else make_teacher(manager, _teacher(name, folder, manager), options)
    return CompareSettings(
        base=None if section.base is None else _model(section.base, folder),
        data_format=section.from_,
        limit=section.limit,
        max_tokens=section.max_tokens,
        batch_size=section.batch_size,
        seed=section.seed,
        **asked,
    )


def _plan(recipe: Recipe, loaded: Loaded, folder: Path, manager: PluginManager, prompts: Path) -> Plan:
    """The teacher, its options, the prompts and the price: all that `collect` checks before it asks."""
    from distill.collection.plan import make_plan
    from distill.collection.prompts import open_prompts

    section = recipe.collect
    options = {**section.options(), "teacher": _teacher(section.options()["teacher"], folder, manager)}
    with _at(loaded, "collect"):
        settings = settings_from(CollectSettings, {**options, "append": True})  # the store takes every answer
    with _at(loaded, "collect", "teacher-options" if settings.teacher_options else "teacher"):
        plan = make_plan(settings, manager)
    with _at(loaded, "collect"):
        plan.price()
    with open_prompts(prompts) as file:
        plan.total(file)
    return plan


def _train_values(recipe: Recipe, loaded: Loaded, folder: Path) -> dict[str, Any]:
    from distill.transcripts.hold_out import make_hold_out

    section = recipe.train
    if section.batch_tokens is not None and "batch_size" in section.model_fields_set:
        raise UsageError(
            f"{loaded.where(('train', 'batch-tokens'))}: `batch-size` and `batch-tokens` exclude each other",
            "a batch is counted in one or the other",
        )
    values = {_SETTINGS.get(name, name): getattr(section, name) for name in type(section).model_fields}
    if section.hold_out is not None:
        with _at(loaded, "train", "hold-out"):
            make_hold_out(section.hold_out, (), None, section.seed)  # whether it can be understood
    given = {name: values.pop(key) for key, name in _LORA.items()}
    lora, qlora = values.pop("lora"), values.pop("qlora")
    values["lora"] = _lora(loaded, lora or qlora, qlora, given)
    values["student"] = _model(section.student, folder)
    return {**values, "allow": tuple(recipe.check.allow)}


def _lora(loaded: Loaded, wanted: bool, quantize: bool, given: dict[str, Any]) -> LoraSettings | None:
    from distill.training import LoraSettings

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    given = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        if given:
            raise UsageError(
                f"{loaded.where(('train',))}: an option of LoRA is given, but not `lora`", "add `lora: true`"
            )
        return None
    return LoraSettings(quantize=quantize, **given)


def _pipeline(
    recipe: Recipe, loaded: Loaded, manager: PluginManager, values: Mapping[str, Any]
) -> tuple[Pipeline, int | None]:
    """Build trainer, formatter and labeler with their options, and load the student's tokenizer."""
    from distill.dataset.findings import Findings
    from distill.dataset.pipeline import make_pipeline
    from distill.models.load import max_positions
    from distill.training.lora import check_quantization

    section = recipe.train
    with _at(loaded, "check", "allow"):
        Findings.check_codes(recipe.check.allow)
    for kind in ("formatter", "labeler", "trainer"):
        registry, options = manager.registries[kind], values[f"{kind}_options"]
        with _at(loaded, "train", kind):
            registry.get(values[kind])
        with _at(loaded, "train", f"{kind}-options"):
            registry.options(values[kind], options)
            if kind == "trainer":
                registry.build(values[kind], options)
    if section.qlora:
        with _at(loaded, "train", "qlora"):
            check_quantization()
    names = ("student", "formatter", "formatter_options", "labeler", "labeler_options", "turns", "data_format")
    student, formatter, format_options, labeler, label_options, turns, data_format = (values[name] for name in names)
    with _at(loaded, "train", "student"):
        pipeline = make_pipeline(
            student, manager, formatter, format_options, labeler, label_options, turns, data_format
        )
        return pipeline, section.max_length or max_positions(pipeline.ref)


@contextmanager
def _at(loaded: Loaded, *place: str) -> Iterator[None]:
    """Say where in the recipe an error comes from."""
    try:
        yield
    except DistillError as error:
        error.message = f"{loaded.where(place)}: {error.message}"
        raise

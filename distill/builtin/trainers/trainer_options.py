"""Options of transformers' and TRL's trainers: which there are, which are distill's own, and which cannot run here."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

from transformers import Trainer
from transformers.integrations import get_reporting_integration_callbacks, integration_utils, is_deepspeed_available
from transformers.utils import is_liger_kernel_available

from distill import UsageError, unknown_name

# Settings that have an option of distill's own.
_OWNED = {
    "output_dir": "--out",
    **dict.fromkeys(("num_train_epochs", "epochs", "num_epochs"), "--epochs"),
    **dict.fromkeys(("per_device_train_batch_size", "batch_size", "micro_batch_size"), "--batch-size"),
    **dict.fromkeys(("packing", "padding_free"), "--packing"),
    **dict.fromkeys(("gradient_accumulation_steps", "gradient_accumulation"), "--accumulation"),
    **dict.fromkeys(("learning_rate", "lr"), "--learning-rate"),
    "seed": "--seed",
    **dict.fromkeys(("max_length", "max_seq_length"), "--max-length"),
    "resume_from_checkpoint": "--resume",
    "save_strategy": "--save-steps",
    "save_steps": "--save-steps",
    "save_total_limit": "--save-total-limit",
    "eval_steps": "--eval-steps",
    "load_best_model_at_end": "--keep best",
    **dict.fromkeys(("assistant_only_loss", "completion_only_loss"), "--labeler"),
    **dict.fromkeys(("chat_template_path", "eos_token", "pad_token"), "--formatter"),
    **dict.fromkeys(("load_in_4bit", "quantization"), "--qlora"),
    **dict.fromkeys(("use_peft", "use_lora", "peft_config"), "--lora"),
    **dict.fromkeys(("dtype", "torch_dtype"), "--dtype"),
}

# Settings that would break a promise of distill, each with that promise.
_FIXED = {
    **dict.fromkeys(
        (
            "push_to_hub",
            "hub_model_id",
            "hub_strategy",
            "hub_token",
            "hub_private_repo",
            "hub_always_push",
            "hub_revision",
        ),
        "a finished student is uploaded by `distill export RUN --to hub -O repo=OWNER/NAME`",
    ),
    "model_init_kwargs": "the student is loaded already",
    **dict.fromkeys(("label_names", "remove_unused_columns", "dataset_kwargs"), "the examples are labelled already"),
    "logging_nan_inf_filter": "a loss that is not finite must be seen",
    "auto_find_batch_size": "a smaller batch is another training; lower --batch-size, and raise --accumulation",
    **dict.fromkeys(
        ("ignore_data_skip", "save_only_model", "enable_jit_checkpoint", "restore_callback_states_from_checkpoint"),
        "a stopped training must resume exactly",
    ),
    **dict.fromkeys(
        ("eval_strategy", "eval_on_start", "do_eval", "do_predict", "metric_for_best_model", "greater_is_better"),
        "held-out rows are evaluated by --hold-out, --eval-steps, --keep and --patience",
    ),
}


def check_options(options: Mapping[str, Any], arguments: Any, trainer: str) -> dict[str, Any]:
    """Refuse options that the arguments class does not have, that are distill's own, or that it refuses itself.

    Returns:
        The options, by their names in this version of transformers.

    Raises:
        UsageError: see above.
    """
    known = {field.name for field in dataclasses.fields(arguments) if field.init}
    for key in options:
        if key in _OWNED:
            raise UsageError(f"trainer {trainer!r}: {key} is set by {_OWNED[key]}")
        if key in _FIXED:
            raise UsageError(f"trainer {trainer!r}: {key} cannot be set: {_FIXED[key]}", f"leave -T {key}=… out")
        if key not in known:
            raise unknown_name(f"option of trainer {trainer!r}:", key, known - set(_FIXED))
    if options.get("deepspeed") and not is_deepspeed_available():
        # Half a config of it would stay behind in this process, and every model loaded later would ask it.
        raise _missing(trainer, "deepspeed", "deepspeed")
    options = {_RENAMED.get(key, key) if _RENAMED.get(key, key) in known else key: options[key] for key in options}
    made = construct(arguments, {"output_dir": "", **defaults(arguments), **options})
    check_packages(made, trainer)
    return options


# In transformers 5.2x; the old name is ignored where the new one has a value.
_RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


def check_packages(made: Any, trainer: str) -> None:
    """Refuse options whose packages are missing: transformers would notice only once the model is loaded.

    Args:
        made: TrainingArguments, or a subclass.
        trainer: its name, for errors.

    Raises:
        UsageError: names the option and what to install.
    """
    if made.use_liger_kernel and not is_liger_kernel_available():
        raise _missing(trainer, "use_liger_kernel", "liger-kernel")
    optimizer = getattr(made.optim, "value", made.optim)
    try:
        Trainer.get_optimizer_cls_and_kwargs(made)
    except (ImportError, ValueError) as error:
        package = _package_in(str(error))
        if package is not None:
            raise _missing(trainer, f"optim={optimizer}", package) from error
    if made.fsdp and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise UsageError(
            f"trainer {trainer!r}: fsdp needs several processes",
            "start it with `torchrun --nproc-per-node N -m distill …`",
        )
    if getattr(made, "activation_offloading", False) and not _has_accelerator():
        raise UsageError(f"trainer {trainer!r}: activation_offloading needs a GPU", "leave it out")
    _check_trackers(made.report_to, trainer)


def _check_trackers(names: list[str], trainer: str) -> None:
    try:
        get_reporting_integration_callbacks(names)
    except (ValueError, ImportError, RuntimeError) as error:
        raise UsageError(f"trainer {trainer!r}: report_to: {error}") from error
    for name in names:
        spellings = (name, name.replace("_", ""), name.removesuffix("_ml"))
        known = (getattr(integration_utils, f"is_{one}_available", None) for one in spellings)
        installed = next((one for one in known if one is not None), None)
        if installed is not None and not installed():
            raise UsageError(f"trainer {trainer!r}: report_to={name}: {name} is not installed", f"pip install {name}")


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def _package_in(message: str) -> str | None:
    """The package that an error of transformers tells to install; None: it is about something else."""
    _, found, rest = message.partition("pip install ")
    words = rest.removeprefix("-U ").replace("`", " ").split()
    return words[0].rstrip(".") if found and words else None


def _missing(trainer: str, option: str, package: str) -> UsageError:
    name = package.rpartition("/")[2]
    return UsageError(f"trainer {trainer!r}: {option}: {name} is not installed", f"pip install {package}")


def defaults(arguments: Any) -> dict[str, Any]:
    """Where distill's defaults differ from those of transformers and TRL."""
    import torch

    names = {field.name for field in dataclasses.fields(arguments)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    return {
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        "use_cpu": not _has_accelerator(),  # without it, transformers refuses bf16 on a CPU
        "ddp_find_unused_parameters": False,  # a causal model uses all of them
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a NaN loss is shown as 0.0
        "report_to": "none",
        "save_strategy": "no",  # `Checkpoints` decides when
        "remove_unused_columns": False,
        checkpointing: False,  # TRL turns it on by default, which costs a third more time
    }


def construct(arguments: Any, settings: Mapping[str, Any]) -> Any:
    """Build the arguments; what the class refuses is the user's error, in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # names that a later release will drop
            return arguments(**settings)
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"the trainer refuses its settings: {error}") from error

"""LoRA: adapters on a student's linear layers, trained instead of its weights, and merged into them at the end."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError, UsageError
from distill.models.load import load_model
from distill.training.lora_targets import choose_targets
from distill.training.settings import LoraSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def add_adapter(model: PreTrainedModel, lora: LoraSettings, new_tokens: Sequence[int], *, prepare: bool = True) -> Any:
    """Freeze a student and put adapters on its linear layers.

    The rows of tokens that the chat format adds are trained too, in the embedding table and, where it is not tied, in
    the LM head: neither has an adapter, and a marker that is never trained is never generated.

    Args:
        model: the student, its embedding table already grown.
        lora: the adapters.
        new_tokens: ids of tokens that the student has not seen.
        prepare: whether to prepare a quantized base for training; False for an estimate, which loads none.

    Returns:
        The `peft.PeftModel`.

    Raises:
        UsageError: `target_modules` names a layer that this student lacks, or that can have no adapter.
    """
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    if lora.quantize and prepare:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    rows = {}
    if new_tokens:
        tables = [model.get_input_embeddings(), model.get_output_embeddings()]
        tied = tables[1] is None or tables[1].weight is tables[0].weight
        rows = {_name_of(table, model): list(new_tokens) for table in tables[: 1 if tied else 2]}
    chosen = choose_targets(model, lora)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(chosen.modules),
        target_parameters=list(chosen.parameters) or None,
        trainable_token_indices=rows or None,
        fan_in_fan_out=_has_conv1d(model),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's and transformers' names for checkpointing differ
            warnings.simplefilter("ignore", RuntimeWarning)  # patterns that peft makes for experts, and misses itself
            return get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(
            f"--lora-targets: {str(error).splitlines()[0]}",
            f"by default: {', '.join(choose_targets(model, LoraSettings()).modules)}",
        ) from error


def untie_for_adapters(model: PreTrainedModel, lora: LoraSettings) -> bool:
    """Give the LM head a table of its own, where adapters are to be on it or on the embedding, and both are one table.

    Merged into one table, an adapter of either would change the other too.

    Args:
        model: the student, before it gets adapters; it is saved untied.
        lora: the adapters.

    Returns:
        Whether the table was copied.
    """
    from torch import nn

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return False
    names = [_name_of(embedding, model), _name_of(head, model)]
    if not any(name == target or name.endswith(f".{target}") for name in names for target in lora.target_modules):
        return False
    head.weight = nn.Parameter(head.weight.detach().clone())
    for config in {id(one): one for one in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    return True


def merge_adapter(model: Any) -> PreTrainedModel:
    """Merge trained adapters into the weights of the student they are on; the `PeftModel` is used up."""
    return model.merge_and_unload()


def merge_saved_adapter(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Merge saved adapters into a student loaded in full precision: QLoRA's own base is rounded to 4 bits."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()


def check_quantization(note: Callable[[str], None] | None = None) -> None:
    """Refuse QLoRA where it cannot run, before anything is loaded or written.

    Args:
        note: told instead, in a dry run: the training may be meant for another machine.

    Raises:
        DistillError: there is no GPU, or no bitsandbytes.
    """
    import torch

    error = None
    if not torch.cuda.is_available():
        error = DistillError("--qlora needs a GPU that bitsandbytes can use; there is none here", "use --lora")
    elif importlib.util.find_spec("bitsandbytes") is None:
        error = DistillError("--qlora needs bitsandbytes", "pip install 'distill-chat[qlora]', or use --lora")
    if error is not None and note is None:
        raise error
    if error is not None and note is not None:
        note(f"warning: {error.message}")


def load_quantized(ref: str) -> PreTrainedModel:
    """Load a student in 4 bits (NF4), as QLoRA does."""
    import torch
    from transformers import BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return load_model(ref, quantization_config=four_bits)


def _name_of(wanted: nn.Module, model: PreTrainedModel) -> str:
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    return names[wanted]


def _has_conv1d(model: PreTrainedModel) -> bool:
    return any(type(module).__name__ == "Conv1D" for module in model.modules())

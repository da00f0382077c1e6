"""Which of a student's weights get LoRA adapters: by default, and by the names that the user gives."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill.errors import UsageError
from distill.models.load import empty_model, quiet
from distill.training.settings import LoraSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_SHOWN = 12  # names in a message


@dataclass(frozen=True, slots=True)
class Targets:
    """What gets adapters.

    Attributes:
        modules: linear layers, by the end of their names.
        parameters: weights that belong to no linear layer, by the end of their names: fused experts.
        note: what is left out, for the user; None: nothing worth a line.
    """

    modules: Sequence[str]
    parameters: Sequence[str] = ()
    note: str | None = None


def choose_targets(model: PreTrainedModel, lora: LoraSettings) -> Targets:
    """Choose the weights to adapt.

    By default that is every linear layer, except the LM head, the routers of a mixture of experts, and the layers whose
    weights the kernels of a state-space block read by themselves: an adapter there would never be computed.

    Args:
        model: the student, without adapters.
        lora: the adapters; `target_modules` empty: the default.

    Raises:
        UsageError: a name that no weight has, one that cannot have an adapter, or a student without linear layers.
    """
    linear = {name for name, module in model.named_modules() if _is_linear(module)}
    direct = _read_by_kernels(model)
    experts = [name for name, _ in fused_experts(model)]
    if lora.target_modules:
        return _named(model, lora, direct, experts)
    head = model.get_output_embeddings()
    wanted = {
        name
        for name in linear - direct
        if model.get_submodule(name) is not head and not name.endswith("gate") and "router" not in name.split(".")
    }
    if not wanted:
        raise UsageError("--lora: this student has no linear layers that can have adapters", "train without --lora")
    modules = _without_experts_names(model, _shortest(wanted, {name for name, _ in model.named_modules()}))
    notes = []
    if experts:
        weights = sum(weight.numel() for _, weight in fused_experts(model))
        share = weights / sum(weight.numel() for weight in model.parameters())
        notes.append(
            f"its experts ({share:.0%} of the weights) get none, unless --lora-targets names them: "
            + ", ".join(sorted({name.rpartition(".")[2] for name in experts}))
        )
    if direct:
        ends = ", ".join(sorted({name.rpartition(".")[2] for name in direct}))
        notes.append(f"{ends} of its state-space blocks can have none")
    return Targets(modules, (), f"LoRA adapts {_listed(modules)}; " + "; ".join(notes) if notes else None)


def plan_targets(ref: str, lora: LoraSettings) -> Targets:
    """As `choose_targets`, from a model's config alone: no weights are read.

    Raises:
        UsageError: as `choose_targets`.
    """
    import torch

    with quiet(), torch.device("meta"):
        model = empty_model(ref)
    return choose_targets(model, lora)


def fused_experts(model: PreTrainedModel) -> list[tuple[str, nn.Parameter]]:
    """The weights in which a mixture of experts keeps all experts of a layer together."""
    return [
        (f"{at}.{name}", weight)
        for at, module in model.named_modules()
        if "Expert" in type(module).__name__
        for name, weight in module.named_parameters(recurse=False)
        if weight.dim() in (2, 3) and not name.endswith("bias")
    ]


def _named(model: PreTrainedModel, lora: LoraSettings, direct: Collection[str], experts: Collection[str]) -> Targets:
    """The weights that the user names."""
    names = [name for name, _ in model.named_modules()]
    modules, parameters = [], []
    for wanted in lora.target_modules:
        found = [name for name in _ending(names, wanted) if _takes_adapter(model.get_submodule(name))]
        if refused := sorted(set(found) & set(direct)):
            raise UsageError(
                f"--lora-targets: {wanted!r} cannot have an adapter: the kernels of a state-space block read its "
                f"weights by themselves ({refused[0]})",
                f"name others: {_listed(choose_targets(model, LoraSettings()).modules)}",
            )
        fused = _ending(experts, wanted)
        if found:
            modules.append(wanted)
        if fused:
            parameters.append(wanted)
        if not found and not fused:
            known = {name.rpartition(".")[2] for name in experts}
            known |= {name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)}
            raise UsageError(
                f"--lora-targets: the student has no layer {wanted!r}",
                f"this student's layers: {_listed(sorted(known - {one.rpartition('.')[2] for one in direct}))}",
            )
    if parameters and lora.dropout:
        raise UsageError("--lora-dropout cannot be applied to experts", "leave it out, or do not name them as targets")
    return Targets(modules, parameters)


def _ending(names: Iterable[str], end: str) -> list[str]:
    return [name for name in names if name == end or name.endswith(f".{end}")]


def _takes_adapter(module: nn.Module) -> bool:
    from torch import nn

    return _is_linear(module) or isinstance(module, nn.Embedding)


def _is_linear(module: nn.Module) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, Conv1D)) and "Router" not in type(module).__name__


def _read_by_kernels(model: PreTrainedModel) -> set[str]:
    """Linear layers in state-space blocks (Mamba's and its relatives') that fused kernels do not call.

    Such a block has a transition matrix and a skip connection of its own; only its input projection is called as a
    layer by every implementation.
    """
    return {
        f"{at}.{name}" if at else name
        for at, module in model.named_modules()
        if hasattr(module, "A_log") and hasattr(module, "D")
        for name, child in module.named_children()
        if _is_linear(child) and name != "in_proj"
    }


def _shortest(wanted: Collection[str], names: Collection[str]) -> list[str]:
    """The last parts of the names, where they mean no other module; whole names where they do."""
    ends = {name.rpartition(".")[2] for name in wanted}
    clear = {end for end in ends if set(_ending(names, end)) <= set(wanted)}
    return sorted(clear) + sorted(name for name in wanted if name.rpartition(".")[2] not in clear)


def _without_experts_names(model: PreTrainedModel, modules: Sequence[str]) -> list[str]:
    """Leave out what peft takes for the experts of models that had them as linear layers once.

    peft would put adapters on the fused experts in the place of the layers of this name, here and whenever the adapters
    are loaded again.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    if not fused_experts(model):
        return list(modules)
    config = LoraConfig(target_modules=list(modules))
    try:
        convert_peft_config_for_transformers(copy.deepcopy(config), model, None)
    except ValueError:  # it wants all names of a group
        return [name for name in modules if not name.endswith(("gate_proj", "up_proj", "down_proj"))]
    convert_peft_config_for_transformers(config, model, None)
    kept = set(config.target_modules or ())
    return [name for name in modules if name in kept] or list(modules)


def _listed(names: Sequence[str]) -> str:
    """A few of the names."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (", …" if len(names) > _SHOWN else "")

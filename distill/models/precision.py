"""The precision in which a model is saved: its base's, unless the user says otherwise."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from distill.models.load import model_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("distill")

SavedDtype = Literal["float32", "bfloat16", "float16"]
"""How weights may be saved."""

_HEADER = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def saved_dtype(ref: str) -> SavedDtype:
    """The dtype in which a model's weights are saved; float32 where it is another, or not known.

    Args:
        ref: as `resolve_model` returns it. A GGUF file counts as float32: that is what its weights become.
    """
    if ref.endswith(".gguf"):
        return "float32"
    config = model_config(ref)
    named = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None) or _in_files(ref)
    name = str(named).removeprefix("torch.")
    for known in get_args(SavedDtype):
        if name == known:
            return known  # type: ignore[no-any-return]  # get_args is not typed
    return "float32"


def _in_files(ref: str) -> str | None:
    """The dtype of the first matrix of numbers in a model's safetensors, as far as they are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    files = sorted(Path(ref).glob("*.safetensors")) if Path(ref).is_dir() else []
    cached = None if files else try_to_load_from_cache(ref, "model.safetensors") if "/" in ref else None
    path = files[0] if files else Path(cached) if isinstance(cached, str) else None
    if path is None:
        return None
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    kinds = (one["dtype"] for name, one in header.items() if name != "__metadata__")
    return next((_HEADER[kind] for kind in kinds if kind in _HEADER), None)


def cast_weights(model: PreTrainedModel, dtype: SavedDtype) -> SavedDtype:
    """Bring a trained model's weights into the dtype they are saved in; those that a model keeps in float32 stay so.

    Args:
        model: its weights are in float32; changed in place.
        dtype: how they are to be saved.

    Returns:
        The dtype; bfloat16 in place of a float16 whose range is too small for a weight.
    """
    import torch

    named = {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}
    limit = torch.finfo(torch.float16).max
    if dtype == "float16" and any(
        weight.numel() and float(weight.detach().abs().max()) > limit for weight in named.values()
    ):
        log.warning("the student is saved in bfloat16: weights of it are too large for float16, its base's precision")
        dtype = "bfloat16"
    kept = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    for name, weight in named.items():
        if not any(one in name for one in kept):
            weight.data = weight.data.to(getattr(torch, dtype))
    return dtype


def name_dtype(folder: Path, dtype: SavedDtype) -> None:
    """Have a saved model's config name the dtype of its weights."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = dtype
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""Load tokenizers, models and their configs: safetensors or GGUF only, and no code of theirs unless it is trusted."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distill.errors import DistillError
from distill.files.atomic import whole_folder
from distill.models.causality import check_causal, check_kind
from distill.models.gguf_tokenizer import cut_as_the_file_says
from distill.models.references import trusts_remote_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger("distill")


def _arguments(ref: str) -> tuple[str, dict[str, Any]]:
    """`from_pretrained`'s first argument, and what every call of it is told."""
    extra: dict[str, Any] = {"trust_remote_code": trusts_remote_code(ref)}
    if ref.endswith(".gguf"):
        path = Path(ref)
        return str(path.parent), {**extra, "gguf_file": path.name}
    return str(ref), extra


def _settle_hub(ref: str) -> None:
    """Switch to offline mode if the hub cannot be reached: huggingface_hub would retry each file for 50 s."""
    if (
        Path(ref).exists()
        or os.environ.get("HF_HUB_OFFLINE")
        or any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    ):
        return
    url = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), timeout=5).close()
    except OSError:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True


@contextmanager
def _loading(ref: str) -> Iterator[None]:
    """Turn what `from_pretrained` raises for a model that cannot be loaded into one clear error."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    _settle_hub(ref)
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, UnpicklingError) as error:
        raise _not_loaded(ref, error) from error


def _not_loaded(ref: str, error: Exception) -> DistillError:
    """The error for a model that cannot be loaded."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    what = f"model {str(ref)!r}"
    if "trust_remote_code" in str(error):
        return DistillError(
            f"{what} comes with Python code of its own, which distill does not run unasked",
            "read that code; if you trust it, add --trust-remote-code",
        )
    if "Unrecognized configuration class" in text:
        return DistillError(f"{what} is not a causal language model", "choose a decoder-only language model")
    if "safetensors" in text:
        return DistillError(
            f"{what} has no weights in safetensors format; pickled weights (.bin, .pt) can run code and are not read",
            "convert them to safetensors, or look for a revision of the model that has them",
        )
    if not isinstance(error, OSError) or Path(ref).exists():
        return DistillError(f"{what} cannot be loaded: {text}", "see `--debug` for more")
    from huggingface_hub import constants

    reason = "not found on this machine or on the hub"
    if os.environ.get("HF_HUB_OFFLINE"):
        reason = "not on this machine, and HF_HUB_OFFLINE keeps from asking the hub"
    elif constants.HF_HUB_OFFLINE:
        reason = "not on this machine, and the hub cannot be reached"
    return DistillError(
        f"{what}: {reason}", "check the name, or give a model folder; a private model needs `hf auth login`"
    )


def load_tokenizer(ref: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer.

    Args:
        ref: as `resolve_model` returns it.

    Raises:
        DistillError: there is none, or it is not a fast one (the engine needs the `tokenizers` backend).
    """
    with quiet(), _loading(ref):
        from transformers import AutoTokenizer

        location, extra = _arguments(ref)
        tokenizer = AutoTokenizer.from_pretrained(location, **extra)
        if "gguf_file" in extra and getattr(tokenizer, "is_fast", False):
            cut_as_the_file_says(tokenizer, ref)
    if not getattr(tokenizer, "is_fast", False):
        raise DistillError(
            f"model {ref!r}: its tokenizer {type(tokenizer).__name__} has no fast version",
            "convert it to a tokenizer.json first",
        )
    return tokenizer


def load_model(
    ref: str,
    dtype: torch.dtype | str | None = None,
    *,
    quantization_config: Any = None,
    config: PreTrainedConfig | None = None,
) -> PreTrainedModel:
    """Load a causal language model: safetensors or GGUF only.

    Args:
        ref: as `resolve_model` returns it.
        dtype: of the weights, "auto" as they were saved; None is float32, in which optimizers are exact.
        quantization_config: of transformers, to quantize the weights while they are loaded.
        config: the model's, in place of the one that comes with it.

    Raises:
        DistillError: there is none, it cannot be read, or it is not a causal language model.
    """
    location, extra = _arguments(ref)
    if "gguf_file" not in extra:  # no GGUF architecture that transformers reads has an encoder
        check_kind(model_config(ref), ref)
        extra["use_safetensors"] = True
    with quiet(), _loading(ref):
        import torch
        from transformers import AutoModelForCausalLM

        if quantization_config is not None:
            extra["quantization_config"] = quantization_config
        if config is not None:
            extra["config"] = config
        model, info = AutoModelForCausalLM.from_pretrained(
            location, dtype=dtype or torch.float32, output_loading_info=True, **extra
        )
    with quiet():
        check_causal(model, ref)
    if random := sorted(info["missing_keys"]):
        log.warning("model %r lacks %d weights, which start at random: %s, …", ref, len(random), random[0])
    if getattr(model.config, "quantization_config", None) is not None and "gguf_file" in extra:
        # transformers dequantized the weights, but refuses to save while the config still says GGUF.
        del model.config.quantization_config
        model.is_quantized = False
        model.hf_quantizer = None
    return model


def convert_model(source: str | Path, target: Path) -> Path:
    """Write a model and its tokenizer as a safetensors folder, whole or not at all.

    Args:
        source: a `.gguf` file, a folder or a hub id.
        target: the folder to make; kept as it is when it exists already.

    Returns:
        `target`.
    """
    if target.is_dir():
        return target
    tokenizer, model = load_tokenizer(str(source)), load_model(str(source))
    with quiet(), whole_folder(target, replaceable=True) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return target


@contextmanager
def quiet() -> Iterator[None]:
    """As `hushed`, with nothing on standard error either; errors are raised all the same."""
    with hushed() as silent, ExitStack() as stack:
        if silent:  # reading GGUF draws a bar of its own
            stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        yield


@contextmanager
def hushed() -> Iterator[bool]:
    """Keep the progress bars and warnings of transformers and datasets off the terminal, unless `--debug` is given.

    Yields:
        Whether they are kept off.
    """
    from transformers.utils import logging as hf_logging

    if logging.getLogger().level <= logging.DEBUG:
        yield False
        return
    bars, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    others = logging.getLogger("datasets")
    others_level = others.level
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    others.setLevel(logging.ERROR)
    try:
        yield True
    finally:
        hf_logging.set_verbosity(level)
        others.setLevel(others_level)
        if bars:
            hf_logging.enable_progress_bar()


def model_config(ref: str) -> PreTrainedConfig:
    """A model's config; no weights are read.

    Args:
        ref: as `resolve_model` returns it.

    Raises:
        DistillError: there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    with quiet(), _loading(ref):
        location, extra = _arguments(ref)
        return AutoConfig.from_pretrained(location, **extra)


def empty_model(ref: str, dtype: str = "float32") -> PreTrainedModel:
    """A model of the same architecture with weights that are not read; on the device that is active."""
    import torch
    from transformers import AutoModelForCausalLM

    config = model_config(ref)
    check_kind(config, ref)
    with _loading(ref):
        return AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), trust_remote_code=trusts_remote_code(ref)
        )


def max_positions(ref: str) -> int | None:
    """The longest input a model takes, in tokens; None where it sets no limit (ALiBi models)."""
    return positions_of(model_config(ref))


def positions_of(config: PreTrainedConfig) -> int | None:
    """The tokens that a model was made for, prompt and answer together; None where it sets no limit."""
    positions: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions


def has_fixed_positions(config: PreTrainedConfig) -> bool:
    """Whether a model cannot compute anything beyond its last position: they are a table, learned or not."""
    return positions_of(config) is not None and not getattr(config.get_text_config(), "rope_parameters", None)

"""Where models come from: a folder, a `.gguf` file, a hub id, a run folder, or a name a plugin registered."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import platformdirs

from distill.errors import DistillError, UsageError
from distill.files.atomic import whole_folder
from distill.models.gguf_tokenizer import cut_as_the_file_says
from distill.runs.layout import is_run
from distill.runs.run import open_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from distill.plugins import PluginManager


log = logging.getLogger("distill")


def cache_dir() -> Path:
    """distill's cache folder: `$DISTILL_CACHE`, or the platform's usual place (`~/.cache/distill` on Linux).

    Earlier releases used `~/.cache/distill` on every platform; where that folder exists, it stays in use.
    """
    if "DISTILL_CACHE" in os.environ:
        return Path(os.environ["DISTILL_CACHE"])
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distill"
    return earlier if earlier.is_dir() else platformdirs.user_cache_path("distill")


def resolve_model(name: str, manager: PluginManager) -> str:
    """Turn what the user named into what `load_tokenizer` and `load_model` take.

    Args:
        name: a registered model's name, a run folder (its student is meant), a model folder, a `.gguf` file or a
            hub id.

    Raises:
        UsageError: a path that does not exist, or a folder or file that holds no model.
    """
    path = Path(name).expanduser()
    if is_run(path):
        return str(open_run(path).model_dir)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"{name!r} holds no model (no config.json)", "give a folder that `save_pretrained` wrote")
        return str(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(
                f"{name!r} is not a model", "give a model folder, a .gguf file, a hub id or a model's name"
            )
        return str(path)
    if name in manager.models:
        return str(manager.models.get(name).path())
    if name.startswith((".", "/", "~")) or path.suffix == ".gguf" or name.count("/") > 1:
        raise UsageError(f"no model at {name!r}: no such file or folder", _known(manager))
    return name


def _known(manager: PluginManager) -> str:
    names = ", ".join(manager.models.names())
    return "give a model folder, a .gguf file or a hub id" + (f", or one of: {names}" if names else "")


def _arguments(ref: str) -> tuple[str, dict[str, Any]]:
    """`from_pretrained`'s first argument and the `gguf_file=` it needs."""
    if ref.endswith(".gguf"):
        path = Path(ref)
        return str(path.parent), {"gguf_file": path.name}
    return ref, {}


def _settle_hub(ref: str) -> None:
    """Go offline at once when the hub cannot be reached: huggingface_hub would retry each file for 50 s."""
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
    """Turn what `from_pretrained` raises for a model that is not there into one clear error."""
    _settle_hub(ref)
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, OSError) and not Path(ref).exists():
            from huggingface_hub import constants

            reason = "not found on this machine or on the hub"
            if os.environ.get("HF_HUB_OFFLINE"):
                reason = "not on this machine, and HF_HUB_OFFLINE keeps from asking the hub"
            elif constants.HF_HUB_OFFLINE:
                reason = "not on this machine, and the hub cannot be reached"
            hint = "check the name, or give a model folder; a private model needs `hf auth login`"
            raise DistillError(f"model {ref!r}: {reason}", hint) from error
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise DistillError(f"model {ref!r} cannot be loaded: {text[0]}", "see `--debug` for more") from error


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
        if extra and getattr(tokenizer, "is_fast", False):
            cut_as_the_file_says(tokenizer, ref)
    if not getattr(tokenizer, "is_fast", False):
        raise DistillError(
            f"model {ref!r}: its tokenizer {type(tokenizer).__name__} has no fast version",
            "convert it to a tokenizer.json first",
        )
    return tokenizer


def load_model(ref: str, dtype: torch.dtype | str | None = None, *, quantization_config: Any = None) -> PreTrainedModel:
    """Load a causal language model: safetensors only, no remote code.

    Args:
        ref: as `resolve_model` returns it.
        dtype: of the weights, "auto" as they were saved; None is float32, in which optimizers are exact.
        quantization_config: of transformers, to quantize the weights while they are loaded.

    Raises:
        DistillError: there is none, or it cannot be read.
    """
    with quiet(), _loading(ref):
        import torch
        from transformers import AutoModelForCausalLM

        location, extra = _arguments(ref)
        if not extra:
            extra = {"use_safetensors": True}
        if quantization_config is not None:
            extra["quantization_config"] = quantization_config
        model, info = AutoModelForCausalLM.from_pretrained(
            location, dtype=dtype or torch.float32, output_loading_info=True, **extra
        )
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
    with quiet(), whole_folder(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return target


@contextmanager
def quiet() -> Iterator[None]:
    """As `hushed`, and with nothing on standard error; errors are raised anyway."""
    with hushed() as silent, ExitStack() as stack:
        if silent:  # reading GGUF draws a bar of its own
            stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        yield


@contextmanager
def hushed() -> Iterator[bool]:
    """Keep transformers' bars and advice off the terminal; with `--debug` they show.

    Yields:
        Whether they are kept off.
    """
    from transformers.utils import logging as hf_logging

    if logging.getLogger().level <= logging.DEBUG:
        yield False
        return
    bars, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        yield True
    finally:
        hf_logging.set_verbosity(level)
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


def max_positions(ref: str) -> int | None:
    """The longest input a model takes, in tokens; None where it sets no limit (ALiBi models)."""
    return getattr(model_config(ref).get_text_config(), "max_position_embeddings", None)

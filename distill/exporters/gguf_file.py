"""Writing a model folder as one GGUF file, tensor by tensor: only one weight at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError
from distill.exporters.architectures import CONVERTER_HINT, Architecture, Settings, architecture_of
from distill.exporters.vocabulary import Vocabulary, read_vocabulary, stops_of
from distill.models.load import load_tokenizer, model_config

if TYPE_CHECKING:
    from numpy import ndarray
    from transformers import PreTrainedConfig

OUTTYPES = ("f32", "f16", "bf16", "q8_0")
"""How matrices may be stored; vectors are always float32, as llama.cpp expects."""


@dataclass(frozen=True, slots=True)
class _Weight:
    """One weight: where it is, and what it will be in the file."""

    source: Any
    name: str
    gguf_name: str
    shape: tuple[int, ...]
    qtype: Any


def write_gguf_file(model: str, file: Path, name: str, outtype: str) -> None:
    """Write a model folder as GGUF.

    Args:
        model: the folder, as `save_pretrained` wrote it, in safetensors.
        file: the file to write.
        name: the model's name in the metadata.
        outtype: one of `OUTTYPES`.

    Raises:
        DistillError: an architecture or tokenizer this module does not know, or a weight too large for `outtype`.
    """
    import gguf
    from safetensors import SafetensorError, safe_open

    config = model_config(model)
    architecture, settings = architecture_of(config)
    with ExitStack() as stack:
        try:
            parts = sorted(Path(model).glob("*.safetensors"))
            opened = [stack.enter_context(safe_open(part, framework="pt")) for part in parts]
        except SafetensorError as error:
            raise DistillError(f"the weights in {model} are damaged: {error}", "train the run again") from None
        weights = list(_weights(opened, architecture, config, outtype))
        rows = next((weight.shape[0] for weight in weights if weight.gguf_name == "token_embd.weight"), None)
        if rows is None:
            raise DistillError(f"{model} holds no safetensors with an embedding table", "train the run again")
        vocabulary = read_vocabulary(load_tokenizer(model), rows, stops_of(model))
        extra = architecture.extra(config)
        writer = gguf.GGUFWriter(str(file), architecture.name)
        try:
            _write_metadata(writer, architecture, {**settings, "vocab_size": rows}, vocabulary, name, outtype)
            for weight in weights:
                _announce(writer, weight)
            for tensor, values in extra.items():
                writer.add_tensor_info(tensor, values.shape, values.dtype, values.nbytes)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for weight in weights:
                writer.write_tensor_data(_data(weight, architecture, config))
            for values in extra.values():
                writer.write_tensor_data(values)
        finally:
            writer.close()


def _weights(
    opened: list[Any], architecture: Architecture, config: PreTrainedConfig, outtype: str
) -> Iterator[_Weight]:
    import gguf

    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known[architecture.name], config.num_hidden_layers)
    for source in opened:
        for name in source.keys():  # noqa: SIM118 - not a dict
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            if name.endswith((".attn.bias", ".attn.masked_bias")):  # GPT-2's old causal masks
                continue
            found = names.get_name(name, (".weight", ".bias"))
            found = found or names.get_name(name.removeprefix("transformer."), (".weight", ".bias"))
            if found is None:
                raise DistillError(f"distill does not know the weight {name!r} in GGUF", CONVERTER_HINT)
            shape = tuple(source.get_slice(name).get_shape())
            if architecture.name == "gpt2" and len(shape) == 2 and ".h." in f".{name}":
                shape = shape[::-1]
            yield _Weight(source, name, found, shape, _qtype(found, shape, outtype))


def _qtype(name: str, shape: tuple[int, ...], outtype: str) -> Any:
    """The type in which llama.cpp's converter would store it."""
    from gguf import GGMLQuantizationType as Kind

    if len(shape) <= 1 or name.endswith("_norm.weight") or name == "position_embd.weight":
        return Kind.F32
    if outtype == "q8_0" and shape[-1] % 32:  # blocks of 32 numbers
        return Kind.F16
    return Kind[outtype.upper()]


def _write_metadata(
    writer: Any, architecture: Architecture, settings: Settings, vocabulary: Vocabulary, name: str, outtype: str
) -> None:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    file_type = "ALL_F32" if outtype == "f32" else f"MOSTLY_{outtype.upper()}"
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in settings.items():
        adders = {float: writer.add_float32, int: writer.add_uint32, str: writer.add_string}
        adders[type(value)](f"{architecture.name}.{key}", value)
    vocabulary.write(writer)


def _announce(writer: Any, weight: _Weight) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType as Kind
    from gguf.quants import quant_shape_to_byte_shape

    plain = {Kind.F32: np.float32, Kind.F16: np.float16}
    dtype = np.dtype(plain.get(weight.qtype, np.uint8))
    shape = weight.shape if weight.qtype in plain else quant_shape_to_byte_shape(weight.shape, weight.qtype)
    size = int(np.prod(shape)) * dtype.itemsize
    writer.add_tensor_info(weight.gguf_name, shape, dtype, size, weight.qtype)


def _data(weight: _Weight, architecture: Architecture, config: PreTrainedConfig) -> ndarray[Any, Any]:
    """The weight as it is stored in the file."""
    import numpy as np
    from gguf import GGMLQuantizationType as Kind
    from gguf.quants import quantize

    tensor = weight.source.get_tensor(weight.name).float()
    array = architecture.reorder(weight.name, tensor, config).contiguous().numpy()
    if weight.qtype == Kind.F16 and float(np.abs(array).max(initial=0)) > float(np.finfo(np.float16).max):
        raise DistillError(
            f"the weight {weight.name!r} holds numbers that float16 cannot", "export with --outtype bf16 or f32"
        )
    quantized: ndarray[Any, Any] = quantize(array, weight.qtype)
    return quantized

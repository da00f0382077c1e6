"""Verifying an export: the GGUF file is read back and compared with the model folder it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.encode.chat_rendering import render_chat
from distill.encode.tokenizer import default_template
from distill.errors import DataError, DistillError
from distill.exporters.vocabulary import Vocabulary, prompts_begin_with_bos, rebuild, stops_of
from distill.models.gguf_tokenizer import PRE_TOKENIZERS
from distill.models.load import load_model, load_tokenizer, positions_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

Chat = Sequence[Mapping[str, str]]

ANSWER_TOKENS = 16

PRECISION = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 2**-7}
"""How much a stored weight may differ from the student's, relative to the largest of its row."""

_ENDS = ("eos", "eot", "eom")
"""The names under which a GGUF file holds end markers."""

READ_BY_TRANSFORMERS = ("gpt-2", "llama-bpe", "qwen2")
"""Pre-tokenizers that transformers reads from a GGUF file; it replaces others with GPT-2's."""


def conversations() -> list[Chat]:
    """Ten prompts of very different kinds; a format may refuse some."""
    say, asks = "How do you say “dog” in Spanish?", "And in French?"
    texts = [
        "Say hello.",
        "Grüße aus Köln, ¿qué tal? 你好，世界 🚀 👩‍👩‍👧 é",
        "  leading and trailing space \n\n\ttabs\t\n",
        "a <|im_end|> b </s> c <s> <think>d</think> {{ e }} {% f %}",
        "def f(x):\n    return x ** 2  # 1234567890 3.14159 1,000,000\n\n\nprint(f(2))",
        "It's I'LL we've DON'T 'tis\r\nx  y   z",
    ]
    chats: list[list[tuple[str, str]]] = [[("user", text)] for text in texts]
    chats.append([("system", "Answer in one word."), ("user", say)])
    chats.append([("user", say), ("assistant", "perro"), ("user", asks)])
    chats.append([("system", "Be brief."), ("user", say), ("assistant", "perro"), ("user", asks)])
    chats.append(
        [("user", say), ("assistant", "perro\n\n1. a\n2. b "), ("user", asks), ("assistant", "chien"), chats[1][0]]
    )
    return [[{"role": role, "content": text} for role, text in chat] for chat in chats]


def prompts(tokenizer: PreTrainedTokenizerFast) -> list[tuple[Chat, str]]:
    """Those conversations that the student's format accepts, each with its prompt.

    Raises:
        DistillError: it accepts none.
    """
    taken = []
    for chat in conversations():
        try:
            text = render_chat(tokenizer, chat, add_generation_prompt=True)
        except DataError:  # refusing a role is its right
            continue
        taken.append((chat, text))
    if not taken:
        raise DistillError("the student's chat template renders none of ten conversations")
    return taken


def compare_with_student(model: str, file: Path, outtype: str, written: Vocabulary) -> list[str]:
    """Compare a GGUF file with the model folder it was made from.

    Args:
        model: the folder.
        file: the GGUF file.
        outtype: how its weights are stored.
        written: the vocabulary in the file, as `read_back` gives it.

    Returns:
        What was found equal, and what could not be compared, one line each.

    Raises:
        DistillError: something differs that must not: the template, the end-of-turn marker, a prompt's token ids, a
            weight by more than its rounding, or with float32 an answer.
    """
    tokenizer, stops = load_tokenizer(model), stops_of(model)
    stop = stops[0]
    _check_metadata(tokenizer, written, stop)
    asked = prompts(tokenizer)
    notes = [f"template and end-of-turn marker ({tokenizer.convert_ids_to_tokens(stop)!r}) are the student's"]
    if lost := [number for number in stops if number not in [written.ids.get(name) for name in _ENDS]]:
        notes.append(
            "GGUF has no place for more end markers: llama.cpp stops at "
            f"{', '.join(repr(tokenizer.convert_ids_to_tokens(number)) for number in lost)} only if it knows them"
        )
    notes.append(_compare_ids(tokenizer, written, asked, file))
    ours = load_model(model)
    _check_rotary(ours.config, file)
    try:
        theirs, note = _read_model(ours, file)
    except RuntimeError as error:
        raise DistillError(f"the GGUF file cannot be read back: {error}") from error
    except DistillError as error:
        notes.append(f"not compared: weights and answers; transformers cannot read this file back ({error.message})")
        return notes
    notes += note
    _compare_weights(ours, theirs, outtype)
    notes.append(_compare_answers(ours, theirs, tokenizer, asked, stop, exact=outtype == "f32"))
    return notes


def _read_model(ours: PreTrainedModel, file: Path) -> tuple[PreTrainedModel, list[str]]:
    """The model in a GGUF file, and a note where transformers does not read all of its settings."""
    rope: Mapping[str, Any] = getattr(ours.config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") == "default":
        try:
            return load_model(str(file)), []
        except RuntimeError:  # it takes some sizes for fixed: GPT-2's positions, Qwen3's heads
            pass
    # With the student's own settings, all weights must have their shapes.
    return load_model(str(file), config=ours.config), [
        "not compared: some settings in the file, which transformers does not read; the student's own were used"
    ]


def _check_rotary(config: PreTrainedConfig, file: Path) -> None:
    """Compare the scaling of rotary frequencies in the file with transformers' own.

    Raises:
        DistillError: it is missing, or another.
    """
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "llama3":
        return
    import numpy as np
    from gguf import GGUFReader
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    plain = rope["rope_theta"] ** -(np.arange(len(scaled)) / len(scaled))
    tensors = {one.name: one.data for one in GGUFReader(file).tensors}
    found = tensors.get("rope_freqs.weight")
    if found is None or found.shape != plain.shape or not np.allclose(plain / found, scaled, rtol=1e-4):
        raise DistillError("the GGUF file does not scale rotary embeddings as the student does")


def read_back(file: Path) -> Vocabulary:
    """Read the vocabulary in a GGUF file.

    Raises:
        DistillError: it is no GGUF file, or holds no byte-level vocabulary.
    """
    from gguf import GGUFReader

    try:
        fields = GGUFReader(file).fields
    except (OSError, ValueError) as error:
        raise DistillError(f"{file} cannot be read as GGUF: {error}") from None

    def value(key: str, default: Any = None) -> Any:
        return fields[f"tokenizer.{key}"].contents() if f"tokenizer.{key}" in fields else default

    named = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "unk": "unknown", "pad": "padding"}
    ids = {name: value(f"ggml.{key}_token_id") for name, key in named.items()}
    return Vocabulary(
        pre=value("ggml.pre", "") if value("ggml.model") == "gpt2" else f"({value('ggml.model')})",
        tokens=value("ggml.tokens", []),
        types=value("ggml.token_type", []),
        merges=value("ggml.merges", []),
        ids={name: number for name, number in ids.items() if number is not None},
        add_bos=bool(value("ggml.add_bos_token", False)),
        chat_template=value("chat_template"),
    )


def _check_metadata(tokenizer: PreTrainedTokenizerFast, written: Vocabulary, stop: int) -> None:
    if written.chat_template != default_template(tokenizer):
        raise DistillError("the chat template in the GGUF file is not the student's")
    ends = {name: written.ids.get(name) for name in _ENDS}
    if stop not in ends.values():
        raise DistillError(
            f"the student ends answers with token {stop} ({tokenizer.convert_ids_to_tokens(stop)!r}), but the GGUF "
            f"file has {ends}: it would never stop"
        )
    if written.add_bos and not prompts_begin_with_bos(tokenizer):
        raise DistillError("the GGUF file adds bos before each prompt, which the student was never trained on")


def _compare_ids(
    tokenizer: PreTrainedTokenizerFast, written: Vocabulary, asked: Sequence[tuple[Chat, str]], file: Path
) -> str:
    """Compare token ids, with the tokenizer that llama.cpp makes from the file and the one that transformers makes."""
    readers: dict[str, Any] = {}
    if written.pre in PRE_TOKENIZERS:
        again = rebuild(written)
        readers["rebuilt from its metadata"] = lambda text: again.encode(text, add_special_tokens=False).ids
    if written.pre in READ_BY_TRANSFORMERS or not readers:
        try:
            read = load_tokenizer(str(file))
            readers["read by transformers"] = lambda text: read(text, add_special_tokens=False)["input_ids"]
        except DistillError:
            return f"not compared: token ids; nothing here reads the tokenizer {written.pre!r}"
    for how, encode in readers.items():
        for number, (_, text) in enumerate(asked, 1):
            ids, other = tokenizer(text, add_special_tokens=False)["input_ids"], encode(text)
            if ids != other:
                at = next(n for n, pair in enumerate(_pairs(ids, other)) if pair[0] != pair[1])
                raise DistillError(
                    f"the GGUF file's tokenizer ({how}) differs in conversation {number} at token {at}: "
                    f"{_shown(tokenizer, ids, at)} in the student, {_shown(tokenizer, other, at)} in the file"
                )
    said = f"token ids of {len(asked)} conversations are equal, {' and '.join(readers)}"
    if written.pre not in READ_BY_TRANSFORMERS:
        said += f" (transformers does not follow the pre-tokenizer {written.pre!r} of a GGUF file; llama.cpp does)"
    return said


def _pairs(one: Sequence[int], other: Sequence[int]) -> Iterator[tuple[int | None, int | None]]:
    for n in range(max(len(one), len(other))):
        yield (one[n] if n < len(one) else None, other[n] if n < len(other) else None)


def _shown(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], at: int) -> str:
    return repr(tokenizer.decode(ids[at : at + 3])) if at < len(ids) else "the end"


def _compare_weights(ours: PreTrainedModel, theirs: PreTrainedModel, outtype: str) -> None:
    """Compare every weight, up to the rounding of its stored type: a matrix in the wrong order is never that near."""
    read: Mapping[str, Tensor] = theirs.state_dict()
    for name, weight in ours.state_dict().items():
        other = read.get(name)
        if other is None or other.shape != weight.shape:
            raise DistillError(f"the weight {name!r} came back from the GGUF file as {getattr(other, 'shape', None)}")
        if weight.dim() == 0 or not weight.is_floating_point():
            continue
        far = (weight.float() - other.float()).abs().amax(-1)
        limit = PRECISION[outtype] * weight.float().abs().amax(-1) + (6e-8 if outtype != "f32" else 0.0)
        if not bool((far <= limit).all()):  # false for NaN too
            raise DistillError(f"the weight {name!r} is not the student's in the GGUF file, by {far.max():.3g}")


def _compare_answers(
    ours: PreTrainedModel,
    theirs: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[tuple[Chat, str]],
    stop: int,
    *,
    exact: bool,
) -> str:
    room = positions_of(ours.config)
    texts = [
        text
        for _, text in asked
        if room is None or len(tokenizer(text, add_special_tokens=False)["input_ids"]) + ANSWER_TOKENS <= room
    ]
    if not texts:
        return f"weights are the student's; no conversation leaves room for an answer in its {room} positions"
    before, after = (_greedy(model, tokenizer, texts, stop) for model in (ours, theirs))
    differ = [n for n, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    if not differ:
        return f"weights are the student's, and {len(texts)} greedy answers are equal, token by token"
    n = differ[0]
    at = next(m for m, pair in enumerate(_pairs(before[n], after[n])) if pair[0] != pair[1])
    where = (
        f"conversation {n + 1} at token {at}: {_shown(tokenizer, before[n], at)} by the student, "
        f"{_shown(tokenizer, after[n], at)} by the file"
    )
    if exact:
        raise DistillError(f"the GGUF file answers differently from the student, in {where}")
    return (
        f"weights are the student's up to rounding, which changes {len(differ)} of {len(texts)} greedy answers, "
        f"the first in {where} (--outtype f32 keeps every bit)"
    )


def _greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], stop: int) -> list[list[int]]:
    """The likeliest answers, as token ids up to the end-of-turn marker."""
    import torch
    from transformers import GenerationConfig

    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    longest, pad = max(map(len, encoded)), tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (longest - len(one)) + one for one in encoded])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in encoded])
    config = GenerationConfig(max_new_tokens=ANSWER_TOKENS, do_sample=False, eos_token_id=stop, pad_token_id=pad)
    with torch.inference_mode():
        out = model.eval().generate(input_ids=ids, attention_mask=mask, generation_config=config)
    answers = [row[longest:].tolist() for row in out]
    return [answer[: answer.index(stop)] if stop in answer else answer for answer in answers]

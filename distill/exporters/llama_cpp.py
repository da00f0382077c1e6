"""llama.cpp's own converter, from the user's checkout, run with this Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from distill.errors import DistillError, UsageError


def convert_with_llama_cpp(checkout: Path, model: Path, file: Path, name: str, outtype: str) -> None:
    """Convert a model folder to GGUF.

    Args:
        checkout: a folder that holds llama.cpp's `convert_hf_to_gguf.py`.
        model: the model folder.
        file: the GGUF file to write.
        name: the model's name in its metadata.
        outtype: how weights are stored.

    Raises:
        UsageError: the checkout has no converter.
        DistillError: the converter failed; its output is shown.
    """
    script = checkout.expanduser() / "convert_hf_to_gguf.py"
    if not script.is_file():
        raise UsageError(f"{checkout} holds no convert_hf_to_gguf.py", "give --llama-cpp a checkout of llama.cpp")
    words = [sys.executable, str(script.resolve()), str(model.resolve())]
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

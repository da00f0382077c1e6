"""A student with a tokenizer of its own: the teacher with most of its merges cut off.

Token ids of a byte-level BPE follow its merges, so the first tokens are a tokenizer by themselves. Those that stay keep
their embeddings; what was one token is several of the shorter ones.

    python benchmarks/soft_labels/cut.py smollm2 student --tokens 8000
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def cut(teacher: str, folder: Path, tokens: int) -> Path:
    """Keep the first tokens of a model with a byte-level BPE tokenizer.

    Args:
        teacher: a model folder, Hub id or registered name.
        folder: where to save the student; left alone if it exists.
        tokens: how many stay.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distill.models.references import resolve_model
    from distill.plugins import make_plugin_manager

    if folder.exists():
        return folder
    path = resolve_model(teacher, make_plugin_manager())
    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    model.resize_token_embeddings(tokens)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    bpe = tokenizer["model"]
    bpe["vocab"] = {token: id for token, id in bpe["vocab"].items() if id < tokens}
    bpe["merges"] = [pair for pair in bpe["merges"] if "".join(pair) in bpe["vocab"]]
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=8000)
    given = parser.parse_args()
    print(cut(given.teacher, given.folder, given.tokens))

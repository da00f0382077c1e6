"""`distill export`: a trained student in the shape that others load."""

from __future__ import annotations

from pathlib import Path

import click

from distill.cli.options import json_option
from distill.cli.terminal import note, print_json
from distill.errors import UsageError
from distill.plugins import PluginManager


@click.command("export", short_help="Write a student for vLLM, llama.cpp or Ollama.")
@click.argument("run", metavar="RUN")
@click.option(
    "--to",
    type=click.Choice(["merged", "gguf", "ollama"]),
    required=True,
    help="merged: a folder of safetensors, LoRA adapters merged in, as transformers, vLLM and llama.cpp load it. "
    "gguf: one file for llama.cpp and all that is built on it. ollama: that, and a Modelfile.",
)
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="The folder to make.")
@click.option(
    "--outtype",
    type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
    help="With gguf and ollama: how weights are stored. f32 keeps every bit.  [default: f16]",
)
@click.option(
    "--llama-cpp",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="With gguf and ollama: convert with this checkout of llama.cpp. Needed for other architectures than llama, "
    "qwen2, qwen3, bloom and gpt2, and for tokenizers that are no byte-level BPE.",
)
@json_option
@click.pass_obj
def command(
    manager: PluginManager, run: str, to: str, out: Path, outtype: str | None, llama_cpp: Path | None, as_json: bool
) -> None:
    """Write the student of RUN to DIR, to be loaded without distill.

    DIR holds the weights, the tokenizer with the chat format of the training, and the end-of-turn marker at which
    answers stop. It appears whole or not at all.

    A GGUF file is read back before it appears: its chat template, end-of-turn marker, the token ids of ten
    conversations, its weights and its greedy answers are compared with the student's, and so are the prompts that
    Ollama's template gives. What differs is an error; what rounding changes, or nothing here can compare, is said.

    \b
        distill export run --to gguf --outtype q8_0 --out student-gguf
        distill export run --to ollama --out student && ollama create student -f student/Modelfile
    """
    if to == "merged" and (outtype is not None or llama_cpp is not None):
        raise UsageError(
            "--outtype and --llama-cpp go with --to gguf or ollama", "merged keeps the weights as they are"
        )
    from distill.exporters import export_gguf, export_merged, export_ollama

    if to == "merged":
        made = export_merged(run, out, manager)
    else:
        export = export_gguf if to == "gguf" else export_ollama
        made = export(run, out, manager, outtype=outtype or "f16", llama_cpp=llama_cpp, note=note)
    size = sum(path.stat().st_size for path in made.files)
    if as_json:
        files = [str(path.relative_to(out)) for path in made.files]
        print_json({"out": str(out), "to": to, "files": files, "bytes": size, "notes": list(made.notes)})
        return
    for line in made.notes:
        note(line)
    note(f"{out}: {len(made.files)} files, {size / 1e6:.0f} MB")

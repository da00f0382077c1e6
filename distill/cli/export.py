"""`distill export`: a trained student in the shape that others load."""

from __future__ import annotations

from pathlib import Path

import click

from distill.cli.completion import names_of, runs
from distill.cli.options import json_option
from distill.cli.terminal import note, print_json
from distill.errors import UsageError
from distill.options import parse_pairs
from distill.pages.environment import counted
from distill.plugins import PluginManager


@click.command("export", short_help="Write a student for vLLM, llama.cpp or Ollama.")
@click.argument("run", metavar="RUN|DATA", shell_complete=runs)
@click.option(
    "--to",
    required=True,
    shell_complete=names_of("exporter"),
    metavar="NAME",
    help="The exporter. merged: a folder of safetensors, LoRA adapters merged in, for transformers, vLLM and "
    "llama.cpp. gguf: one file for llama.cpp and programs built on it. ollama: the same, and a Modelfile. "
    "hub: a repository on the Hugging Face Hub. Or a plugin's.",
)
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="The folder to create.")
@click.option(
    "--exporter-option",
    "-O",
    "pairs",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the exporter (`distill plugins --options` lists them); may be repeated.",
)
@click.option("--outtype", metavar="TYPE", help="With gguf and ollama, short for -O outtype=TYPE.")
@click.option("--llama-cpp", metavar="PATH", help="With gguf and ollama, short for -O llama_cpp=PATH.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the student.")
@json_option
@click.pass_obj
def command(
    manager: PluginManager,
    run: str,
    to: str,
    out: Path,
    pairs: tuple[str, ...],
    outtype: str | None,
    llama_cpp: str | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Write the student of RUN to DIR, to be loaded without distill; or publish the transcripts in the file DATA.

    DIR contains the weights, the tokenizer with the chat format used in training, and the end-of-turn marker at which
    answers stop. It appears whole or not at all.

    A GGUF file is stored as f16, or with -O outtype= as f32 (keeps every bit), bf16 or q8_0. It is read back before it
    appears: its chat template, end-of-turn marker, the token ids of ten conversations, its weights and its greedy
    answers are compared with the student's, and so are the prompts that Ollama's template gives. A difference is an
    error; what rounding changes, or what cannot be compared here, is listed.

    --to hub uploads the student with its model card, or transcripts with a data card, behind your own token;
    -O dry_run=true only writes DIR and lists what would go.

    -O llama_cpp=PATH converts with a checkout of llama.cpp: needed for other architectures than llama, qwen2, qwen3,
    bloom and gpt2, and for tokenizers other than byte-level BPE.

    \b
        distill export run --to gguf -O outtype=q8_0 --out student-gguf
        distill export run --to ollama --out student && ollama create student -f student/Modelfile
        distill export transcripts.jsonl --to hub -O repo=me/spanish-answers --out to-upload
    """
    options = parse_pairs(pairs, "-O")
    for key, value in (("outtype", outtype), ("llama_cpp", llama_cpp)):
        if value is None:
            continue
        if key in options:
            raise UsageError(f"{key} is given twice", f"leave --{key.replace('_', '-')} or -O {key}=… out")
        options[key] = value
    from distill.exporters import export

    made = export(run, to, out, manager, options, trust_remote_code=trust_remote_code, note=note)
    size = sum(path.stat().st_size for path in made.files)
    if as_json:
        files = [str(path.relative_to(out)) for path in made.files]
        print_json({"out": str(out), "to": to, "files": files, "bytes": size, "notes": list(made.notes)})
        return
    for line in made.notes:
        note(line)
    note(f"{out}: {counted(len(made.files), 'file')}, {size / 1e6:.0f} MB")

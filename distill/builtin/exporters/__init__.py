"""Built-in exporters: a merged folder, one GGUF file, a GGUF file for Ollama, a repository on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import distill
from distill import ExporterSpec, ExportJob, NoOptions, hookimpl
from distill.builtin.exporters import hub


@dataclass(frozen=True, slots=True)
class GGUFOptions:
    """How the weights are stored, and who converts them.

    Attributes:
        outtype: how matrices are stored; f32 keeps every bit.
        llama_cpp: a checkout of llama.cpp, to convert with its own converter. Needed for other architectures than
            llama, qwen2, qwen3, bloom and gpt2, and for tokenizers other than byte-level BPE.
    """

    outtype: Literal["f32", "f16", "bf16", "q8_0"] = "f16"
    llama_cpp: str | None = None


class MergedExporter:
    """Copies safetensors, tokenizer and chat template; adapters are merged into the weights already."""

    def __init__(self, options: NoOptions):
        pass

    def export(self, job: ExportJob) -> Sequence[str]:
        """Copy the student; see `distill.Exporter`."""
        import shutil

        shutil.copytree(job.model, job.out, dirs_exist_ok=True)
        return ()


class GGUFExporter:
    """Writes one GGUF file, and compares it with the student."""

    def __init__(self, options: GGUFOptions):
        self.options = options

    def export(self, job: ExportJob) -> Sequence[str]:
        """Write the file; see `distill.Exporter`."""
        return distill.write_gguf(job, self.options.outtype, self.options.llama_cpp).notes


class OllamaExporter:
    """Writes one GGUF file and a Modelfile."""

    def __init__(self, options: GGUFOptions):
        self.options = options

    def export(self, job: ExportJob) -> Sequence[str]:
        """Write both; see `distill.Exporter`."""
        gguf = distill.write_gguf(job, self.options.outtype, self.options.llama_cpp)
        return [*gguf.notes, *distill.write_modelfile(job, gguf)]


@hookimpl
def register_exporters() -> list[ExporterSpec]:
    """Offer `merged`, `gguf`, `ollama` and `hub`."""
    return [
        ExporterSpec("merged", "a folder of safetensors for transformers, vLLM and llama.cpp", MergedExporter),
        ExporterSpec("gguf", "one file for llama.cpp and all that is built on it", GGUFExporter, GGUFOptions),
        ExporterSpec("ollama", "a GGUF file and its Modelfile", OllamaExporter, GGUFOptions),
        ExporterSpec(
            "hub", "a repository on the Hugging Face Hub: -O repo=OWNER/NAME", hub.HubExporter, hub.HubOptions
        ),
    ]

"""An exporter for distill: the student's safetensors in 16 bits, half the size, read back and compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import distill


@dataclass(frozen=True)
class HalfOptions:
    """Attributes:
    dtype: `bfloat16`, which holds every number that float32 does, or `float16`, which rounds less.
    shard_size: the most bytes of one file, such as `2GB`.
    """

    dtype: Literal["bfloat16", "float16"] = "bfloat16"
    shard_size: str = "5GB"


class HalfExporter:
    """Writes a folder that transformers and vLLM load, in 16 bits."""

    def __init__(self, options: HalfOptions):
        self.options = options

    def export(self, job: distill.ExportJob) -> Sequence[str]:
        """Write the folder into `job.out`; see `distill.Exporter`."""
        import torch

        dtype = getattr(torch, self.options.dtype)
        job.note(f"writing {self.options.dtype}")
        student = distill.load_model(str(job.model))
        half = distill.load_model(str(job.model)).to(dtype)
        half.save_pretrained(job.out, max_shard_size=self.options.shard_size)
        written = {path.name for path in job.out.iterdir()}
        for file in job.model.iterdir():  # tokenizer, chat template, model card
            if file.name not in written and not file.name.startswith("model"):
                shutil.copy2(file, job.out)
        job.note("reading it back, and comparing it with the student")
        weights, read = student.state_dict(), distill.load_model(str(job.out)).state_dict()
        worst = 0.0
        for name, weight in weights.items():
            if not bool(torch.equal(read[name].to(dtype), weight.to(dtype))) or not bool(read[name].isfinite().all()):
                raise distill.DistillError(
                    f"the weight {name!r} does not fit into {self.options.dtype}", "export with -O dtype=bfloat16"
                )
            if weight.numel():
                difference = (read[name].float() - weight.float()).abs().max()
                worst = max(worst, float(difference / weight.float().abs().max().clamp(min=1e-30)))
        return [f"{len(weights)} weights are the student's up to rounding: at most {worst:.1e} of a weight's largest"]


@distill.hookimpl
def register_exporters() -> list[distill.ExporterSpec]:
    """Offer `distill export RUN --to half`."""
    summary = "a folder of safetensors in 16 bits: half the size"
    return [distill.ExporterSpec("half", summary, build=HalfExporter, options=HalfOptions)]

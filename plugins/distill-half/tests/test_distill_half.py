"""The exported folder is the student in 16 bits, and says so."""

from __future__ import annotations

import distill_half
import pytest
import torch
from distill_half import HalfExporter, HalfOptions

import distill
from distill.testing import check_exporter, load_plugin, tiny_student


@pytest.fixture
def job(tmp_path):
    (tmp_path / "out").mkdir()
    return distill.ExportJob(tiny_student(tmp_path / "model"), tmp_path / "out", "tiny", lambda text: None)


def test_it_keeps_the_contract_of_exporters():
    check_exporter(lambda: HalfExporter(HalfOptions()))


def test_it_registers_its_name():
    spec = load_plugin(distill_half).exporters.get("half")
    assert isinstance(spec.build(spec.options()), distill.Exporter)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_weight_is_the_students_in_16_bits(job, dtype):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    notes = HalfExporter(HalfOptions(dtype)).export(job)
    assert "weights are the student's up to rounding" in notes[0]
    read = AutoModelForCausalLM.from_pretrained(job.out, dtype="auto")
    student = AutoModelForCausalLM.from_pretrained(job.model)
    for name, weight in student.state_dict().items():
        assert torch.equal(read.state_dict()[name], weight.to(getattr(torch, dtype))), name
    assert (
        AutoTokenizer.from_pretrained(job.out).chat_template == AutoTokenizer.from_pretrained(job.model).chat_template
    )


def test_large_models_are_cut_into_files(job):
    HalfExporter(HalfOptions(shard_size="50KB")).export(job)
    assert len(list(job.out.glob("*.safetensors"))) > 1


def test_a_weight_beyond_float16_is_refused(job):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.model)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 70000.0
    model.save_pretrained(job.model)
    with pytest.raises(distill.DistillError, match=r"up_proj\.weight' does not fit into float16"):
        HalfExporter(HalfOptions("float16")).export(job)
    assert HalfExporter(HalfOptions("bfloat16")).export(job)

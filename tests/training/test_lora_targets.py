"""Which weights get adapters on state-space models and mixtures of experts, and what is said of the others."""

from __future__ import annotations

import re

import pytest
import torch
from small_models import batch, tiny

from distill import UsageError
from distill.training import LoraSettings
from distill.training.lora import add_adapter, merge_adapter
from distill.training.lora_targets import choose_targets


@pytest.mark.parametrize(
    ("name", "modules", "said"),
    [
        ("llama", "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj", None),
        ("mamba", "in_proj", "dt_proj, out_proj, x_proj of its state-space blocks can have none"),
        ("mixtral", "k_proj o_proj q_proj v_proj", r"experts \(\d+% of the weights\) get none"),
        ("granitemoe", "k_proj o_proj q_proj v_proj", "--lora-targets names them: down_proj, gate_up_proj"),
        ("gpt_oss", "k_proj o_proj q_proj v_proj", "experts"),
        ("qwen2_moe", "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj", "experts"),  # it has shared ones
    ],
)
def test_what_gets_adapters_by_default(name, modules, said):
    model = tiny(name)
    chosen = choose_targets(model, LoraSettings())
    assert " ".join(chosen.modules) == modules and not chosen.parameters
    assert chosen.note is None if said is None else re.search(said, chosen.note)
    adapted = add_adapter(model, LoraSettings(r=2), ())
    trained = [at for at, weight in adapted.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in at and "router" not in at and "experts." not in at for at in trained)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_experts_that_are_named(name):
    """The fused weights of all experts; merged, the model gives the logits that it gave with its adapters."""
    model, tokens = tiny(name), batch()
    lora = LoraSettings(r=2, target_modules=("q_proj", "gate_up_proj", "down_proj"))
    adapted = add_adapter(model, lora, ())
    for at, weight in adapted.named_parameters():
        if "lora_B" in at:
            torch.nn.init.normal_(weight, std=0.1)
    assert any("experts" in at for at, weight in adapted.named_parameters() if weight.requires_grad)
    adapted.eval()
    with torch.no_grad():
        before = adapted(**tokens).logits
        after = merge_adapter(adapted)(**tokens).logits
    assert torch.allclose(before, after, atol=1e-4)
    with pytest.raises(UsageError, match="--lora-dropout cannot be applied to experts"):
        choose_targets(tiny(name), LoraSettings(target_modules=("gate_up_proj",), dropout=0.1))


@pytest.mark.parametrize(
    ("name", "target", "complaint"),
    [
        ("mamba", "out_proj", "'out_proj' cannot have an adapter: the kernels of a state-space block read its weights"),
        ("mamba", "conv1d", "the student has no layer 'conv1d'"),
        ("llama", "norm", "the student has no layer 'norm'"),
    ],
)
def test_layers_that_can_have_none(name, target, complaint):
    with pytest.raises(UsageError, match=complaint) as caught:
        choose_targets(tiny(name), LoraSettings(target_modules=(target,)))
    assert "in_proj" in caught.value.hint or "q_proj" in caught.value.hint

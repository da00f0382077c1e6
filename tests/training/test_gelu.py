"""GELU spelled out becomes one kernel, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from small_models import batch, loss_and_gradients, tiny
from transformers.activations import ACT2FN

from distill.training.kernels.gelu import fused_gelu


@pytest.mark.parametrize("name", ["bloom", "gpt2", "gptj", "phi"])
def test_loss_and_gradients_stay_the_same(name):
    model = tiny(name)
    plain = loss_and_gradients(model, **batch())
    with fused_gelu(model) as replaced:
        assert replaced == 2  # one a layer
        ours = loss_and_gradients(model, **batch())
    assert ours[0] == pytest.approx(plain[0], rel=1e-6)
    for parameter, gradient in ours[1].items():
        torch.testing.assert_close(gradient, plain[1][parameter], atol=1e-6, rtol=1e-5)
    assert loss_and_gradients(model, **batch())[0] == plain[0]
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", sorted(ACT2FN))
def test_only_the_tanh_form_is_replaced(name):
    layer = torch.nn.Sequential(ACT2FN[name])
    with fused_gelu(layer) as replaced:
        assert replaced == (name in ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_nearer_to_what_float32_gives(dtype):
    layer = ACT2FN["gelu_new"]
    x = torch.linspace(-4, 4, 101, dtype=dtype)
    exact = layer(x.float())
    long_way = (layer(x).float() - exact).abs().max()
    with fused_gelu(layer):
        assert layer(x).dtype == dtype
        assert (layer(x).float() - exact).abs().max() <= long_way

"""The gradient of dynamic fine-tuning, and the contract of losses."""

from __future__ import annotations

import distill_dft
import torch

from distill.testing import check_loss, load_plugin


def test_it_keeps_the_contract_of_losses():
    check_loss(distill_dft.DynamicFineTuning)


def test_it_registers_its_name():
    assert load_plugin(distill_dft).losses.get("dft").soft_labels is None


def test_its_gradient_is_the_cross_entropys_times_the_probability():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 9, requires_grad=True), torch.tensor([1, 8, 0, 3, 3])
    value = distill_dft.DynamicFineTuning().sum(logits * 1.0, labels, None)
    (gradient,) = torch.autograd.grad(value, logits)
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    (wanted,) = torch.autograd.grad(plain, logits)
    weights = logits.detach().softmax(-1).gather(1, labels[:, None])
    torch.testing.assert_close(gradient, weights * wanted)


def test_a_certain_token_counts_fully_and_an_unlikely_one_hardly():
    logits = torch.tensor([[20.0, 0.0], [0.0, 20.0]])
    loss = distill_dft.DynamicFineTuning()
    assert loss.sum(logits[1:].clone(), torch.tensor([0]), None) < 1e-6

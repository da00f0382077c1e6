"""A tied table's gradient is made once, and is the same to all who watch it."""

from __future__ import annotations

import pytest
import torch
from small_models import VOCABULARY, batch, loss_and_gradients, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from distill import IGNORE_INDEX, fast_training
from distill.training.kernels.tied_embedding import one_gradient

TIED = ["bloom", "gpt2", "gemma2", "mpt", "opt"]


class Tables(TorchDispatchMode):
    """Counts the tables that are made while it is on: results of the table's shape that are new memory."""

    def __init__(self, table: torch.Tensor):
        super().__init__()
        self.table, self.made = table, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.layout == torch.strided and out.shape == self.table.shape:
            known = {arg.untyped_storage().data_ptr() for arg in args if _has_memory(arg)}
            if out.untyped_storage().data_ptr() not in known:
                self.made[func.name()] = self.made.get(func.name(), 0) + 1
        return out


def _has_memory(arg) -> bool:
    return isinstance(arg, torch.Tensor) and arg.layout == torch.strided


def backward(model, **inputs):
    """One training pass; gives which operations made a table in its backward half."""
    model.zero_grad()
    loss = model(**inputs, use_cache=False).loss
    with Tables(model.get_input_embeddings().weight) as tables:
        loss.backward()
    return tables.made


@pytest.mark.parametrize("name", TIED)
def test_the_gradient_of_the_table_is_made_once(name):
    model = tiny(name)
    table = model.get_input_embeddings().weight
    assert table is model.get_output_embeddings().weight
    plain = backward(model, **batch())
    assert plain.pop("aten::embedding_dense_backward") == 1
    assert plain.pop("aten::add.Tensor") == 1
    before = table.grad.clone()
    with fast_training(model):
        assert backward(model, **batch()) == plain  # the projection's; BLOOM and MPT have others of this shape
    torch.testing.assert_close(table.grad, before, atol=1e-5, rtol=1e-5)


def test_it_is_right_on_the_plain_path_and_without_a_projection():
    model = tiny("bloom")
    plain = loss_and_gradients(model, **batch())
    model.zero_grad()
    model.transformer(batch()["input_ids"])[0].square().sum().backward()
    looked_up = model.get_input_embeddings().weight.grad.clone()
    with one_gradient(model) as active:
        assert active
        ours = loss_and_gradients(model, **batch())
        model.zero_grad()
        model.transformer(batch()["input_ids"])[0].square().sum().backward()
    for name, gradient in ours[1].items():
        torch.testing.assert_close(gradient, plain[1][name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, looked_up, atol=1e-5, rtol=1e-5)


def test_whoever_watches_the_gradient_sees_the_sum_once():
    model = tiny("bloom")
    table, seen = model.get_input_embeddings().weight, []
    plain = loss_and_gradients(model, **batch())[1]["transformer.word_embeddings.weight"]
    table.register_hook(lambda gradient: seen.append(gradient.clone()))
    table.register_post_accumulate_grad_hook(lambda table: seen.append(table.grad.clone()))
    with fast_training(model):
        seen.clear()  # of the proof
        loss_and_gradients(model, **batch())
        (asked,) = torch.autograd.grad(model(**batch()).loss, table)
    for gradient in (*seen, asked):
        torch.testing.assert_close(gradient, plain, atol=1e-5, rtol=1e-5)
    assert len(seen) == 3


def test_gradients_of_several_passes_add_up():
    model, parts = tiny("gemma2"), [batch(seed=seed) for seed in (1, 2, 3)]

    def accumulated():
        model.zero_grad()
        for part in parts:
            model(**part, use_cache=False).loss.backward()
        return model.get_input_embeddings().weight.grad.clone()

    plain = accumulated()
    with fast_training(model):
        torch.testing.assert_close(accumulated(), plain, atol=1e-5, rtol=1e-5)


def test_the_padding_row_of_an_embedding_keeps_its_rule():
    """OPT's lookups of the padding token have no gradient."""
    model, inputs = tiny("opt"), batch()
    assert model.get_input_embeddings().padding_idx == 0
    inputs["input_ids"][1, 12:] = 0
    plain = loss_and_gradients(model, **inputs)[1]
    with fast_training(model):
        ours = loss_and_gradients(model, **inputs)[1]
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["untied", "frozen", "16 bits", "a projection of its own", "scaled by frequency"])
def test_where_it_does_not_fit_nothing_changes(kind):
    model = tiny("llama" if kind == "untied" else "bloom")
    embedding, project = model.get_input_embeddings(), model.get_output_embeddings()
    if kind == "frozen":
        embedding.weight.requires_grad_(False)
    elif kind == "16 bits":
        model.to(torch.bfloat16)
    elif kind == "a projection of its own":
        forward = project.forward
        project.forward = lambda hidden: forward(hidden) * 2
    elif kind == "scaled by frequency":
        embedding.scale_grad_by_freq = True
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with one_gradient(model) as active:
        assert not active
        assert hooks == [len(module._forward_hooks) for module in model.modules()]


def test_a_model_whose_gradient_differs_is_left_alone():
    """A lookup that does otherwise as soon as its gradient is to be sparse."""
    model = tiny("gpt2")
    embedding = model.get_input_embeddings()
    forward = embedding.forward
    embedding.forward = lambda ids: forward(ids) * (2 if embedding.sparse else 1)
    with one_gradient(model) as active:
        assert not active


def test_the_model_is_as_it_was_even_after_a_failed_pass():
    model = tiny("bloom")
    embedding, project = model.get_input_embeddings(), model.get_output_embeddings()
    table, names = embedding.weight, [name for name, _ in model.named_parameters()]

    def fail(module, args, output):
        assert embedding.weight is table and project.weight is table  # between the calls too
        raise ZeroDivisionError

    with one_gradient(model):
        handle = model.transformer.h[1].register_forward_hook(fail)
        with pytest.raises(ZeroDivisionError):
            model(**batch())
        handle.remove()
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[VOCABULARY + 5]]), labels=torch.tensor([[IGNORE_INDEX]]))
        assert embedding.weight is table and not embedding.sparse
        assert backward(model, **batch())
    assert embedding.weight is table and project.weight is table and not embedding.sparse
    assert [name for name, _ in model.named_parameters()] == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_generation_within_training_stays_as_it_is():
    model = tiny("gpt2").eval()
    ids = batch()["input_ids"][:1]
    with torch.no_grad():
        before = model(ids, past_key_values=DynamicCache()).logits
        with one_gradient(model):
            assert torch.equal(model(ids, past_key_values=DynamicCache()).logits, before)

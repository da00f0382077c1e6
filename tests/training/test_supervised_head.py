"""The supervised-only head gives the loss and the gradients of the plain path, for every architecture."""

from __future__ import annotations

import logging

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ARCHITECTURES, VOCABULARY, batch, loss_and_gradients, tiny
from torch.nn.functional import cross_entropy
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from distill import IGNORE_INDEX
from distill.training.kernels import supervised_head as head
from distill.training.kernels.cross_entropy import summed_cross_entropy
from distill.training.kernels.supervised_head import supervised_only


def assert_same(one, other):
    """To 1e-5, as the plain path's own rounding is."""
    assert one[0] == pytest.approx(other[0], rel=1e-6, abs=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text
        )


@pytest.fixture(params=[None, 3 * VOCABULARY], ids=["at once", "in chunks"])
def chunks(request, monkeypatch):
    """Enough room for all logits, or for three positions."""
    if request.param:
        monkeypatch.setattr(head, "CHUNK_LOGITS", request.param)


def check(model, **more):
    """Compare both paths on one model; gives what the supervised one returned."""
    plain = loss_and_gradients(model, **batch(), **more)
    with supervised_only(model) as active:
        assert active
        ours = loss_and_gradients(model, **batch(), **more)
    assert_same(ours, plain)
    assert ours[2].logits is None
    return ours


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_and_gradients_are_the_plain_paths(name, chunks):
    check(tiny(name, **ARCHITECTURES[name]))


@pytest.mark.slow
def test_every_causal_architecture_agrees_or_falls_back():
    """All that can be made tiny without knowing them; decoders with a loss of their own keep it."""
    agree, fall_back = set(), set()
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            model = tiny(name)
            plain = loss_and_gradients(model, **batch())
        except Exception:
            continue  # needs pictures, a larger config, …
        with supervised_only(model) as active:
            ours = loss_and_gradients(model, **batch())
        (agree if active else fall_back).add(name)
        if name not in ("rwkv", "big_bird"):  # the plain path's own gradients change from run to run
            assert_same(ours, plain)
    assert len(agree) >= 110, sorted(agree)
    assert len(fall_back) <= 15, sorted(fall_back)


def test_no_full_logits_are_ever_made(chunks):
    """The output embedding sees what counts, and no more of it than one chunk at a time."""
    model, seen = tiny("llama"), []
    inputs = batch()
    counting = int((inputs["labels"][:, 1:] != IGNORE_INDEX).sum())
    with supervised_only(model):
        model.lm_head.register_forward_hook(lambda module, args, logits: seen.append(logits.shape[:-1].numel()))
        loss_and_gradients(model, **inputs)
    again = counting - min(counting, head.CHUNK_LOGITS // VOCABULARY)  # for the gradient
    assert sum(seen) - again == counting < inputs["labels"].numel() / 2
    assert max(seen) == min(counting, head.CHUNK_LOGITS // VOCABULARY)


def test_the_loss_is_divided_by_the_tokens_of_the_whole_step(chunks):
    check(tiny("bloom"), num_items_in_batch=torch.tensor(77))
    check(tiny("bloom"), num_items_in_batch=77)


def test_a_batch_without_labels_counts_nothing():
    model, inputs = tiny("llama"), batch()
    inputs["labels"] = torch.full_like(inputs["labels"], IGNORE_INDEX)
    with supervised_only(model):
        loss, gradients, _ = loss_and_gradients(model, **inputs, num_items_in_batch=10)
    assert loss == 0 and gradients.keys() == dict(model.named_parameters()).keys()
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant, chunks):
    model = tiny("llama")
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    check(model)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "lm_head"]])
def test_lora_on_the_layers_and_on_the_head(targets, chunks):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    assert check(model)[1].keys() == {name for name, p in model.named_parameters() if p.requires_grad}


def test_bfloat16_is_as_close_as_bfloat16_is():
    model = tiny("gemma2", final_logit_softcapping=30.0).to(torch.bfloat16)
    plain = loss_and_gradients(model, **batch())
    with supervised_only(model) as active:
        assert active
        ours = loss_and_gradients(model, **batch())
    assert ours[0] == pytest.approx(plain[0], rel=1e-2)
    for name, gradient in ours[1].items():
        assert (gradient - plain[1][name]).norm() <= 0.05 * plain[1][name].norm(), name


def test_evaluation_and_generation_stay_as_they_are():
    model, inputs = tiny("llama").eval(), batch()
    with torch.no_grad():
        before = model(**inputs)
        words = model.generate(inputs["input_ids"][:1], max_new_tokens=3, do_sample=False)
        with supervised_only(model):
            after = model(**inputs)
            assert torch.equal(model.generate(inputs["input_ids"][:1], max_new_tokens=3, do_sample=False), words)
    assert torch.equal(before.logits, after.logits) and torch.equal(before.loss, after.loss)


def test_the_model_and_the_random_state_are_left_as_they_were():
    model = tiny("llama")
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]
    state, loss = torch.get_rng_state(), model.loss_function
    with pytest.raises(ZeroDivisionError), supervised_only(model):
        assert model.loss_function != loss
        raise ZeroDivisionError
    assert hooks == [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()]
    assert model.loss_function is loss and model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", ["its own loss", "another order", "no head"])
def test_a_model_that_does_otherwise_takes_the_plain_path_and_it_is_said(kind, caplog):
    model = tiny("llama")
    if kind == "its own loss":
        model.loss_function = lambda logits, labels, vocab_size, **kwargs: logits.square().mean()
    elif kind == "another order":  # logits of a position that depend on other positions
        forward = model.lm_head.forward
        model.lm_head.forward = lambda hidden: forward(hidden) + forward(hidden).mean(1, keepdim=True)
    else:
        model.get_output_embeddings = lambda: None
    plain = loss_and_gradients(model, **batch())
    with caplog.at_level(logging.WARNING, "distill"), supervised_only(model) as active:
        assert not active
        assert_same(loss_and_gradients(model, **batch()), plain)
    assert "every position is projected on the vocabulary: LlamaForCausalLM" in caplog.text
    assert caplog.text.count("\n") == 1


def test_a_head_whose_tail_is_unknown_is_projected_at_once(monkeypatch):
    """Soft-capping that the config does not tell of: exact, but not in chunks."""
    monkeypatch.setattr(head, "CHUNK_LOGITS", 3 * VOCABULARY)
    model = tiny("gemma2", final_logit_softcapping=2.0)
    monkeypatch.setattr(head, "find_tail", lambda raw, logits, config: None)
    check(model)


def test_tails_are_found_from_what_the_model_does():
    raw = torch.randn(2, 8, 50) * 40
    config = transformers.LlamaConfig()
    assert torch.equal(head.find_tail(raw, raw, config)(raw), raw)
    torch.testing.assert_close(head.find_tail(raw, raw / 3, config)(raw), raw / 3)
    capped = torch.tanh(raw / 30) * 30
    assert head.find_tail(raw, capped, config) is None
    config.final_logit_softcapping = 30.0
    torch.testing.assert_close(head.find_tail(raw, capped, config)(raw), capped)
    assert head.find_tail(raw, raw[..., :40], config) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 7), st.integers(1, 40), st.floats(0.1, 60), st.integers(0, 10**6))
def test_the_cross_entropy_is_torchs(rows, words, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, words, generator=generator) * scale
    labels = torch.randint(0, words, (rows,), generator=generator)
    results = []
    for function in (lambda x: summed_cross_entropy(x, labels), lambda x: cross_entropy(x, labels, reduction="sum")):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf * 1.0)
        (gradient,) = torch.autograd.grad(loss * 0.5, leaf)
        results.append((loss.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        kept = logits.clone()
        torch.testing.assert_close(summed_cross_entropy(kept, labels), results[1][0], rtol=1e-5, atol=1e-5)
    assert torch.equal(kept, logits)


def test_contexts_do_not_nest_twice():
    model = tiny("llama")
    with supervised_only(model) as outer, supervised_only(model) as inner:
        assert outer and not inner
        assert model(**batch()).logits is None
    assert model(**batch()).logits is not None

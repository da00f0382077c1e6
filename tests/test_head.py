"""The supervised-only head gives the loss and the gradients of the plain path, for every architecture."""

from __future__ import annotations

import logging

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from distill import IGNORE_INDEX, supervised_only
from distill.train import head
from distill.train.cross_entropy import summed_cross_entropy

VOCABULARY = 96

# One name a thing across architectures; a config takes those it has.
SMALL = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "is_decoder": True,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("attention_hidden_size", "sliding_window"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "rotary_dim", "time_step_rank"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("head_dim", "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("v_head_dim", "state_size"), 8),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    "layer_types": None,
}  # fmt: skip

# Those that people fine-tune, with what is special about their heads.
ARCHITECTURES = {
    "bloom": {}, "gpt2": {}, "llama": {}, "qwen2": {}, "qwen3": {}, "gpt_neox": {}, "opt": {}, "phi": {}, "phi3": {},
    "mistral": {}, "stablelm": {}, "gptj": {}, "olmo2": {}, "starcoder2": {}, "smollm3": {}, "glm4": {}, "mpt": {},
    "gemma": {},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25},
    "mixtral": {"output_router_logits": True, "router_aux_loss_coef": 0.5},
    "qwen3_moe": {"output_router_logits": True, "router_aux_loss_coef": 0.5},
    "granitemoe": {"logits_scaling": 4.0},
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True, "head_dim": None},
    "mamba": {"layer_types": None},
}  # fmt: skip


def tiny(name: str, **special):
    """A random model of a few thousand weights, without dropout, in training mode."""
    kind = transformers.CONFIG_MAPPING[name]
    defaults = kind()
    words = {key: value for key, value in SMALL.items() if hasattr(defaults, key)} | special
    words |= {key: 0.0 for key in vars(defaults) if "dropout" in key or key.endswith("pdrop")}
    if name in ("falcon", "mamba"):  # properties without a setter
        words = {key: value for key, value in words.items() if key not in ("head_dim", "layer_types")}
    config = kind(**words)
    with torch.device("meta"):
        weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    assert weights < 10_000_000, f"{name} has no tiny config here"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(0, 0.4)  # logits large enough for soft-capping to show
    return model.train()


def batch(rows: int = 3, length: int = 16, seed: int = 1) -> dict:
    """Padded rows; a third of the tokens count, the first of a row and the last among them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.6, IGNORE_INDEX)
    labels[:, 0], labels[:, -1] = ids[:, 0], ids[:, -1]
    attention = torch.ones_like(ids)
    attention[1, 12:], labels[1, 12:] = 0, IGNORE_INDEX
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


def loss_and_gradients(model, **inputs):
    """One training pass: the loss, every gradient, and the model's outputs."""
    torch.manual_seed(2)
    model.zero_grad()
    outputs = model(**inputs, use_cache=False)
    outputs.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return float(outputs.loss.detach()), gradients, outputs


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

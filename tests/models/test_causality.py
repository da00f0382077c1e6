"""Only causal models are loaded: encoders, encoder-decoders, image models and pipelines are refused by name."""

from __future__ import annotations

import json

import pytest

from distill import DistillError, UsageError
from distill.models.load import empty_model, load_model
from distill.models.references import resolve_model
from distill.testing import tiny_bloom
from distill.testing.students import tiny_llama
from distill.testing.tokenizers import bloom_tokenizer

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def saved(model, folder):
    model.save_pretrained(folder)
    return str(folder)


def test_causal_models_load(tmp_path):
    load_model(saved(tiny_bloom()[0], tmp_path / "bloom"))
    load_model(saved(tiny_llama(bloom_tokenizer()), tmp_path / "llama"))


def test_an_encoder_is_refused(tmp_path):
    from transformers import BertConfig, BertLMHeadModel

    ref = saved(BertLMHeadModel(BertConfig(vocab_size=50, **SMALL)), tmp_path / "bert")
    with pytest.raises(DistillError, match="is not causal \\(bert\\): its predictions depend on later tokens"):
        load_model(ref)


@pytest.mark.parametrize("load", [load_model, empty_model])
def test_an_encoder_decoder_is_refused(load, tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ref = saved(T5ForConditionalGeneration(config), tmp_path / "t5")
    with pytest.raises(DistillError, match="is an encoder-decoder \\(t5\\)"):
        load(ref)


@pytest.mark.parametrize("load", [load_model, empty_model])
def test_an_image_model_is_refused(load, tmp_path):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(image_size=4, patch_size=2, **SMALL)
    ref = saved(ViTModel(config), tmp_path / "vit")
    with pytest.raises(DistillError, match="is not a causal language model"):
        load(ref)


def test_a_pipeline_is_refused(tmp_path, manager):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(UsageError, match="is a diffusers pipeline"):
        resolve_model(str(tmp_path), manager)

"""One context manager for all kernels; the names it replaces still work, with a warning."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from small_models import batch, loss_and_gradients, tiny

import distill
from distill.training.kernels.verification import few_tokens, trial_run


def test_it_says_what_is_in_effect():
    with distill.fast_training(tiny("bloom")) as active:
        assert (active.supervised_head, active.tied_embedding, active.fused_gelu) == (True, True, 2)
    with distill.fast_training(tiny("llama")) as active:
        assert (active.supervised_head, active.tied_embedding, active.fused_gelu) == (True, False, 0)


FAULTS = """
import resource
from distill.training.kernels.kept_memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * 2**25
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_memory() as kept:
    faults()
    print(kept, faults())
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc")
def test_memory_that_a_step_frees_is_kept_until_the_end():
    environ = {name: value for name, value in os.environ.items() if name[:6] not in ("MALLOC", "GLIBC_")}
    said = subprocess.check_output([sys.executable, "-c", FAULTS], env=environ, text=True).split()
    assert said[0] == "True" and int(said[1]) < 100
    assert int(said[2]) > 100, "afterwards pages come from the kernel again"
    tuned = environ | {"MALLOC_TRIM_THRESHOLD_": "131072"}
    assert subprocess.check_output([sys.executable, "-c", FAULTS], env=tuned, text=True).startswith("False")


def test_loss_and_gradients_are_the_plain_ones_and_nothing_is_left_behind():
    model = tiny("bloom")
    plain = loss_and_gradients(model, **batch())
    with distill.fast_training(model):
        ours = loss_and_gradients(model, **batch())
    assert ours[0] == pytest.approx(plain[0], rel=1e-6)
    for name, gradient in ours[1].items():
        torch.testing.assert_close(gradient, plain[1][name], atol=1e-5, rtol=1e-5)
    assert loss_and_gradients(model, **batch())[2].logits is not None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["supervised_only", "fused_gelu"])
def test_the_old_names_warn_and_work(name):
    with pytest.warns(DeprecationWarning, match=f"distill.{name} is deprecated: use distill.fast_training"):
        context = getattr(distill, name)
    with context(tiny("bloom")) as active:
        assert active


def test_a_trial_run_leaves_the_model_and_the_random_state_unchanged():
    model = tiny("llama")
    frozen = model.model.layers[0].eval()
    state = torch.get_rng_state()
    with torch.no_grad(), trial_run(model):
        assert not model.training
        assert model(**few_tokens(model)).loss.requires_grad
        torch.rand(1)
    assert model.training and not frozen.training
    assert torch.equal(torch.get_rng_state(), state)

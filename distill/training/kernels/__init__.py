"""Numerical code that replaces parts of torch and transformers while a student is trained.

`fast_training` is the one way in: a context manager around a training loop. Within it:

=================  ==================================  ===============================  ============================
kernel             what it changes                     where it falls back              how equality is verified
=================  ==================================  ===============================  ============================
supervised_head    only positions whose next label     no output embedding; a loss      loss and gradient at the
                   counts go through the LM head, in   function of the model's own;     LM head's input on 16 tokens,
                   chunks of 2**26 logits              a loss or gradient that          before training, both at
                                                       differs; evaluation and          once and in chunks
                                                       generation are not changed
cross_entropy      the logits' memory holds their      part of supervised_head          with it; tests compare it
                   gradient                                                             with torch's
tied_embedding     a table used as input and output    untied or frozen tables, 16      the table's gradient on
                   embedding gets one gradient,        bits, quantized or wrapped       16 tokens, before training
                   instead of two and their sum        modules, a gradient that
                                                       differs
gelu               the tanh form of GELU, spelled out  every other activation           values and gradients at 97
                   by a model, is one kernel                                            points, per module
kept_memory        glibc's malloc keeps what a step    another C library; malloc tuned  nothing is computed in
                   frees for the next one              by the environment               another way
=================  ==================================  ===============================  ============================

Equal means to rounding: 1e-5 in 32 bits, 2e-2 in 16 bits (`verification.tolerance`). Every fallback keeps the model's
own code; a fallback of the supervised head is logged, since it costs most.

What is touched in other libraries, and undone when the context ends:

* torch: forward hooks and pre-hooks on the model, its input and its output embedding; `module._parameters["weight"]` of
  both embeddings, for the time of their call (tied_embedding); `module.forward` of activations (gelu);
  `Embedding.sparse`, for the time of a lookup (tied_embedding).
* transformers: `model.loss_function` is set, and `model._loss_function` deleted to undo it (supervised_head); replaced
  only where it is `transformers.loss.loss_utils.ForCausalLMLoss`.
* glibc: `mallopt`, for the time of the training (kept_memory).
* elsewhere in distill: `config.use_cache` is off during training (`distill.training.packing`), and the `trl` trainer
  sets TRL's `SFTTrainer._total_train_tokens` when it resumes (`distill.builtin.trainers.trl_sft`).

Checked on torch 2.13, transformers 5.23, peft 0.21, TRL 1.16 and accelerate 1.15. `tests/training` compares loss and
gradients on all architectures of `tests/support/small_models.py`, and with `-m slow` on every causal one that
transformers can make tiny.
"""

from distill.training.kernels.fast_training import ActiveKernels, fast_training

__all__ = ["ActiveKernels", "fast_training"]

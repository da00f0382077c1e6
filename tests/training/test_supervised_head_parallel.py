"""The supervised-only head under DDP and FSDP: two processes on CPU, against the plain path in one."""

from __future__ import annotations

import os
import socket

import pytest
import torch
from small_models import batch, loss_and_gradients, tiny

from distill import fast_training
from distill.training.kernels import supervised_head as head


def rows_of(rank: int) -> dict:
    """A process's part of the batch: other rows, of which another number of tokens counts."""
    return batch(rows=3, seed=10 + rank)


def work(rank: int, port: int, wrapper: str, chunk_logits: int, folder: str) -> None:
    """One process: a training pass under the wrapper; writes loss and whole gradients."""
    from torch import distributed

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    head.CHUNK_LOGITS = chunk_logits
    model = tiny("gemma2", final_logit_softcapping=2.0)
    with fast_training(model) as active:
        assert active.supervised_head
        if wrapper == "ddp":
            wrapped = torch.nn.parallel.DistributedDataParallel(model)
        else:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh("cpu", (2,))
            for layer in model.model.layers:
                fully_shard(layer, mesh=mesh)
            wrapped = fully_shard(model, mesh=mesh)
        loss, gradients, outputs = loss_and_gradients(wrapped, **rows_of(rank))
        assert outputs.logits is None
    gradients = {
        name.removeprefix("module."): gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        for name, gradient in gradients.items()
    }
    torch.save((loss, gradients), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
@pytest.mark.parametrize("chunk_logits", [2**26, 3 * 96], ids=["at once", "in chunks"])
def test_two_processes_give_the_mean_of_the_plain_gradients(wrapper, chunk_logits, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, wrapper, chunk_logits, str(tmp_path)), nprocs=2)
    plain = [loss_and_gradients(tiny("gemma2", final_logit_softcapping=2.0), **rows_of(rank)) for rank in (0, 1)]
    for rank in (0, 1):
        loss, gradients = torch.load(tmp_path / f"{rank}.pt")
        assert loss == pytest.approx(plain[rank][0], abs=1e-5)
        assert gradients.keys() == plain[0][1].keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, (plain[0][1][name] + plain[1][1][name]) / 2, atol=1e-5, rtol=1e-5)

"""FSDP in transformers' Trainer: what it can train, also on CPUs, and the weights that it leaves in pieces."""

from __future__ import annotations

from typing import Any

from distill import TrainJob, UsageError


def shard_on_cpus(trainer: Any) -> None:
    """Have accelerate shard a student over CPU processes, where FSDP is asked for, exactly as it does over GPUs.

    accelerate takes FSDP for accelerators only, and passes it over on CPUs without a word. Call it when the Trainer has
    made its accelerator, before the model is prepared.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state, wanted = trainer.accelerator.state, trainer.args.fsdp_plugin_args
    if wanted is None or state.distributed_type != DistributedType.MULTI_CPU:
        return
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**wanted)
    # Each new AcceleratorState copies what the PartialState has.
    state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    trainer.is_fsdp_enabled = True


def check_sharding(trainer: Any, job: TrainJob) -> None:
    """Refuse what cannot be trained with FSDP.

    Raises:
        UsageError: a student in 4 bits: its weights cannot be cut into pieces.
    """
    if trainer.is_fsdp_enabled and getattr(job.model, "is_loaded_in_4bit", False):
        raise UsageError("--qlora cannot be trained with FSDP", "use --lora, or leave -T fsdp=… out")


def keep_tied_table(trainer: Any) -> None:
    """Have accelerate shard a tied embedding whose new rows LoRA trains as the one table that it is.

    PEFT wraps either end, and the `weight` of a wrapper is computed anew each time: accelerate would take the two ends
    for two tables, and shard the one that they share twice.
    """
    if not trainer.is_fsdp_enabled:
        return
    ends = [trainer.model.get_input_embeddings(), trainer.model.get_output_embeddings()]
    tables = [end.token_adapter.base_layer.weight for end in ends if hasattr(end, "token_adapter")]
    if len(tables) < 2 or tables[0] is not tables[1]:
        return
    prepare = trainer.accelerator.prepare

    def prepare_as_tied(*args: Any, **kwargs: Any) -> Any:
        for end in ends:
            end.__dict__["weight"] = tables[0]
        try:
            return prepare(*args, **kwargs)
        finally:
            for end in ends:
                del end.__dict__["weight"]

    trainer.accelerator.prepare = prepare_as_tied


def whole_weights(trainer: Any) -> dict[str, Any] | None:
    """All weights of a sharded student, on the CPU of the first process; to be called in every process.

    Returns:
        None where the student is not sharded; nothing in all other processes.
    """
    if not trainer.is_fsdp_enabled:
        return None
    weights: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model)
    return weights

"""distill: fine-tune a small student on a large teacher's chat transcripts.

This façade is all a plugin, or a script, needs to import. It is light: what needs torch, transformers or another
heavy package is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.encode.text_format import TextFormat
from distill.errors import DataError, DistillError, PluginError, TeacherError, UsageError, unknown_name
from distill.hookspecs import hookimpl
from distill.options import NoOptions
from distill.plugins import PluginManager, make_formatter, make_plugin_manager
from distill.protocols import (
    BatchFileTeacher,
    BatchTeacher,
    Checkpoints,
    CollatingLabeler,
    Collator,
    ExplainingLoss,
    Exporter,
    ExportJob,
    Formatter,
    Labeler,
    Loss,
    PlanningTrainer,
    Teacher,
    Trainer,
    TrainJob,
    TrainPlan,
)
from distill.specs import (
    ExporterSpec,
    FormatterSpec,
    HTTPTeacherOptions,
    LabelerSpec,
    LossSpec,
    ModelSpec,
    TeacherSpec,
    TrainerSpec,
)
from distill.types import (
    IGNORE_INDEX,
    ROLES,
    Answer,
    CollectRun,
    Encoded,
    Example,
    Message,
    Params,
    Prompt,
    Request,
    Role,
    Segment,
    SoftBatch,
    SoftTargets,
    Source,
    TrainResult,
    Transcript,
)

if TYPE_CHECKING:
    from distill.collection.teachers import make_teacher as make_teacher
    from distill.encode.encoder import Encoder
    from distill.exporters.gguf import write_gguf as write_gguf
    from distill.exporters.ollama import write_modelfile as write_modelfile
    from distill.models.capture import TokenLogprobs as TokenLogprobs
    from distill.models.generate import ChatModel
    from distill.models.load import load_model as load_model
    from distill.models.load import load_tokenizer as load_tokenizer
    from distill.soft_labels.rows import AnswerLogprobs as AnswerLogprobs
    from distill.soft_labels.rows import LogprobsOrigin as LogprobsOrigin
    from distill.soft_labels.rows import pack_logprobs as pack_logprobs
    from distill.soft_labels.rows import read_logprobs as read_logprobs
    from distill.soft_labels.vocabulary import Vocabulary as Vocabulary
    from distill.soft_labels.vocabulary import tokenizer_fingerprint as tokenizer_fingerprint
    from distill.training.batching import data_loader as data_loader
    from distill.training.kernels import fast_training as fast_training
    from distill.training.kernels.cross_entropy import summed_cross_entropy as summed_cross_entropy
    from distill.training.kernels.soft_cross_entropy import label_logprobs as label_logprobs
    from distill.training.kernels.soft_cross_entropy import summed_soft_cross_entropy as summed_soft_cross_entropy

__version__ = "0.1.0"

_LAZY = {
    "ChatModel": "distill.models.generate",
    "Encoder": "distill.encode.encoder",
    "make_teacher": "distill.collection.teachers",
    "pad_batch": "distill.dataset.collate",
    "read_transcripts": "distill.transcripts.dialects",
    "message_to_dict": "distill.transcripts.rows",
    "cache_dir": "distill.models.references",
    "clean_surrogates": "distill.files.text",
    "convert_model": "distill.models.load",
    "has_half_surrogate": "distill.files.text",
    "has_lone_surrogate": "distill.files.text",
    "hushed": "distill.models.load",
    "data_loader": "distill.training.batching",
    "fast_training": "distill.training.kernels",
    "summed_cross_entropy": "distill.training.kernels.cross_entropy",
    "summed_soft_cross_entropy": "distill.training.kernels.soft_cross_entropy",
    "label_logprobs": "distill.training.kernels.soft_cross_entropy",
    "AnswerLogprobs": "distill.soft_labels.rows",
    "LogprobsOrigin": "distill.soft_labels.rows",
    "pack_logprobs": "distill.soft_labels.rows",
    "read_logprobs": "distill.soft_labels.rows",
    "Vocabulary": "distill.soft_labels.vocabulary",
    "tokenizer_fingerprint": "distill.soft_labels.vocabulary",
    "TokenLogprobs": "distill.models.capture",
    "fused_gelu": "distill.training.kernels.gelu",
    "load_model": "distill.models.load",
    "load_tokenizer": "distill.models.load",
    "supervised_only": "distill.training.kernels.supervised_head",
    "write_gguf": "distill.exporters.gguf",
    "write_modelfile": "distill.exporters.ollama",
}

_DEPRECATED = {
    "ShapedFormatter": "use distill.Formatter",
    "fused_gelu": "use distill.fast_training(model)",
    "supervised_only": "use distill.fast_training(model)",
}
"""Names that work for one more release, with a DeprecationWarning: name → what to do instead."""

_RENAMED = {"ShapedFormatter": "Formatter"}

__all__ = [
    "IGNORE_INDEX",
    "ROLES",
    "Answer",
    "AnswerLogprobs",
    "BatchFileTeacher",
    "BatchTeacher",
    "ChatModel",
    "Checkpoints",
    "CollatingLabeler",
    "Collator",
    "CollectRun",
    "DataError",
    "DistillError",
    "Encoded",
    "Encoder",
    "Example",
    "ExplainingLoss",
    "ExportJob",
    "Exporter",
    "ExporterSpec",
    "Formatter",
    "FormatterSpec",
    "HTTPTeacherOptions",
    "Labeler",
    "LabelerSpec",
    "LogprobsOrigin",
    "Loss",
    "LossSpec",
    "Message",
    "ModelSpec",
    "NoOptions",
    "Params",
    "PlanningTrainer",
    "PluginError",
    "PluginManager",
    "Prompt",
    "Request",
    "Role",
    "Segment",
    "SoftBatch",
    "SoftTargets",
    "Source",
    "Teacher",
    "TeacherError",
    "TeacherSpec",
    "TextFormat",
    "TokenLogprobs",
    "TrainJob",
    "TrainPlan",
    "TrainResult",
    "Trainer",
    "TrainerSpec",
    "Transcript",
    "UsageError",
    "Vocabulary",
    "cache_dir",
    "clean_surrogates",
    "convert_model",
    "data_loader",
    "fast_training",
    "has_half_surrogate",
    "has_lone_surrogate",
    "hookimpl",
    "hushed",
    "label_logprobs",
    "load_model",
    "load_tokenizer",
    "make_formatter",
    "make_plugin_manager",
    "make_teacher",
    "message_to_dict",
    "pack_logprobs",
    "pad_batch",
    "read_logprobs",
    "read_transcripts",
    "summed_cross_entropy",
    "summed_soft_cross_entropy",
    "tokenizer_fingerprint",
    "unknown_name",
    "write_gguf",
    "write_modelfile",
]


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        import warnings

        warnings.warn(f"distill.{name} is deprecated: {_DEPRECATED[name]}", DeprecationWarning, stacklevel=2)
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _RENAMED:
        return globals()[_RENAMED[name]]
    raise AttributeError(f"module 'distill' has no attribute {name!r}")

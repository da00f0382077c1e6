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
    Evaluation,
    Exporter,
    ExportJob,
    Formatter,
    Labeler,
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
    Source,
    TrainResult,
    Transcript,
)

if TYPE_CHECKING:
    from distill.collection.teachers import make_teacher as make_teacher
    from distill.encode.encoder import Encoder
    from distill.exporters.gguf import write_gguf as write_gguf
    from distill.exporters.ollama import write_modelfile as write_modelfile
    from distill.models.generate import ChatModel
    from distill.models.load import load_model as load_model
    from distill.models.load import load_tokenizer as load_tokenizer
    from distill.training.batching import data_loader as data_loader
    from distill.training.kernels import fast_training as fast_training

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
    "Evaluation",
    "Example",
    "ExportJob",
    "Exporter",
    "ExporterSpec",
    "Formatter",
    "FormatterSpec",
    "HTTPTeacherOptions",
    "Labeler",
    "LabelerSpec",
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
    "Source",
    "Teacher",
    "TeacherError",
    "TeacherSpec",
    "TextFormat",
    "TrainJob",
    "TrainPlan",
    "TrainResult",
    "Trainer",
    "TrainerSpec",
    "Transcript",
    "UsageError",
    "cache_dir",
    "clean_surrogates",
    "convert_model",
    "data_loader",
    "fast_training",
    "has_half_surrogate",
    "has_lone_surrogate",
    "hookimpl",
    "hushed",
    "load_model",
    "load_tokenizer",
    "make_formatter",
    "make_plugin_manager",
    "make_teacher",
    "message_to_dict",
    "pad_batch",
    "read_transcripts",
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

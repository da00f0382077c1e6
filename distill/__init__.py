"""distill: fine-tune a small student on a large teacher's chat transcripts.

Everything that scripts, notebooks and plugins need is here. Importing it is fast: what needs torch, transformers or
another heavy package is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of _LAZY; a test compares the two
    from distill.api import (
        check,
        collect,
        compare,
        compare_runs,
        convert,
        doctor,
        export,
        generate,
        load_chat_model,
        open_chat,
        plan_training,
        quickstart,
        run,
        score,
        show,
        trace,
        train,
    )
    from distill.chat.session import Session
    from distill.chat.settings import ChatSettings
    from distill.collection import CollectSettings, make_teacher, read_batch, write_batch
    from distill.collection.cost_estimate import estimate
    from distill.collection.merge import merge
    from distill.comparison import CompareSettings
    from distill.dataset.collate import pad_batch
    from distill.dataset.settings import DataSettings
    from distill.encode.chat_rendering import TemplateOverrun, render_chat
    from distill.encode.encoder import Encoder
    from distill.encode.text_format import TextFormat
    from distill.encode.tokenizer import prepare_tokenizer
    from distill.errors import (
        DataError,
        DistillError,
        PluginError,
        RefusedRow,
        TeacherError,
        UsageError,
        one_line,
        unknown_name,
    )
    from distill.exporters.gguf import write_gguf
    from distill.exporters.ollama import write_modelfile
    from distill.files.text import clean_surrogates, has_lone_surrogate
    from distill.hookspecs import hookimpl
    from distill.models.capture import TokenLogprobs
    from distill.models.device import free_memory, is_out_of_memory
    from distill.models.generate import ChatModel
    from distill.models.load import convert_model, hushed, load_model, load_tokenizer
    from distill.models.references import cache_dir
    from distill.models.scoring import answer_span, score_answers
    from distill.options import NoOptions
    from distill.plugins import PluginManager, make_formatter, make_plugin_manager
    from distill.protocols import (
        BatchFileTeacher,
        BatchTeacher,
        Checkpoints,
        CollatingLabeler,
        Collator,
        Evaluation,
        ExplainingLoss,
        Exporter,
        Formatter,
        Labeler,
        Loss,
        PlanningTrainer,
        ScoringServer,
        ScoringTeacher,
        Teacher,
        Trainer,
        TrainJob,
    )
    from distill.runs import Run, open_run
    from distill.scaffold import new_plugin
    from distill.soft_labels.packer import LogprobsPacker
    from distill.soft_labels.rows import AnswerLogprobs, LogprobsOrigin, pack_logprobs, read_logprobs
    from distill.soft_labels.vocabulary import Vocabulary, tokenizer_fingerprint
    from distill.specs import (
        DialectSpec,
        ExporterSpec,
        FormatterSpec,
        HTTPTeacherOptions,
        LabelerSpec,
        LossSpec,
        ModelSpec,
        TeacherSpec,
        TrainerSpec,
    )
    from distill.training import LoraSettings, TrainSettings
    from distill.training.batching import data_loader
    from distill.training.kernels import fast_training
    from distill.training.kernels.cross_entropy import summed_cross_entropy
    from distill.training.kernels.soft_cross_entropy import label_logprobs, summed_soft_cross_entropy
    from distill.transcripts.reader import read_transcripts
    from distill.transcripts.rows import message_to_dict, transcript_to_dict
    from distill.types import (
        IGNORE_INDEX,
        ROLES,
        Answer,
        CollectRun,
        DataExportJob,
        Encoded,
        Example,
        ExportJob,
        Message,
        Params,
        Prompt,
        Request,
        Role,
        Segment,
        SoftBatch,
        SoftTargets,
        Source,
        TrainPlan,
        TrainResult,
        Transcript,
    )

__version__ = "0.1.0"

_LAZY = {
    name: module
    for module, names in {
        "distill.api": "check collect compare compare_runs convert doctor export generate load_chat_model open_chat "
        "plan_training quickstart run score show trace train",
        "distill.chat.session": "Session",
        "distill.chat.settings": "ChatSettings",
        "distill.collection": "CollectSettings make_teacher read_batch write_batch",
        "distill.collection.cost_estimate": "estimate",
        "distill.collection.merge": "merge",
        "distill.comparison": "CompareSettings",
        "distill.dataset.collate": "pad_batch",
        "distill.dataset.settings": "DataSettings",
        "distill.encode.chat_rendering": "TemplateOverrun render_chat",
        "distill.encode.encoder": "Encoder",
        "distill.encode.tokenizer": "prepare_tokenizer",
        "distill.files.text": "clean_surrogates has_lone_surrogate",
        "distill.models.device": "free_memory is_out_of_memory",
        "distill.models.capture": "TokenLogprobs",
        "distill.models.scoring": "answer_span score_answers",
        "distill.models.generate": "ChatModel",
        "distill.exporters.gguf": "write_gguf",
        "distill.exporters.ollama": "write_modelfile",
        "distill.models.load": "convert_model hushed load_model load_tokenizer",
        "distill.models.references": "cache_dir",
        "distill.runs": "Run open_run",
        "distill.scaffold": "new_plugin",
        "distill.training": "LoraSettings TrainSettings",
        "distill.soft_labels.packer": "LogprobsPacker",
        "distill.soft_labels.rows": "AnswerLogprobs LogprobsOrigin pack_logprobs read_logprobs",
        "distill.soft_labels.vocabulary": "Vocabulary tokenizer_fingerprint",
        "distill.training.batching": "data_loader",
        "distill.training.kernels": "fast_training",
        "distill.training.kernels.cross_entropy": "summed_cross_entropy",
        "distill.training.kernels.soft_cross_entropy": "label_logprobs summed_soft_cross_entropy",
        "distill.transcripts.reader": "read_transcripts",
        "distill.transcripts.rows": "message_to_dict transcript_to_dict",
        "distill.encode.text_format": "TextFormat",
        "distill.errors": "DataError DistillError PluginError RefusedRow TeacherError UsageError one_line unknown_name",
        "distill.hookspecs": "hookimpl",
        "distill.options": "NoOptions",
        "distill.plugins": "PluginManager make_formatter make_plugin_manager",
        "distill.protocols": "BatchFileTeacher BatchTeacher Checkpoints CollatingLabeler Collator Evaluation "
        "ExplainingLoss Exporter Formatter Labeler Loss PlanningTrainer ScoringServer ScoringTeacher "
        "Teacher Trainer TrainJob",
        "distill.specs": "DialectSpec ExporterSpec FormatterSpec HTTPTeacherOptions LabelerSpec LossSpec ModelSpec "
        "TeacherSpec TrainerSpec",
        "distill.types": "IGNORE_INDEX ROLES Answer CollectRun DataExportJob Encoded Example ExportJob Message Params "
        "Prompt Request Role Segment SoftBatch SoftTargets Source TrainPlan TrainResult Transcript",
    }.items()
    for name in names.split()
}
"""Names that are imported when they are first used: name → module."""

_DEPRECATED_LAZY = {
    "has_half_surrogate": "distill.files.text",
    "fused_gelu": "distill.training.kernels.gelu",
    "supervised_only": "distill.training.kernels.supervised_head",
}

_DEPRECATED = {
    "ShapedFormatter": "use distill.Formatter",
    "fused_gelu": "use distill.fast_training(model)",
    "has_half_surrogate": "use distill.has_lone_surrogate",
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
    "ChatSettings",
    "Checkpoints",
    "CollatingLabeler",
    "Collator",
    "CollectRun",
    "CollectSettings",
    "CompareSettings",
    "DataError",
    "DataExportJob",
    "DataSettings",
    "DialectSpec",
    "DistillError",
    "Encoded",
    "Encoder",
    "Evaluation",
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
    "LogprobsPacker",
    "LoraSettings",
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
    "RefusedRow",
    "Request",
    "Role",
    "Run",
    "ScoringServer",
    "ScoringTeacher",
    "Segment",
    "Session",
    "SoftBatch",
    "SoftTargets",
    "Source",
    "Teacher",
    "TeacherError",
    "TeacherSpec",
    "TemplateOverrun",
    "TextFormat",
    "TokenLogprobs",
    "TrainJob",
    "TrainPlan",
    "TrainResult",
    "TrainSettings",
    "Trainer",
    "TrainerSpec",
    "Transcript",
    "UsageError",
    "Vocabulary",
    "answer_span",
    "cache_dir",
    "check",
    "clean_surrogates",
    "collect",
    "compare",
    "compare_runs",
    "convert",
    "convert_model",
    "data_loader",
    "doctor",
    "estimate",
    "export",
    "fast_training",
    "free_memory",
    "generate",
    "has_lone_surrogate",
    "hookimpl",
    "hushed",
    "is_out_of_memory",
    "label_logprobs",
    "load_chat_model",
    "load_model",
    "load_tokenizer",
    "make_formatter",
    "make_plugin_manager",
    "make_teacher",
    "merge",
    "message_to_dict",
    "new_plugin",
    "one_line",
    "open_chat",
    "open_run",
    "pack_logprobs",
    "pad_batch",
    "plan_training",
    "prepare_tokenizer",
    "quickstart",
    "read_batch",
    "read_logprobs",
    "read_transcripts",
    "render_chat",
    "run",
    "score",
    "score_answers",
    "show",
    "summed_cross_entropy",
    "summed_soft_cross_entropy",
    "tokenizer_fingerprint",
    "trace",
    "train",
    "transcript_to_dict",
    "unknown_name",
    "write_batch",
    "write_gguf",
    "write_modelfile",
]


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        import warnings

        warnings.warn(f"distill.{name} is deprecated: {_DEPRECATED[name]}", DeprecationWarning, stacklevel=2)
    module = _LAZY.get(name) or _DEPRECATED_LAZY.get(name)
    if module is not None:
        import importlib

        return getattr(importlib.import_module(module), name)
    if name in _RENAMED:
        return __getattr__(_RENAMED[name])
    raise AttributeError(f"module 'distill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

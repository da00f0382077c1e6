"""For authors of plugins: tiny students, faulty servers, and the suites that hold a plugin to its contract.

Everything here works under pytest and without it, on this machine alone: no network, no weights to download.

    from distill.testing import check_formatter, load_plugin

    def test_contract():
        check_formatter(MyFormat())

* `check_formatter`, `check_labeler`, `check_teacher`, `check_http_teacher`, `check_trainer`, `check_loss`,
  `check_exporter` and `check_dialect` raise an AssertionError that names each broken promise, the conversation, and
  what to do. `distill plugins check NAME` runs the same checks.
* `load_plugin` loads a module as the command line does; `HookRecorder` writes down the calls of observer hooks.
* `TOKENIZERS`, `CONVERSATIONS`, `HOSTILE`, `tiny_llama`, `tiny_bloom`, `tiny_job`, `ScriptedTeacher` and `FaultyServer`
  are what the checks are made of.
"""

from distill.testing.checks import Check, Outcome, Remark, assert_all, run_checks
from distill.testing.conversations import CONVERSATIONS, HOSTILE, PLAIN, TOOL, TOOL_CALLS
from distill.testing.dialects import check_dialect, dialect_checks
from distill.testing.exporters import check_exporter, exporter_checks, tiny_student
from distill.testing.formatters import check_formatter, formatter_checks
from distill.testing.labelers import check_labeler, labeler_checks
from distill.testing.losses import check_loss, loss_checks
from distill.testing.plugins import Call, Checked, HookRecorder, check_named, load_plugin
from distill.testing.server import Asked, FaultyServer, Reply, completion, echo
from distill.testing.students import save_student, tiny_bloom, tiny_llama
from distill.testing.teachers import ScriptedTeacher, check_http_teacher, check_teacher, teacher_checks
from distill.testing.tokenizers import TOKENIZERS, bloom_tokenizer, byte_bpe
from distill.testing.trainers import check_trainer, tiny_job, trainer_checks

__all__ = [
    "CONVERSATIONS",
    "HOSTILE",
    "PLAIN",
    "TOKENIZERS",
    "TOOL",
    "TOOL_CALLS",
    "Asked",
    "Call",
    "Check",
    "Checked",
    "FaultyServer",
    "HookRecorder",
    "Outcome",
    "Remark",
    "Reply",
    "ScriptedTeacher",
    "assert_all",
    "bloom_tokenizer",
    "byte_bpe",
    "check_dialect",
    "check_exporter",
    "check_formatter",
    "check_http_teacher",
    "check_labeler",
    "check_loss",
    "check_named",
    "check_teacher",
    "check_trainer",
    "completion",
    "dialect_checks",
    "echo",
    "exporter_checks",
    "formatter_checks",
    "labeler_checks",
    "load_plugin",
    "loss_checks",
    "run_checks",
    "save_student",
    "teacher_checks",
    "tiny_bloom",
    "tiny_job",
    "tiny_llama",
    "tiny_student",
    "trainer_checks",
]

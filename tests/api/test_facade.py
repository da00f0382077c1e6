"""The front door: what `import distill` offers, that it is light, and that a user's script type-checks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import distill

ROOT = Path(__file__).parents[2]


def test_names_for_type_checkers_are_the_names_that_are_imported_late():
    tree = ast.parse((ROOT / "distill/__init__.py").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    told = {
        alias.name: node.module
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == distill._LAZY


def test_every_public_name_is_there():
    assert len(set(distill.__all__)) == len(distill.__all__)
    for name in distill.__all__:
        assert getattr(distill, name) is not None, name
    assert set(distill.__all__) <= set(dir(distill))


def test_no_command_does_anything_that_the_api_cannot():
    from distill.cli.main import COMMANDS

    others = {"chat": "open_chat", "plugins": "make_plugin_manager"}
    others |= dict.fromkeys(("completion", "view"))  # the shell's own business, and a server
    for command in COMMANDS:
        name = others.get(command.name, command.name)
        assert name is None or name in distill.__all__, command.name


SCRIPT = """
from pathlib import Path

import distill

summary = distill.collect(["Hello?"], teacher="openai:gpt-5-mini", out="answers.jsonl", samples=2, max_usd=1.5)
rows: int = summary.rows
report = distill.check([{"prompt": "a", "completion": "b"}], student="smollm2", turns="last")
fine: bool = report.ok
run = distill.train("answers.jsonl", out="run", student="smollm2", epochs=1, hold_out="10%", lora=True, lora_rank=8)
trained: int = run.report.trained_rows
comparison = distill.compare("run", max_tokens=32)
verdict: str = comparison.verdict
answers = distill.generate("run", ["Hello?", "And you?"], temperature=0.5)
text: str = answers[0].text
settings = distill.TrainSettings("smollm2", "answers.jsonl", Path("run"))

class Shout:
    def label(self, encoded: distill.Encoded) -> list[int]:
        pairs = zip(encoded.input_ids, encoded.assistant_mask)
        return [token if mask else distill.IGNORE_INDEX for token, mask in pairs]


@distill.hookimpl
def register_labelers() -> list[distill.LabelerSpec]:
    return [distill.LabelerSpec("shout", "for a test", build=lambda options, encoder: Shout())]
"""

WRONG = {
    'distill.collect("p.txt", out="o")': "Missing named argument",
    'distill.train("d", out="r", epoch=3)': "Unexpected keyword argument",
    'distill.train("d", out="r", turns="first")': "incompatible type",
    'distill.generate("run", "a")[0].txt': "has no attribute",
}


def test_a_users_script_and_plugin_type_check(tmp_path):
    (tmp_path / "good.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text("import distill\n" + "\n".join(WRONG))
    words = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
    done = subprocess.run(
        [*words, "good.py", "wrong.py", "--cache-dir", str(ROOT / ".mypy_cache")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("good.py") and "error" in line], done.stdout
    for number, said in enumerate(WRONG.values(), 2):
        assert any(line.startswith(f"wrong.py:{number}: error") and said in line for line in lines), done.stdout

"""Every hook is documented, is called, and has a real user in this repository."""

from __future__ import annotations

import ast
import inspect
import json
import types
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import readme
from article import ARTICLE

import distill
from distill.cli.main import build_cli
from distill.plugins import PluginManager, PluginRecord, make_plugin_manager

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
HOOKS = readme.hooks()

KINDS = ("teacher", "formatter", "labeler", "trainer", "exporter", "dialect")


@cache
def implementations(path: Path) -> frozenset[str]:
    """The hooks that a module implements: its functions and methods marked with `hookimpl`."""
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and any("hookimpl" in ast.unparse(decorator) for decorator in node.decorator_list)
    )


def test_all_hooks_are_found():
    assert len(HOOKS) >= 8 and {"register_teachers", "transcript_collected"} <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_its_contract_is_complete(hook):
    text = inspect.getdoc(HOOKS[hook])
    for part in ("When: ", "How often: ", "Order: ", "Returns: ", "Errors: "):
        assert f"\n{part}" in text, f"{hook} does not say {part!r}"


@pytest.mark.parametrize("hook", HOOKS)
def test_it_is_in_the_guide_with_its_exact_signature(hook):
    assert f"### `{hook}`\n" in GUIDE
    assert f"{hook}{readme.signature_of(HOOKS[hook])}\n" in GUIDE


@pytest.mark.parametrize("hook", HOOKS)
def test_it_has_a_user_in_the_gallery(hook):
    """A package that one can install; the only models by name are built in."""
    users = [*(ROOT / "plugins").glob("*/*.py"), ROOT / "distill/builtin/smollm2.py"]
    assert any(hook in implementations(path) for path in users)


def recorder(name, called):
    """A plugin with all hooks, each of which does nothing but note its call."""

    def note(hook):
        called.append((name, hook))
        return [] if hook.startswith("register_") and hook != "register_commands" else None

    module = types.SimpleNamespace()
    for hook, spec in HOOKS.items():
        words = ", ".join(inspect.signature(spec).parameters)  # pluggy reads an implementation's argument names
        setattr(module, hook, distill.hookimpl(eval(f"lambda {words}: note({hook!r})", {"note": note})))
    return module


def load(manager, *modules):
    for number, module in enumerate(modules):
        manager.load(PluginRecord(f"recorder-{number}", "file"), lambda module=module: module)
    assert not manager.failed(), manager.failures()


def test_each_is_called_as_often_as_its_contract_says(tmp_path, bloom, article):
    """Start, collect five rows and train on them: every hook there is has its calls."""
    called = []
    manager = make_plugin_manager(environ={"DISTILL_PLUGINS": ""})
    load(manager, recorder("one", called))
    cli = build_cli(manager)
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("".join(json.dumps({"turns": [t for r, t in chat if r == "user"]}) + "\n" for chat in ARTICLE))
    cli(["collect", str(prompts), "--teacher", f"replay:{article}", "--out", str(out)], standalone_mode=False)
    words = ["--student", str(bloom), "--epochs", "1", "--out", str(tmp_path / "run")]
    cli(["train", str(out), *words], standalone_mode=False)
    often = Counter(hook for _, hook in called)
    assert often == dict.fromkeys(HOOKS, 1) | {"transcript_collected": len(ARTICLE)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_seam_has_a_gallery_a_template_and_a_suite(kind):
    from distill import testing
    from distill.scaffold import KINDS as TEMPLATES

    assert kind in TEMPLATES
    assert callable(getattr(testing, f"check_{kind}"))
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "plugins").glob("*/tests/*.py")]
    assert any(f"check_{kind}(" in text or (kind == "teacher" and "check_http_teacher(" in text) for text in tests)


def test_the_order_of_registration_is_the_order_of_the_page():
    """As the guide says: hook after hook within a plugin, plugin after plugin."""
    called = []
    manager = PluginManager()
    load(manager, recorder("one", called), recorder("two", called))
    build_cli(manager)
    registers = [hook for hook in HOOKS if hook.startswith("register_") and hook != "register_commands"]
    assert called == [
        *(("one", hook) for hook in registers),
        *(("two", hook) for hook in registers),
        ("one", "register_commands"),
        ("two", "register_commands"),
    ]

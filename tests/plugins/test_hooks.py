"""Every hook is documented, has a test, and has a real user in this repository."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/write-a-plugin.md").read_text(encoding="utf-8")
HOOKS = readme.hooks()

KINDS = ("teacher", "formatter", "labeler", "trainer")


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
    assert len(HOOKS) == 8


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
    """A package that one can install, besides the built-in ones."""
    assert any(hook in implementations(path) for path in (ROOT / "plugins").glob("*/*.py"))


@pytest.mark.parametrize("hook", HOOKS)
def test_it_has_a_test(hook):
    texts = [
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_hooks.py"
    ]
    assert any(hook in text for text in texts)


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
    import types

    import distill
    from distill.cli.main import build_cli
    from distill.plugins import PluginManager, PluginRecord

    called = []

    def plugin(name):
        module = types.SimpleNamespace()
        for hook in HOOKS:
            if hook == "register_commands":
                function = lambda cli, hook=hook: called.append((name, hook))  # noqa: E731 - pluggy reads its arguments
            elif hook.startswith("register_"):
                function = lambda hook=hook: called.append((name, hook)) or []  # noqa: E731
            else:
                continue
            setattr(module, hook, distill.hookimpl(function))
        return module

    manager = PluginManager()
    for name in ("one", "two"):
        manager.load(PluginRecord(name, "file"), lambda name=name: plugin(name))
        assert not manager.failed(), manager.failures()
    build_cli(manager)
    registers = [hook for hook in HOOKS if hook.startswith("register_") and hook != "register_commands"]
    assert called == [
        *(("one", hook) for hook in registers),
        *(("two", hook) for hook in registers),
        ("one", "register_commands"),
        ("two", "register_commands"),
    ]

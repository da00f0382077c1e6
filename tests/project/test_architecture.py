"""The rooms and who may enter which, held over the source: imports, sizes, docstrings."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "distill"
MODULES = sorted(PACKAGE.rglob("*.py"))
PLUGINS = sorted(path for path in (ROOT / "plugins").glob("*/*.py"))

HEAVY = {"torch", "transformers", "datasets", "trl", "peft", "accelerate", "numpy", "aiohttp", "tqdm"}

# Each room may import from the rooms before it, and from its own.
ROOMS = [
    {"errors", "types"},
    {"protocols", "specs"},
    {"hookspecs"},
    {"plugins"},
    {"*"},  # all others: what reads, collects, encodes, trains and generates
    {"cli"},
]
FIRST_ROOMS = {room for rooms in ROOMS for room in rooms} - {"*"}

MAX_FILE, MAX_FUNCTION = 400, 60

# Longer than a screen, each with its reason: {"distill/module.py:function": "why"}
LONG_FUNCTIONS: dict[str, str] = {}


@cache
def tree(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """The file as reports name it."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """`distill/cli/main.py` → `distill.cli.main`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:`"""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(node: ast.AST, *, functions: bool, typing: bool = True, at: str = ""):
    """All modules imported under a node, with their lines.

    Args:
        node: where to look.
        functions: whether to look into function bodies.
        typing: whether to look into `if TYPE_CHECKING:`.
        at: the module's own name, for relative imports.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{at}:{child.lineno}: imports are absolute"
            # `from distill import cli` imports a submodule: the name counts, where there is such a module.
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                path = ROOT.joinpath(*whole.split("."))
                is_module = path.with_suffix(".py").is_file() or path.is_dir()
                yield (whole if is_module else child.module), child.lineno
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not functions:
            continue
        elif is_type_checking(child) and not typing:
            for other in child.orelse:
                yield from imports(other, functions=functions, typing=typing, at=at)
        else:
            yield from imports(child, functions=functions, typing=typing, at=at)


def room_of(module: str) -> str:
    """`distill.cli.main` → `cli`; the façade itself is ``."""
    return ".".join(module.split(".")[1:2])


def rank(room: str) -> int:
    """How late a room comes."""
    return next(n for n, rooms in enumerate(ROOMS) if room in rooms or ("*" in rooms and room not in FIRST_ROOMS))


def core() -> list[Path]:
    """The modules that are no plugins, and neither the façade nor the start."""
    outside = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
    return [path for path in MODULES if path not in outside and room_of(module_of(path)) != "builtin"]


@pytest.mark.parametrize("path", core(), ids=name_of)
def test_rooms_import_from_the_rooms_before_them(path):
    here = room_of(module_of(path))
    for module, line in imports(tree(path), functions=True, typing=False, at=name_of(path)):
        if module == "distill" and here == "cli":
            continue  # for `distill.__version__`
        if module.partition(".")[0] == "distill":
            there = room_of(module)
            assert there, f"{name_of(path)}:{line}: the core imports its modules, not the façade"
            assert there != "builtin", f"{name_of(path)}:{line}: plugins are found by the plugin manager"
            assert rank(there) <= rank(here), f"{name_of(path)}:{line}: {here} imports {there}"


def test_no_room_imports_in_circles():
    """At module level the core's modules have an order."""
    needs = {
        module_of(path): {
            module for module, _ in imports(tree(path), functions=False, typing=False) if module.startswith("distill.")
        }
        for path in core()
    }
    while needs:
        free = [name for name, others in needs.items() if not others & set(needs) - {name}]
        assert free, f"import circle among {sorted(needs)}"
        for name in free:
            del needs[name]


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(module_of(path)) == "builtin"], ids=name_of)
def test_built_in_plugins_import_the_facade_only(path):
    own = ".".join(module_of(path).split(".")[:3])
    for module, line in imports(tree(path), functions=True, at=name_of(path)):
        if module.partition(".")[0] == "distill" and module != "distill":
            inside = own.count(".") == 2 and (module == own or module.startswith(own + "."))
            assert inside, f"{name_of(path)}:{line}: imports {module}; a plugin has the façade `distill`"


@pytest.mark.parametrize("path", PLUGINS, ids=name_of)
def test_plugin_packages_import_the_facade_and_the_standard_library(path):
    for module, line in imports(tree(path), functions=False, typing=False, at=name_of(path)):
        top = module.partition(".")[0]
        light = top in sys.stdlib_module_names or top == "click" or module == "distill"
        assert light, f"{name_of(path)}:{line}: imports {module}; a dependency is imported where it is used"
    for module, line in imports(tree(path), functions=True, at=name_of(path)):
        if module.partition(".")[0] == "distill":
            assert module == "distill", f"{name_of(path)}:{line}: imports {module}; a plugin has the façade `distill`"


def test_plugin_packages_have_their_parts():
    for package in sorted((ROOT / "plugins").glob("*/")):
        (module,) = package.glob("*.py")
        assert module.stem == package.name.replace("-", "_")
        for part in ("pyproject.toml", "README.md", "tests"):
            assert (package / part).exists(), f"{name_of(package)} has no {part}"
        pyproject = (package / "pyproject.toml").read_text(encoding="utf-8")
        assert f'name = "{package.name}"' in pyproject
        assert "[project.entry-points.distill]" in pyproject


@cache
def imported_at_start() -> frozenset[Path]:
    """The modules that are imported, directly or not, when the command line is built."""
    names = {module_of(path): path for path in MODULES}
    started = {"distill", "distill.cli.main", *(name for name in names if name.count(".") == 2 and "builtin" in name)}
    queue = list(started)
    while queue:
        path = names[queue.pop()]
        for module, _ in imports(tree(path), functions=False, typing=False):
            for name in {module, module.rpartition(".")[0]} & set(names) - started:
                started.add(name)
                queue.append(name)
    return frozenset(names[name] for name in started)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_modules_are_imported_where_they_are_used(path):
    lazily = room_of(module_of(path)) == "builtin" and path not in imported_at_start()
    if lazily:
        return  # the body of a built-in plugin, imported when it is named
    for module, line in imports(tree(path), functions=False, typing=False, at=name_of(path)):
        assert module.partition(".")[0] not in HEAVY, f"{name_of(path)}:{line}: imports {module} at module level"


def functions(path: Path):
    """All functions of a file, each as `file:function`, with its lines; its docstring does not count."""
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            documented = ast.get_docstring(node) is not None
            docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
            yield f"{name_of(path)}:{node.name}", node.end_lineno - node.lineno + 1 - docstring


@pytest.mark.parametrize("path", [*MODULES, *PLUGINS], ids=name_of)
def test_files_are_read_in_one_sitting_and_functions_on_one_screen(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE, f"{name_of(path)} has {lines} lines"
    for name, length in functions(path):
        assert length <= MAX_FUNCTION or name in LONG_FUNCTIONS, f"{name} has {length} lines"


def test_exceptions_are_still_needed():
    long = {name for path in MODULES for name, length in functions(path) if length > MAX_FUNCTION}
    assert set(LONG_FUNCTIONS) <= long


def public(node: ast.AST, inside: str = ""):
    """Public functions, classes and methods, but not the functions inside functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue
        if not any("property" in ast.unparse(decorator) for decorator in child.decorator_list):
            yield inside + child.name, child
        if isinstance(child, ast.ClassDef):
            yield from public(child, f"{child.name}.")


@pytest.mark.parametrize("path", [*MODULES, *PLUGINS], ids=name_of)
def test_what_is_public_has_a_docstring(path):
    assert ast.get_docstring(tree(path)), f"{name_of(path)} does not say what it is for"
    for name, node in public(tree(path)):
        assert ast.get_docstring(node), f"{name_of(path)}:{node.lineno}: {name} has no docstring"

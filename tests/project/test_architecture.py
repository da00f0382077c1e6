"""The rooms and who may enter which, checked over the source: imports, sizes, docstrings.

Each rule is one test that looks at every file and lists all offenders.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from floors import FLOORS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # it comes with pytest there

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "distill"
MODULES = sorted(PACKAGE.rglob("*.py"))
PLUGINS = sorted(path for path in (ROOT / "plugins").glob("*/*.py"))

HEAVY = {"torch", "transformers", "datasets", "trl", "peft", "accelerate", "numpy", "aiohttp", "tqdm"}

RANK = {room: rank for rank, rooms in enumerate(FLOORS) for room in rooms}

MAX_MODULES_AT_THE_TOP, MAX_FILE, MAX_FUNCTION = 12, 400, 60


class Arrow(NamedTuple):
    """One import inside the package."""

    importer: str
    imported: str
    where: str

    @property
    def rooms(self) -> tuple[str, str]:
        """The importing and the imported room."""
        return room_of(self.importer), room_of(self.imported)


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


def imports(node: ast.AST, *, functions: bool, typing: bool = True) -> Iterator[tuple[str, int]]:
    """All modules imported under a node, with their lines.

    Args:
        node: where to look.
        functions: whether to look into function bodies.
        typing: whether to look into `if TYPE_CHECKING:`.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            # `from distill import cli` imports a submodule: the name counts, where there is such a module.
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                path = ROOT.joinpath(*whole.split("."))
                is_module = path.with_suffix(".py").is_file() or path.is_dir()
                yield (whole if is_module else str(child.module)), child.lineno
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not functions:
            continue
        elif is_type_checking(child) and not typing:
            for other in child.orelse:  # type: ignore[attr-defined]
                yield from imports(other, functions=functions, typing=typing)
        else:
            yield from imports(child, functions=functions, typing=typing)


def room_of(module: str) -> str:
    """`distill.cli.main` → `cli`; the façade itself is ``."""
    return ".".join(module.split(".")[1:2])


@cache
def arrows() -> tuple[Arrow, ...]:
    """Every import from one of the core's modules to another; plugins, façade and start are no part of the core."""
    outside = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
    core = [path for path in MODULES if path not in outside and room_of(module_of(path)) != "builtin"]
    return tuple(
        Arrow(module_of(path), module, f"{name_of(path)}:{line}")
        for path in core
        for module, line in imports(tree(path), functions=True)
        if module.partition(".")[0] == "distill"
    )


def circle_in(needs: Mapping[str, Collection[str]]) -> list[str]:
    """One circle among names that need each other, or an empty list."""
    try:
        TopologicalSorter({name: set(others) - {name} for name, others in needs.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_are_absolute():
    relative = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_every_room_has_its_floor():
    rooms = {room_of(module_of(path)) for path in MODULES} - {"", "__main__", "builtin"}
    assert rooms <= set(RANK), "a new room needs its place in FLOORS"


def test_rooms_import_downward_only():
    wrong = []
    for arrow in arrows():
        here, there = arrow.rooms
        if there == "" and here == "cli":
            continue  # the commands are a shell over the façade
        if not there:
            wrong.append(f"{arrow.where}: the core imports its modules, not the façade")
        elif there == "builtin":
            wrong.append(f"{arrow.where}: plugins are found by the plugin manager")
        elif RANK[there] > RANK[here]:
            wrong.append(f"{arrow.where}: {here} imports {there}")
    assert not wrong, "\n".join(wrong)


def test_no_rooms_import_in_circles():
    """Rooms of one floor may import each other, in one direction."""
    needs: dict[str, set[str]] = {room: set() for room in RANK}
    for arrow in arrows():
        here, there = arrow.rooms
        if there in RANK:
            needs[here].add(there)
    assert not circle_in(needs)


def test_no_modules_import_in_circles():
    """Imports inside functions and for type checkers included."""
    modules = {module_of(path) for path in MODULES}
    needs: dict[str, set[str]] = defaultdict(set)
    for arrow in arrows():
        if not room_of(arrow.imported):
            continue
        # A package's own modules may import each other; the package's `__init__` may gather them.
        needs[arrow.importer].add(arrow.imported if arrow.imported in modules else arrow.imported.rpartition(".")[0])
    assert not circle_in(needs)


def test_few_modules_lie_at_the_top():
    top = sorted(path.name for path in PACKAGE.glob("*.py") if path.name not in ("__init__.py", "__main__.py"))
    assert len(top) <= MAX_MODULES_AT_THE_TOP, top


def test_built_in_plugins_import_the_facade_only():
    wrong = []
    for path in MODULES:
        if room_of(module_of(path)) != "builtin":
            continue
        own = ".".join(module_of(path).split(".")[:3])
        for module, line in imports(tree(path), functions=True):
            inside = own.count(".") == 2 and (module == own or module.startswith(own + "."))
            if module.partition(".")[0] == "distill" and module != "distill" and not inside:
                wrong.append(f"{name_of(path)}:{line}: imports {module}; a plugin has the façade `distill`")
    assert not wrong, "\n".join(wrong)


def test_plugin_packages_import_the_facade_and_the_standard_library():
    wrong = []
    for path in PLUGINS:
        for module, line in imports(tree(path), functions=False, typing=False):
            top = module.partition(".")[0]
            if not (top in sys.stdlib_module_names or top == "click" or module == "distill"):
                wrong.append(f"{name_of(path)}:{line}: imports {module}; a dependency is imported where it is used")
        for module, line in imports(tree(path), functions=True):
            if module.partition(".")[0] == "distill" and module != "distill":
                wrong.append(f"{name_of(path)}:{line}: imports {module}; a plugin has the façade `distill`")
    assert not wrong, "\n".join(wrong)


def test_plugin_packages_have_their_parts():
    for module in PLUGINS:
        package = module.parent
        assert module.stem == package.name.replace("-", "_")
        for part in ("pyproject.toml", "README.md", "tests"):
            assert (package / part).exists(), f"{name_of(package)} has no {part}"
        pyproject = (package / "pyproject.toml").read_text(encoding="utf-8")
        assert f'name = "{package.name}"' in pyproject
        assert "[project.entry-points.distill]" in pyproject


def test_every_third_party_import_is_declared():
    """Libraries that come along with another dependency are declared too: they may stop coming along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in project["dependencies"] + extras}
    own_names = {"yaml": "pyyaml", "ruamel": "ruamel.yaml"}
    undeclared = set()
    for path in MODULES:
        for module, line in imports(tree(path), functions=True, typing=False):
            top = module.partition(".")[0]
            name = own_names.get(top, top.lower().replace("_", "-"))
            if top not in sys.stdlib_module_names and top != "distill" and name not in declared:
                undeclared.add(f"{name_of(path)}:{line}: {top}")
    assert not undeclared, "\n".join(sorted(undeclared))


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


def test_heavy_modules_are_imported_where_they_are_used():
    wrong = []
    for path in MODULES:
        if room_of(module_of(path)) == "builtin" and path not in imported_at_start():
            continue  # the body of a built-in plugin, imported when it is named
        for module, line in imports(tree(path), functions=False, typing=False):
            if module.partition(".")[0] in HEAVY:
                wrong.append(f"{name_of(path)}:{line}: imports {module} at module level")
    assert not wrong, "\n".join(wrong)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """All functions of a file, each as `file:function`, with its lines, but for its docstring and generated ones."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            documented = ast.get_docstring(node) is not None
            docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
            marks = [n for n in range(node.lineno, node.end_lineno) if "[[[" in lines[n]]
            generated = marks[-1] - marks[0] - 1 if marks else 0
            yield f"{name_of(path)}:{node.name}", node.end_lineno - node.lineno + 1 - docstring - generated


def test_files_are_read_in_one_sitting_and_functions_on_one_screen():
    files = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in [*MODULES, *PLUGINS]}
    assert not {name: lines for name, lines in files.items() if lines > MAX_FILE}
    long = {name: lines for path in [*MODULES, *PLUGINS] for name, lines in functions(path) if lines > MAX_FUNCTION}
    assert not long


def public(node: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public functions, classes and methods, but not the functions inside functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue
        if not any("property" in ast.unparse(decorator) for decorator in child.decorator_list):
            yield inside + child.name, child
        if isinstance(child, ast.ClassDef):
            yield from public(child, f"{child.name}.")


def test_what_is_public_has_a_docstring():
    bare = []
    for path in [*MODULES, *PLUGINS]:
        if not ast.get_docstring(tree(path)):
            bare.append(name_of(path))
        bare.extend(
            f"{name_of(path)}:{node.lineno}: {name}" for name, node in public(tree(path)) if not ast.get_docstring(node)
        )
    assert not bare, "\n".join(bare)


def test_test_files_have_names_of_their_own():
    """Two test files of one name cannot be collected together; nor may a test shadow a helper."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert not [name for name, count in names.items() if count > 1]

"""The source code that a result depends on: the modules that a stage or a plugin imports, found from the source itself.

The store's keys contain a hash of that source, so an edited line never reuses an old result, and an edit elsewhere
invalidates nothing. Nothing is listed by hand: the closure follows every import, including those inside functions, and
every string that is the name of a module (a worker started with `python -m`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import m3i

DECLARATIONS = ("m3i", "m3i.artifacts", "m3i.component", "m3i.config.settings", "m3i.errors", "m3i.hookspecs",
                "m3i.interfaces")  # fmt: skip
"""Left out of every closure: the artifacts, the options and the store's format number already carry their meaning."""
RESULT_FREE = ("m3i.ledger",)
"""Left out as well: the ledger only passes on a provider's answers, and those are in the recording."""
REQUEST = "m3i.ledger.request"
"""The one module of the ledger that is kept: it defines what is asked."""
DATA_SUFFIXES = (".jsonl",)
"""Suffixes of a module's data, which has the module's name: injections.jsonl next to injections.py."""
PLUGIN_SUFFIXES = (".py", ".txt", ".gbnf", ".jinja")
"""Suffixes of the files in a plugin's package that count as its source."""


@cache
def core_files() -> dict[str, bytes]:
    """Returns path → bytes of each source file in m3i/, all read on the first call: later edits are not seen."""
    root = Path(m3i.__file__).parent
    files = [file for suffix in (".py", *DATA_SUFFIXES) for file in root.rglob(f"*{suffix}")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@cache
def core_modules() -> dict[str, str]:
    """Returns name → file, as in `core_files`, of each module of the core."""
    files = (file for file in core_files() if file.endswith(".py"))
    return {".".join(["m3i", *Path(f).with_suffix("").parts]).removesuffix(".__init__"): f for f in files}


@cache
def core_hash(*modules: str) -> str:
    """Returns a hash (16 hex digits) of the source of core modules and of everything in the core that they import."""
    unknown = sorted({*modules} - core_modules().keys())
    if unknown:
        raise LookupError(f"no module {unknown[0]} in m3i/")
    return _hash_modules(closure(modules))


@cache
def package_hash(package: str, plugins: frozenset[str] = frozenset()) -> str:
    """Returns a hash (16 hex digits) of a plugin's package and of the source that it depends on.

    Args:
        package: Top-level name of the package (or module).
        plugins: Packages of all installed plugins; those that this one imports count as its source.
    """
    packages, modules = {package}, set[str]()
    todo = [package]
    while todo:
        for name in _imported_by_package(todo.pop(), plugins):
            if name in core_modules():
                modules.add(name)
            elif name not in packages:
                packages.add(name)
                todo.append(name)
    own = [(f"{name}/{file}", content) for name in sorted(packages) for file, content in _package_files(name)]
    return hash_contents([*own, ("core", _hash_modules(closure(modules)).encode())])


def hash_contents(files: Iterable[tuple[str, bytes]]) -> str:
    """Returns the sha256 of (name, content) pairs, cut to 16 hex digits."""
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:16]


def closure(modules: Iterable[str]) -> frozenset[str]:
    """Returns the modules and all that they import in the core, directly or not, without declarations and ledger."""
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in seen and name in core_modules() and not _left_out(name):
            seen.add(name)
            todo += _imported_by_module(name)
    return frozenset(seen)


def _left_out(module: str) -> bool:
    rooms = ("m3i.artifacts", *RESULT_FREE)
    inside = any(module == room or module.startswith(f"{room}.") for room in rooms)
    return (module in DECLARATIONS or inside) and module != REQUEST


def _hash_modules(modules: Iterable[str]) -> str:
    stems = sorted(core_modules()[module].removesuffix(".py") for module in modules)
    names = [name for stem in stems for name in (f"{stem}{s}" for s in (".py", *DATA_SUFFIXES)) if name in core_files()]
    return hash_contents((name, core_files()[name]) for name in names)


@cache
def _imported_by_module(module: str) -> frozenset[str]:
    file = core_modules()[module]
    package = module if file.endswith("__init__.py") else module.rpartition(".")[0]
    return frozenset(_modules_of(imported(core_files()[file], package)))


@cache
def _imported_by_package(package: str, plugins: frozenset[str]) -> frozenset[str]:
    names = {name for file, content in _package_files(package) if file.endswith(".py") for name in imported(content)}
    others = {name.partition(".")[0] for name in names} & plugins - {package}
    return frozenset({*_modules_of(names), *others})


def _modules_of(names: Iterable[str]) -> Iterator[str]:
    """Yields the core modules among imported names; a public name such as `m3i.option` stands for its module.

    The `__init__` of a package around an imported module does not count, since it only re-exports names.
    """
    for name in names:
        module = m3i.EXPORTS.get(name.removeprefix("m3i."), name) if name.startswith("m3i.") else name
        if module in core_modules() and module != "m3i":
            yield module


def imported(source: bytes, package: str = "") -> set[str]:
    """Returns the dotted names that Python source imports at run time: modules, and names in them.

    Args:
        source: The text of a module.
        package: The package that relative imports start from; if empty, they are skipped.
    """
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level and package else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module and (package or not node.level):
                found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "m3i":
            found.add(f"m3i.{node.attr}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _can_be_started(node.value):
            found.add(node.value)
        todo += ast.iter_child_nodes(node)
    return found


def _can_be_started(name: str) -> bool:
    """Returns whether a text is the name of a core module that `python -m` can start; packages cannot be started."""
    return not core_modules().get(name, "__init__.py").endswith("__init__.py")


@cache
def _package_files(package: str) -> tuple[tuple[str, bytes], ...]:
    """Returns the source files of an importable package with their contents; none if it is not found."""
    spec = importlib.util.find_spec(package) if package not in sys.modules else sys.modules[package].__spec__
    if spec is None or spec.origin is None:
        return ()
    origin = Path(spec.origin)
    files = [origin] if origin.name != "__init__.py" else sorted(origin.parent.rglob("*"))
    kept = (file for file in files if file.suffix in PLUGIN_SUFFIXES and file.is_file())
    return tuple((str(file.relative_to(origin.parent)), file.read_bytes()) for file in kept)
